"""Small policies to export, and bundles whose lists of hashes are made to fit again after a change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import jax

from gapt_jax import models
from gapt_jax.config import TransformerConfig
from gapt_jax.experiments.small import small
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training.saved import SavedPolicy
from gapt_jax.vocabulary import Vocabulary

VOCABULARY = Vocabulary.synthetic(3)
FRAMES = 24


def tiny() -> Experiment:
    experiment = small()
    network = TransformerConfig(dim=32, depth=2, heads=2, head_dim=16, dropout=0.0)
    return dataclasses.replace(
        experiment,
        data=dataclasses.replace(experiment.data, max_frames=FRAMES),
        models=dataclasses.replace(experiment.models, policy=network),
    )


def random_policy(
    seed: int = 0, experiment: Experiment | None = None, vocabulary: Vocabulary = VOCABULARY
) -> SavedPolicy:
    """A policy that prefers some chords to others: random weights, the head made sharper."""
    experiment = experiment or tiny()
    params = models.build(experiment.models, vocabulary.size).policy.init(jax.random.key(seed))
    params["head"]["kernel"] = 20 * params["head"]["kernel"]
    facts = {
        "run": f"random-{seed}",
        "experiment": f"random{seed}",
        "system": "mle",
        "step": 0,
        "seed": seed,
        "adversarial_weight": None,
        "config_hash": "0",
        "data_fingerprint": "none",
        "git_revision": "unknown",
    }
    task = Accompaniment(vocabulary, experiment.data.part)
    return SavedPolicy(experiment, task, jax.device_get(params), "mle", facts)


def reseal(folder: Path, **changes: object) -> None:
    """Makes manifest and hashes fit the files again, as one would who meant harm; `changes` go into the manifest."""

    def digest(path: str) -> str:
        return hashlib.sha256((folder / path).read_bytes()).hexdigest()

    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    for path, entry in manifest["files"].items():
        if (folder / path).is_file():
            entry |= {"sha256": digest(path), "bytes": (folder / path).stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    paths = [path for path in manifest["files"] if (folder / path).is_file()]
    lines = [f"{digest(path)}  {path}\n" for path in (*paths, "manifest.json")]
    (folder / "SHA256SUMS").write_text("".join(lines))
