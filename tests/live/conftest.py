"""Models of small random policies."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import pytest

from gapt_jax import models
from gapt_jax.export.functions import flatten
from gapt_jax.live.model import LiveModel, of_network
from gapt_jax.tasks.accompaniment.task import Accompaniment
from tests.export.bundles import FRAMES, VOCABULARY, random_policy, tiny


@pytest.fixture(scope="session")
def make_model():
    """The live model of a random policy, by its seed and the frames that its network may hold."""
    known: dict[tuple[int, int], LiveModel] = {}

    def make(seed: int = 0, frames: int = FRAMES) -> LiveModel:
        if (seed, frames) not in known:
            experiment = tiny()
            data = dataclasses.replace(experiment.data, max_frames=frames)
            policy = random_policy(seed, dataclasses.replace(experiment, data=data))
            network = models.build(policy.experiment.models, VOCABULARY.size).policy
            weights = {name: jnp.asarray(array) for name, array in flatten(policy.params).items()}
            depth = policy.experiment.models.policy.depth
            names = {"name": f"random{seed}", "system": "mle", "digest": f"{seed:064d}"}
            known[seed, frames] = of_network(network, weights, Accompaniment(VOCABULARY), depth, frames, **names)
        return known[seed, frames]

    return make
