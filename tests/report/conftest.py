"""Synthetic run folders, in the shape that `gapt run` leaves behind."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gapt_jax.config import to_dict
from gapt_jax.overrides import override
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_HOLD, NOTE_ONSET, PAD
from tests.tasks.accompaniment.metrics.conftest import VOCABULARY, song, vocabulary  # noqa: F401, fixtures

SYSTEMS = {  # note-in-chord, independent Vendi
    "data": (0.70, 6.93), "mle": (0.32, 6.76), "gapt_lambda=0": (0.55, 3.5), "gapt_lambda=1": (0.42, 6.3),
    "gapt_lambda=0.5": (0.47, 5.2), "gapt_lambda=0.25": (0.5, 4.1),
}  # fmt: skip
DATASETS = ("hooktheory/test", "openewld/all")


@pytest.fixture(scope="session")
def make_run():
    return write_run


@pytest.fixture(scope="session")
def make_ablation():
    return write_ablation


def write_ablation(
    folder: Path, weights: Sequence[float] = (0, 0.25, 0.5, 1), seeds: int = 6, steps: int = 40, broken: int = 0
) -> Path:
    """A finished ablation over λ, of whose last members `broken` never finished and have left no files."""
    folder.mkdir(parents=True)
    members: list[dict] = []
    for weight in weights:
        for seed in range(seeds):
            arm, path = f"gapt_lambda={weight:g}", f"members/l{weight:g}-s{seed}"
            members.append({"folder": path, "arm": arm, "seed": seed, "status": "finished", "reason": ""})
    for member in members[len(members) - broken :]:
        member |= {"status": "stopped", "reason": "loss was not finite at step 7"}
    for member in members:
        if member["status"] == "finished":
            weight = float(member["arm"].partition("=")[2])
            write_run(folder / member["folder"], weight, member["seed"], steps=steps)
    record = {
        "schema": 1, "experiment": "synthetic", "preset": "lambda", "command": "gapt ablate synthetic --seeds 6",
        "baseline": "gapt_lambda=0", "seeds": list(range(seeds)), "members": members,
        "arms": [{"name": f"gapt_lambda={w:g}", "label": f"λ = {w:g}",
                  "settings": {"algorithm.adversarial_weight": w}} for w in weights],
        "wall_s": {"training": 100.0, "evaluation": 20.0, "total": 120.0},
        "population": {"members_at_once": 6, "devices": 1, "chunks": 4},
    }  # fmt: skip
    (folder / "ablation.json").write_text(json.dumps(record))
    return folder


def write_run(
    folder: Path, weight: float, seed: int, name: str = "synthetic", song_id: str = "song-1", steps: int = 300,
    arm: str | None = None,
) -> Path:  # fmt: skip
    """Writes all files of a finished run with made-up numbers; `arm` is of another kind than λ, its weight 1."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, int(100 * weight)])
    sets = [f"seed={seed}", f"algorithm.adversarial_weight={weight}"]
    config = to_dict(override(Experiment(), sets)) | {"name": name}  # any text: what is stored may be hostile
    hashes = {"config_hash": f"hash{seed}{weight:g}", "data_fingerprint": "f00d", "git_revision": "abc123"}
    record = hashes | {"command": f"gapt run {name} --set seed={seed}", "versions": {"jax": "0.10"},
                       "hardware": "2 x cpu", "time_s": {"policy": 100.0, "gapt": 3700.5}}  # fmt: skip
    is_named, arm = arm is not None, arm or f"gapt_lambda={weight:g}"
    evaluation = hashes | {"schema": 1, "experiment": name, "seed": seed, "adversarial_weight": weight,
                           "sampling": "masked",
                           "systems": {s: _scores(s, rng) for s in ("data", "mle", arm)},
                           "adaptation": {arm: {DATASETS[0]: _adaptation(weight)}},
                           "decode_step": {arm: {"p50_ms": 3.25, "p95_ms": 4.5, "frames": 256}}}  # fmt: skip
    evaluation |= {"arm": arm} if is_named else {}
    (folder / "alarms.jsonl").write_text(
        "".join(json.dumps({"step": n, "alarm": "one_chord", "message": f"one chord in {n} % of frames"}) + "\n"
                for n in ((5, 9) if weight == 0 else ()))
    )  # fmt: skip
    samples = _samples(song_id, arm, rng)
    log = _log(weight, rng, steps)
    for file, content in {
        "config": config,
        "run": record,
        "evaluation": evaluation,
        "samples": samples,
    }.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    (folder / "vocabulary.json").write_text(VOCABULARY.to_json())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    return folder


