"""Models of small random policies."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from gapt_jax import models
from gapt_jax.export.functions import Functions, flatten
from gapt_jax.export.verify import FUNCTIONS, STATE_ARGUMENT
from gapt_jax.live.model import LiveModel
from tests.export.bundles import FRAMES, VOCABULARY, random_policy


@pytest.fixture(scope="session")
def make_model():
    """The live model of a random policy, by its seed."""
    known: dict[int, LiveModel] = {}

    def make(seed: int = 0) -> LiveModel:
        if seed not in known:
            policy = random_policy(seed)
            network = models.build(policy.experiment.models, VOCABULARY.size).policy
            functions = Functions(network, VOCABULARY.tables, policy.experiment.models.policy.depth, 1 + 2 * FRAMES)
            compiled = {
                name: jax.jit(getattr(functions, name), donate_argnums=STATE_ARGUMENT.get(name, ()))
                for name in FUNCTIONS
            }
            weights = {name: jnp.asarray(array) for name, array in flatten(policy.params).items()}
            name, digest = f"random{seed}", f"{seed:064d}"
            known[seed] = LiveModel(name, "mle", digest, VOCABULARY, FRAMES, weights, compiled)
        return known[seed]

    return make
