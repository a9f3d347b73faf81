"""Models of small random policies."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from gapt_jax import models
from gapt_jax.export.functions import Functions, flatten
from gapt_jax.export.verify import FUNCTIONS
from gapt_jax.live.model import LiveModel
from tests.export.bundles import FRAMES, VOCABULARY, random_policy, tiny


@pytest.fixture(scope="session")
def make_model():
    """The live model of a random policy, by its seed and the frames that its network may hold."""
    known: dict[tuple[int, int], LiveModel] = {}

    def make(seed: int = 0, frames: int = FRAMES) -> LiveModel:
        if (seed, frames) not in known:
            experiment = tiny()
            experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, max_frames=frames))
            policy = random_policy(seed, experiment)
            network = models.build(policy.experiment.models, VOCABULARY.size).policy
            functions = Functions(network, VOCABULARY.tables, policy.experiment.models.policy.depth, 1 + 2 * frames)
            donated = {"step": 2, "commit_frame": 3}
            compiled = {
                name: jax.jit(getattr(functions, name), donate_argnums=donated.get(name, ())) for name in FUNCTIONS
            }
            weights = {name: jnp.asarray(array) for name, array in flatten(policy.params).items()}
            name, digest = f"random{seed}", f"{seed:064d}"
            known[seed, frames] = LiveModel(name, "mle", digest, VOCABULARY, frames, weights, compiled)
        return known[seed, frames]

    return make
