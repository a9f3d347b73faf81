"""What the JSON files of a bundle must look like, field by field. Pure but for reading them."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gapt_jax.errors import UserError
from gapt_jax.export.verify import (
    FUNCTIONS,
    GOLDEN,
    MANIFEST,
    MAX_DRIFT,
    ONNX,
    SCHEMA,
    START,
    WEIGHTS,
    Refused,
    check_files,
    read_json,
)
from gapt_jax.vocabulary import CHORD_HOLD, Vocabulary

CONFIG, VOCABULARY, CARD, TRITON = "config.json", "vocabulary.json", "README.md", "triton/config.pbtxt"
MOST_FRAMES, MOST_TOKENS = 1 << 16, 1 << 20  # of a session, of a vocabulary
_MOST_LAYERS, _MOST_WIDTH = 1 << 10, 1 << 20
_ABSENT = object()

Fits = Callable[[Any], bool]
Form = Any  # what a value must be: Fits, {name: Form} of a table, [Form] of a list


def _whole(least: int, most: int) -> Fits:
    return lambda value: type(value) is int and least <= value <= most


def _number(least: float, most: float) -> Fits:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 300 and value.isprintable()


def _digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _date(value: Any) -> bool:
    try:
        return datetime.date.fromisoformat(value).isoformat() == value
    except (TypeError, ValueError):
        return False


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _one_of(*names: Any) -> Fits:
    return lambda value: isinstance(value, str) and value in names


def _or_null(form: Form) -> Fits:
    return lambda value: value is None or misfit(value, form) is None


def _if_there(form: Form) -> Fits:
    return lambda value: value is _ABSENT or misfit(value, form) is None


def _files(value: Any) -> bool:
    facts = {"sha256": _digest, "bytes": _whole(0, 1 << 40)}
    return isinstance(value, dict) and all(misfit(entry, facts) is None for entry in value.values())


def _dimension(value: Any) -> bool:
    return _whole(1, 1 << 31)(value) or _one_of("B", "T", "K")(value)


_SMALL = _number(-1, 1e6)  # errors and divergences, which rounding may bring below 0
_TIMES = dict.fromkeys(("p50_ms", "p95_ms", "times_engine"), _number(0, 1e9))
_ARRAY = {"name": _text, "shape": [_dimension], "dtype": _one_of("int32", "float32", "bool")}
_MANIFEST: Form = {
    "schema": _one_of(SCHEMA),
    "name": _text,
    "origin": {
        **dict.fromkeys(("run", "experiment", "system", "data_fingerprint"), _text),
        "step": _whole(0, 1 << 62),
        "seed": _or_null(_whole(-(1 << 63), 1 << 64)),
        "adversarial_weight": _or_null(_number(0, 1e9)),
        "config_hash": _or_null(_text),
        "git_revision": _or_null(_text),
    },
    "parameters": _whole(1, 1 << 40),
    "dtype": _one_of(*MAX_DRIFT),
    "weights_sha256": _digest,
    "vocabulary_hash": _text,
    "vocabulary_size": _whole(CHORD_HOLD + 2, MOST_TOKENS),
    "frames_per_beat": _whole(1, 64),
    "max_frames": _whole(3, MOST_FRAMES),
    "length": _whole(7, 1 + 2 * MOST_FRAMES),
    "sampling": {"temperature": _number(0, 10), "is_masked": _boolean},
    "created": _date,
    "expires": _date,
    "produced_with": dict.fromkeys(("jax", "git_revision", "source"), _text),
    "functions": [
        {
            "name": _one_of(*FUNCTIONS),
            "file": _one_of(*(f"fn/{name}.jaxexport" for name in FUNCTIONS)),
            "platforms": [_one_of("cpu", "cuda", "rocm", "tpu")],
            "calling_convention": _whole(1, 1000),
            "weights": _one_of(WEIGHTS),
            "inputs": [_ARRAY],
            "outputs": [_ARRAY],
        }
    ],
    "files": _files,
    "parity": _or_null(
        {
            "jax": {
                **dict.fromkeys(("max_abs_logit", "max_abs_log_prob", "kl_nats"), _SMALL),
                "argmax_agreement": _number(0, 1),
            },
            "frames": _whole(1, 1 << 40),
            "functions": dict.fromkeys(("prefill", "step", "sampling"), _SMALL),
            "onnx": _if_there(lambda value: _text(value) or misfit(value, {"max_abs_logit": _SMALL}) is None),
        }
    ),
    "latency": _or_null(
        {
            "device": _text,
            "cores": _whole(1, 1 << 20),
            "engine": _TIMES,
            "jax": _TIMES,
            "onnx": _if_there(_TIMES),
        }
    ),
}
_SETTINGS: Form = {
    "policy": {
        "dim": _whole(1, _MOST_WIDTH),
        "depth": _whole(1, _MOST_LAYERS),
        "heads": _whole(1, _MOST_WIDTH),
        "head_dim": _whole(1, _MOST_WIDTH),
        "ff_mult": _whole(1, 1000),
        "dropout": _number(0, 1),
    },
    "max_frames": _whole(3, MOST_FRAMES),
    "vocabulary_size": _whole(CHORD_HOLD + 2, MOST_TOKENS),
}
_CHORDS: Form = {
    "names": [_text],
    "roots": [_whole(0, 11)],
    "intervals": [lambda value: isinstance(value, list) and all(_whole(0, 127)(step) for step in value)],
    "hash": _text,
}


def misfit(value: Any, form: Form, place: str = "") -> str | None:
    """Where a value differs from its form first, as ``origin.step`` or ``functions.0.name``; None where it fits."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return place
        parts = [(name, value.get(name, _ABSENT), form.get(name, _never)) for name in (*form, *value)]
    elif isinstance(form, list):
        if not isinstance(value, list):
            return place
        parts = [(str(index), item, form[0]) for index, item in enumerate(value)]
    else:
        return None if form(value) else place
    found = (misfit(item, own, f"{place}.{name}" if place else str(name)) for name, item, own in parts)
    return next((where for where in found if where is not None), None)


