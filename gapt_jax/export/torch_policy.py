"""A published PyTorch policy as one of ours, ready for a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gapt_jax.errors import UserError
from gapt_jax.export.torch_chords import read_vocabulary
from gapt_jax.export.torch_import import import_checkpoint
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training.saved import SavedPolicy

SYSTEM = "imported"


def read_policy(checkpoint: Path, chord_names: Path, console: Console) -> SavedPolicy:
    """The policy of a checkpoint with its vocabulary; its songs have the published length, 256 frames."""
    found = import_checkpoint(checkpoint)
    if found.kind != "policy":
        raise UserError(f"{checkpoint} holds a model of the kind '{found.kind}': only a policy becomes a bundle")
    for note in found.notes:
        console.warn(note)
    vocabulary = read_vocabulary(chord_names, found.size)
    experiment = Experiment(name=checkpoint.stem)
    models = dataclasses.replace(experiment.models, policy=found.config)
    facts = {
        "run": checkpoint.name,
        "experiment": checkpoint.stem,
        "system": SYSTEM,
        "step": 0,
        "seed": None,
        "adversarial_weight": None,
        "config_hash": None,
        "data_fingerprint": "unknown",
        "git_revision": None,
    }
    task = Accompaniment(vocabulary)
    return SavedPolicy(dataclasses.replace(experiment, models=models), task, found.params, SYSTEM, facts)