def _adaptation(weight: float) -> dict:
    beats = list(range(32))
    dip = [0.5 - (0.2 * 0.9 ** (b - 16) * (1 - weight / 2) if b >= 16 else 0) for b in beats]
    return {"beats": beats, "unperturbed": [0.5] * 32, "perturbed": dip, "shift_beat": 16, "semitones": 6}


def _scores(system: str, rng: np.random.Generator) -> dict:
    harmony, vendi = SYSTEMS.get(system, (0.45, 5.5))
    spread = 0.0 if system in ("data", "mle") else 0.15
    values = {
        "note_in_chord": harmony + 0.1 * spread * rng.normal(),
        "note_in_chord_chance": 0.28,
        "silent_share": 0.02,
        "vendi_independent": vendi + spread * rng.normal(),
        "vendi_published": vendi + 1,
        "quality_entropy": 1.4,
        "chord_changes_per_beat": 0.4,
        "js_bigram": None if system == "mle" else 0.3,
        "invalid_share": 0.0,
        "unique_chords": 31.0,
        "a_new_metric": 1234.5,
    }
    return {
        dataset: {
            metric: {"mean": v, "ci95": None, "n_seeds": 1, "per_seed": [v], "n_songs": 512}
            for metric, v in values.items()
        }
        for dataset in DATASETS
    }


def _samples(song_id: str, arm: str, rng: np.random.Generator) -> dict:
    frames, songs = 256, 3
    notes = np.random.default_rng(0).integers(60, 80, (songs, 64))  # every system plays to one melody
    melody = np.repeat(NOTE_HOLD + notes, 4, axis=1)
    melody[:, ::4] = NOTE_ONSET + notes
    melody[-1, 80:] = PAD
    systems = {}
    for system, length in (("data", 16), ("mle", 12), (arm, 2 if arm.endswith("=0") else 8)):
        index = np.arange(frames) // length
        picked = rng.integers(0, VOCABULARY.num_chords, (songs, frames))[:, index]
        onset = np.arange(frames) % length == 0
        chords = np.where(onset, VOCABULARY.chord_onset, CHORD_HOLD) + picked
        systems[system] = np.where(melody == PAD, PAD, chords).tolist()
    ids = [song_id, "song-2", "song-3"]
    return {"dataset": DATASETS[0], "ids": ids, "context": melody.tolist(), "systems": systems}


def _log(weight: float, rng: np.random.Generator, steps: int) -> list[dict]:
    rows: list[dict] = [{"stage": "policy", "step": 5, "loss": 2.0}]
    for step in range(1, steps + 1):
        rise = 1 - np.exp(-step / 80)
        row = {
            "stage": "gapt",
            "step": step,
            "kl": 0.2 * rise,
            "entropy": 3.5 - rise,
            "ratio_deviation/largest": 1e-6,
        }
        for term in ("total", "contrastive", "discriminative", "rhythm_contrastive", "silence", "invalid"):
            row[f"reward/{term}"] = rise + 0.1 * rng.normal()
        row["discriminator/accuracy"] = 0.9 - 0.2 * rise + 0.03 * rng.normal()
        row["discriminator/is_open"] = int((step % 5 == 0 and step < 200) or rng.random() < 0.02)
        row["discriminator/fooled"] = 0.6 + 0.3 * rng.normal()
        row["discriminator/reward_std"] = 0.2
        if step % 10 == 0 or step == 1:
            row |= {
                "valid/note_in_chord": 0.32 + (0.25 - 0.12 * weight) * rise + 0.01 * rng.normal(),
                "valid/note_in_chord_chance": 0.28,
                "valid/vendi_independent": 6.7 - (3.2 - 2.7 * weight) * rise + 0.1 * rng.normal(),
                "valid/vendi_published": 7.0 - 2 * rise,
                "valid/sqrt_kl": (1.4 - 0.4 * weight) * rise,
                "valid/held_out_coherence": 0.3 + (0.1 + 0.2 * weight) * rise,
                "valid/quality_entropy": 1.5 - 0.5 * rise,
                "valid/chord_changes_per_beat": float("nan") if step == 1 else 0.4 + rise,
            }
        rows.append(row)
    return rows
