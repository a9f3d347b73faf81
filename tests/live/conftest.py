"""Models of small random policies."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from gapt_jax import models
from gapt_jax.export.functions import flatten
from gapt_jax.live.model import LiveModel, of_network
from tests.export.bundles import FRAMES, VOCABULARY, random_policy


@pytest.fixture(scope="session")
def make_model():
    """The live model of a random policy, by its seed."""
    known: dict[int, LiveModel] = {}

    def make(seed: int = 0) -> LiveModel:
        if seed not in known:
            policy = random_policy(seed)
            network = models.build(policy.experiment.models, VOCABULARY.size).policy
            weights = {name: jnp.asarray(array) for name, array in flatten(policy.params).items()}
            depth = policy.experiment.models.policy.depth
            names = {"name": f"random{seed}", "system": "mle", "digest": f"{seed:064d}"}
            known[seed] = of_network(network, weights, VOCABULARY, depth, FRAMES, **names)
        return known[seed]

    return make
