"""The small system that the public PyTorch code was timed with: networks of 2 layers of 128, 32 songs of 64 frames.

For `gapt bench --size yardstick`, which sets its rows beside those times (gapt_jax/benchmark/public.py); everything
else is as in `gapt`. Hardware: 2 CPU cores. Cost: under a second an iteration. Trained results: none. Command:

    gapt bench --suite rollout,iteration --size yardstick
"""

from dataclasses import replace

from gapt_jax.config import TransformerConfig
from gapt_jax.experiments.gapt import gapt
from gapt_jax.tasks.accompaniment.config import Experiment


def yardstick() -> Experiment:
    base = gapt()
    stack = TransformerConfig(dim=128, depth=2, heads=2, head_dim=64, ff_mult=4, dropout=0.1)
    networks = replace(base.models, policy=stack, anchor=stack, reward=stack, discriminator=stack)
    adversary = replace(base.algorithm.discriminator, minibatch_size=4)  # eight steps, as there are minibatches
    return replace(
        base,
        name="yardstick",
        data=replace(base.data, max_frames=64),
        models=replace(networks, compute_dtype="float32"),
        algorithm=replace(base.algorithm, batch_size=32, minibatch_size=4, discriminator=adversary),
    )
