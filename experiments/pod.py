"""The published system on TPU pods: the same method and networks, batches that fill the chips."""

import dataclasses

from experiments.gapt import gapt
from gapt_jax.config import Experiment


def _filling(batch_size: int, minibatch_size: int, microbatch_rows: int = 0) -> Experiment:
    """`gapt` with larger batches, eight minibatches each as published. Rates and warm-up are those of batch 384: with
    so much larger ones they are a place to start from, not a result."""
    base = gapt()
    adversary = dataclasses.replace(base.algorithm.discriminator, minibatch_size=minibatch_size)
    return dataclasses.replace(
        base,
        name="pod",
        models=dataclasses.replace(base.models, remat=True),
        algorithm=dataclasses.replace(
            base.algorithm, batch_size=batch_size, minibatch_size=minibatch_size, discriminator=adversary
        ),
        evaluation=dataclasses.replace(base.evaluation, batch_size=1024),
        runtime=dataclasses.replace(base.runtime, microbatch_rows=microbatch_rows),
    )


def pod() -> Experiment:
    """v6e-256, and up to 4 slices of it: 32 songs a chip on one slice, 8 on four."""
    return _filling(8_192, 1_024)


def v5e_64() -> Experiment:
    """v5e-64: 64 songs a chip, minibatches of 16 in microbatches of 8, for 16 GB."""
    return _filling(4_096, 1_024, microbatch_rows=8)


def v5p_128() -> Experiment:
    """v5p-128, which is 64 chips of two cores: 128 songs a chip."""
    return _filling(8_192, 1_024)


def two_v5e_256() -> Experiment:
    """2 × v5e-256: 16 songs a chip, one gradient reduction per minibatch over DCN."""
    return _filling(8_192, 1_024)
