"""Serving bundles: written, proved in a fresh process, rebuilt, described."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors.numpy
from jax import export

from gapt_jax.errors import UserError
from gapt_jax.export import card, onnx
from gapt_jax.export import functions as library
from gapt_jax.export.functions import PLATFORMS, Weights, exported, flatten, quantised
from gapt_jax.export.latency import frame_latency
from gapt_jax.export.manifest import CARD, CONFIG, MOST_FRAMES, TRITON, VOCABULARY, read_manifest
from gapt_jax.export.network import Playing, read_playing, read_weights
from gapt_jax.export.proof import prove
from gapt_jax.export.verify import (
    GOLDEN,
    MANIFEST,
    ONNX,
    SCHEMA,
    START,
    SUMS,
    WEIGHTS,
    read_safetensors,
    shaped,
)
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import git_revision, source_hash, strict_json
from gapt_jax.tasks.accompaniment.task import accompaniment
from gapt_jax.training.saved import SavedPolicy
from gapt_jax.types import Params
from gapt_jax.vocabulary import BOS, FRAMES_PER_BEAT, NOTE_HOLD, NOTE_ONSET, SILENCE

READABLE_DAYS = 180  # of jax.export's promise to read what older versions wrote
GOLDEN_SONGS, GOLDEN_FRAMES = 2, 8


def write(
    policy: SavedPolicy,
    out: Path,
    console: Console,
    *,
    dtype: str = "float32",
    with_onnx: bool | None = None,
    evaluation: dict[str, Any] | None = None,
    training: card.Training | None = None,
) -> dict[str, Any]:
    """Writes the bundle of a policy and proves it: its manifest. Nothing is left behind where the proof fails.

    ONNX is written where its packages are installed, unless `with_onnx` says otherwise. `evaluation` and `training` are
    for the model card.
    """
    experiment = policy.experiment
    if accompaniment(policy.task).part != "chords":
        raise UserError(f"{policy.facts['run']} is a melody agent: export the run of a chord policy")
    if out.exists():
        raise UserError(f"{out} exists already: remove it or choose another --out")
    if with_onnx and not onnx.is_installed():
        raise UserError(f"{onnx.MISSING}; or leave out --onnx")
    if not 3 <= experiment.data.max_frames <= MOST_FRAMES:
        raise UserError(
            f"{policy.facts['run']} plays songs of {experiment.data.max_frames:,} frames: "
            f"a bundle is for 3 to {MOST_FRAMES:,}"
        )
    playing = Playing(experiment.models.policy, accompaniment(policy.task).vocabulary, experiment.data.max_frames)
    weights = {name: np.asarray(array, np.float32) for name, array in flatten(policy.params).items()}
    with _finished(out) as folder:
        _save(folder / WEIGHTS, _stored(weights, dtype))
        golden = _golden(playing, policy.params)
        _save(folder / GOLDEN, golden)
        (folder / VOCABULARY).write_text(playing.vocabulary.to_json(), encoding="utf-8")
        settings = {
            "policy": dataclasses.asdict(playing.config),
            "max_frames": playing.frames,
            "vocabulary_size": playing.vocabulary.size,
        }
        (folder / CONFIG).write_text(strict_json(settings, indent=2) + "\n", encoding="utf-8")
        manifest = {
            "schema": SCHEMA,
            "name": card.short_name(policy.facts),
            "origin": policy.facts,
            "parameters": sum(array.size for array in weights.values()),
            "dtype": dtype,
            "weights_sha256": _sha256(folder / WEIGHTS),
            "vocabulary_hash": playing.vocabulary.hash,
            "vocabulary_size": playing.vocabulary.size,
            "frames_per_beat": FRAMES_PER_BEAT,
            "max_frames": playing.frames,
            "length": playing.length,
            "sampling": {"temperature": 1.0, "is_masked": True},
        }
        wanted = onnx.is_installed() if with_onnx is None else with_onnx
        return _compile(folder, playing, manifest, console, wanted, evaluation, training)


def refresh(folder: Path, console: Console) -> dict[str, Any]:
    """Rebuilds what is compiled in a bundle from its weights, and proves it again; the old bundle is replaced whole."""
    old = read_manifest(folder)
    playing = read_playing(folder)
    has_onnx = (folder / ONNX).exists()
    if has_onnx and not onnx.is_installed():
        raise UserError(f"{folder} holds an ONNX graph, and {onnx.MISSING}")
    read_weights(folder, playing)
    before = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    kept = {key: value for key, value in old.items() if key not in ("functions", "files", "parity", "latency")}
    with _finished(folder, replaces=before) as fresh:
        for name in (WEIGHTS, GOLDEN, VOCABULARY, CONFIG):
            shutil.copy2(folder / name, fresh / name)
        manifest = _compile(fresh, playing, kept, console, has_onnx, card_of=(folder, old["expires"]))
    shutil.rmtree(before, ignore_errors=True)
    return manifest


def _compile(
    folder: Path,
    playing: Playing,
    manifest: dict[str, Any],
    console: Console,
    with_onnx: bool,
    evaluation: dict[str, Any] | None = None,
    training: card.Training | None = None,
    card_of: tuple[Path, str] | None = None,
) -> dict[str, Any]:
    """Writes all that follows from weights and settings, proves the bundle, and completes the manifest.

    `card_of` is a bundle whose card is kept, with the day on which that bundle expires.
    """
    weights = read_safetensors(folder / WEIGHTS)
    today = datetime.date.today()
    manifest |= {
        "created": today.isoformat(),
        "expires": (today + datetime.timedelta(days=READABLE_DAYS)).isoformat(),
        "produced_with": {"jax": jax.__version__, "git_revision": git_revision(), "source": source_hash()},
        "functions": [],
        "parity": None,
        "latency": None,
    }
    config, functions = playing.config, playing.functions
    signatures = functions.signatures(weights, config.heads, config.head_dim, playing.vocabulary.size)
    (folder / "fn").mkdir()
    for name, (function, arguments) in signatures.items():
        console.say(f"compiling {name}")
        content = exported(function, arguments)
        (folder / f"fn/{name}.jaxexport").write_bytes(content)
        manifest["functions"].append(_signature(name, function, content))
    if with_onnx:
        console.say("compiling commit_frame for ONNX")
        params = library.computed(weights)
        onnx.write(folder / ONNX, playing.network, params, config, playing.length)
        _save(folder / START, _first_state(playing, params))
        (folder / TRITON).parent.mkdir()
        text = card.triton_config(manifest["name"], config, playing.vocabulary.size, playing.length)
        (folder / TRITON).write_text(text, encoding="utf-8")
    if card_of:
        text = (card_of[0] / CARD).read_bytes().decode(errors="replace").replace(card_of[1], manifest["expires"])
    else:
        text = card.model_card(manifest, evaluation, with_onnx, training)
    (folder / CARD).write_text(text, encoding="utf-8")
    _seal(folder, manifest)
    console.say("verifying in a fresh process")
    manifest["parity"] = prove(folder)
    console.say("measuring")
    manifest["latency"] = frame_latency(folder, playing.network, library.computed(weights), config, playing.length)
    _seal(folder, manifest)
    return manifest


def _signature(name: str, function: Any, content: bytes) -> dict[str, Any]:
    """Inputs and outputs of an exported function, in the order of its arguments."""
    found = export.deserialize(bytearray(content))
    (arguments, _), outputs = (jax.tree.unflatten(found.in_tree, found.in_avals)), found.out_avals
    names = [name for name in function.__code__.co_varnames[1 : function.__code__.co_argcount]]
    inputs = []
    for argument, value in zip(names[1:], arguments[1:], strict=True):  # the weights are in their own file
        inputs += [
            shaped(aval, key or argument) for key, aval in (value.items() if isinstance(value, dict) else [("", value)])
        ]
    results = jax.tree_util.tree_leaves_with_path(jax.tree.unflatten(found.out_tree, outputs))
    return {
        "name": name,
        "file": f"fn/{name}.jaxexport",
        "platforms": list(PLATFORMS),
        "calling_convention": found.calling_convention_version,
        "weights": WEIGHTS,
        "inputs": inputs,
        "outputs": [shaped(aval, _output_name(name, path)) for path, aval in results],
    }


def _output_name(function: str, path: tuple[Any, ...]) -> str:
    if len(path) > 1:
        return str(path[1].key)
    return ("chords", "melody")[path[0].idx] if function == "plan" else "logits"


def _stored(weights: Weights, dtype: str) -> Weights:
    if dtype == "int8":
        return quantised(weights)
    return {
        name: array.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32) for name, array in weights.items()
    }


def _golden(playing: Playing, params: Params) -> dict[str, np.ndarray]:
    """Melodies, the chords that the checkpoint plays to them greedily, and its logits by a full pass without cache."""
    melody = _melodies(playing.frames)
    network = playing.network
    decode = jax.jit(lambda tokens, cache, position: network.method(params, "decode", tokens, cache, position))
    cache = network.method(params, "empty_cache", GOLDEN_SONGS, playing.length)
    logits, cache = decode(jnp.full((GOLDEN_SONGS, 1), BOS), cache, jnp.int32(0))
    chords = []
    for frame in range(playing.frames):
        chords.append(np.asarray(logits).argmax(-1).astype(np.int32))
        heard = jnp.stack([chords[-1], melody[:, frame]], axis=1)
        logits, cache = decode(heard, cache, jnp.int32(1 + 2 * frame))
    played = np.stack(chords, axis=1)
    stream = np.stack([played, melody], axis=-1).reshape(GOLDEN_SONGS, -1)
    tokens = np.pad(stream, ((0, 0), (1, 0)), constant_values=BOS)[:, :-1]
    full = np.asarray(jax.jit(lambda tokens: network.method(params, "at_states", tokens))(tokens), np.float32)
    frames = np.unique(np.linspace(0, playing.frames - 1, GOLDEN_FRAMES).round()).astype(np.int32)
    log_probs = np.take_along_axis(np.asarray(jax.nn.log_softmax(full)), played[..., None], axis=-1)[..., 0]
    return {"melody": melody, "chords": played, "frames": frames, "logits": full[:, frames], "log_probs": log_probs}


def _melodies(frames: int) -> np.ndarray:
    """[GOLDEN_SONGS, T] int32: wandering melodies with rests, the same for every bundle."""
    draws = np.random.default_rng(0)
    songs = np.full((GOLDEN_SONGS, frames), SILENCE, np.int32)
    for song in songs:
        at, pitch = 0, 67
        while at < frames:
            end = min(frames, at + int(draws.choice([1, 2, 2, 4, 4, 8])))
            if draws.random() < 0.85:
                pitch = int(np.clip(pitch + draws.integers(-5, 6), 48, 84))
                song[at], song[at + 1 : end] = NOTE_ONSET + pitch, NOTE_HOLD + pitch
            at = end
    return songs


def _first_state(playing: Playing, params: Params) -> Weights:
    """Logits of the first chord, and what BOS leaves in each cache: the first column, the rest is zero."""
    network = playing.network
    cache = network.method(params, "empty_cache", 1, 1)
    logits, cache = network.method(params, "decode", jnp.full((1, 1), BOS), cache, jnp.int32(0))
    names = library.state_names(playing.config.depth, library.PAST)
    arrays = [array for pair in cache for array in pair]
    return {"logits": np.asarray(logits)} | {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}


def _save(path: Path, arrays: Weights) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    path.write_bytes(safetensors.numpy.save(whole, metadata={"format": SCHEMA}))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest and the list of hashes over all files."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = [path for path in paths if path not in (MANIFEST, SUMS)]
    manifest["files"] = {
        path: {"sha256": _sha256(folder / path), "bytes": (folder / path).stat().st_size} for path in kept
    }
    (folder / MANIFEST).write_text(strict_json(manifest, indent=2) + "\n", encoding="utf-8")
    lines = [f"{_sha256(folder / path)}  {path}\n" for path in [*kept, MANIFEST]]
    (folder / SUMS).write_text("".join(lines), encoding="ascii")


@contextlib.contextmanager
def _finished(out: Path, replaces: Path | None = None) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all has gone well, and vanishes when not."""
    folder = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    folder.mkdir(parents=True)
    try:
        yield folder
        if replaces:
            shutil.move(out, replaces)
        shutil.move(folder, out)  # copies where no folder can be renamed; the list of hashes says what is whole
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