def _never(_: Any) -> bool:
    return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files are whole, fit each other and claim nothing absurd. Raises UserError."""
    try:
        manifest = check_files(folder)
        _check_form(folder / MANIFEST, manifest, _MANIFEST)
        _check_files_named(folder, manifest)
        settings, chords = read_json(folder / CONFIG), read_json(folder / VOCABULARY)
    except Refused as reason:
        raise UserError(str(reason)) from None
    _check_form(folder / CONFIG, settings, _SETTINGS)
    _check_form(folder / VOCABULARY, chords, _CHORDS)
    try:
        vocabulary = Vocabulary.from_json(json.dumps(chords))
    except ValueError as error:
        raise UserError(f"{folder / VOCABULARY} cannot be used ({error}): copy the bundle again") from None
    frames, size = settings["max_frames"], vocabulary.size
    if settings["vocabulary_size"] != size or any(
        len(chords[part]) != vocabulary.num_chords for part in ("roots", "intervals")
    ):
        raise UserError(f"{folder / CONFIG} and {folder / VOCABULARY} do not fit each other: copy the bundle again")
    facts = {
        "length": 1 + 2 * frames,
        "max_frames": frames,
        "vocabulary_size": size,
        "vocabulary_hash": vocabulary.hash,
        "weights_sha256": manifest["files"][WEIGHTS]["sha256"],
    }
    for name, value in facts.items():
        if manifest[name] != value:
            raise UserError(f"'{name}' of {folder / MANIFEST} is not that of the bundle's other files: copy it again")
    return manifest


def _check_form(path: Path, value: Any, form: Form) -> None:
    where = misfit(value, form)
    if where is not None:
        place = f"'{where[:100]}'" if where and where.isprintable() else "its content"
        raise UserError(f"{path} is not as gapt export writes it ({place}): copy the bundle again, or make it anew")


def _check_files_named(folder: Path, manifest: dict[str, Any]) -> None:
    functions = [(function["name"], function["file"]) for function in manifest["functions"]]
    if functions != [(name, f"fn/{name}.jaxexport") for name in FUNCTIONS]:
        raise Refused(f"{folder / MANIFEST} does not name the functions {', '.join(FUNCTIONS)}: copy the bundle again")
    needed = [WEIGHTS, GOLDEN, CONFIG, VOCABULARY, CARD] + ([START, TRITON] if ONNX in manifest["files"] else [])
    missing = [name for name in needed if name not in manifest["files"]]
    if missing:
        raise Refused(f"{folder / missing[0]} is missing: copy the bundle again")
