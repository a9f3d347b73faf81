"""One tiny learner, compiled once for the whole folder."""

import pytest

from gapt_jax import models
from gapt_jax.config import (
    AlgorithmConfig,
    DiscriminatorConfig,
    ModelsConfig,
    OptimizerConfig,
    TransformerConfig,
)
from gapt_jax.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.from_qualities([(0, 4, 7)])


@pytest.fixture(scope="session")
def networks(vocabulary):
    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2)
    return models.build(ModelsConfig(stack, stack, stack, stack), vocabulary.size)


@pytest.fixture(scope="session")
def algorithm_config() -> AlgorithmConfig:
    """Rates are arrays of the state, so that tests change them without compiling again."""
    adam = OptimizerConfig(1e-3, 0, 1.0, 0.9, 0.95)
    return AlgorithmConfig(
        steps=100,
        batch_size=16,
        minibatch_size=8,
        validity_mask=True,
        policy=adam,
        critic=adam,
        discriminator_optimizer=adam,
        discriminator=DiscriminatorConfig(minibatch_size=8, steps_per_update=2, buffer_rollouts=2),
    )
