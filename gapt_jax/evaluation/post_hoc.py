"""Fits a fresh discriminator after training, which rewarded no policy (`post_hoc_accuracy`, docs/method.md §12.4)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax.algorithm import optim
from gapt_jax.algorithm.adversary import discriminator_input, discriminator_loss
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import OptimizerConfig
from gapt_jax.types import Params

PAIRS = 8  # songs of data, and as many of the system, in a gradient step
OPTIMIZER = OptimizerConfig(learning_rate=2e-3, warmup_steps=10, final_fraction=0.1)


def fit(spec: Spec, real: np.ndarray, generated: np.ndarray, steps: int, seed: int) -> Params:
    """A classifier of `spec.models.discriminator`'s architecture that tells real from generated actions [N, T].

    Every epoch shows each song once, in both versions; no dropout, no label smoothing. The result is in host memory
    and depends on nothing but the arguments."""
    rng = np.random.default_rng(seed)
    epochs = -(-steps * PAIRS // len(real))
    order = np.concatenate([rng.permutation(len(real)) for _ in range(epochs)])[: steps * PAIRS]
    pairs = np.stack([real[order], generated[order]]).reshape(2, steps, PAIRS, -1)
    return jax.tree.map(np.asarray, _fit(spec, jax.random.key(seed), pairs))


@functools.partial(jax.jit, static_argnames="spec")
def _fit(spec: Spec, key: jax.Array, pairs: jax.Array) -> Params:
    """pairs: [2, steps, PAIRS, T] int32, data first."""
    classifier = spec.models.discriminator

    def step(carry: tuple[Params, optim.OptimizerState], songs: jax.Array) -> tuple[Any, None]:
        params, optimizer = carry

        def loss(params: Params) -> jax.Array:
            tokens = discriminator_input(songs.reshape(2 * PAIRS, -1))
            real, generated = jnp.split(classifier(params, tokens), 2)
            return discriminator_loss(real, generated, jnp.ones(PAIRS), 0.0).value()

        rate = OPTIMIZER.learning_rate * optim.schedule(OPTIMIZER, optimizer.updates, pairs.shape[1])
        return optim.update(OPTIMIZER, params, jax.grad(loss)(params), optimizer, rate)[:2], None

    params = classifier.init(key)
    return jax.lax.scan(step, (params, optim.init(OPTIMIZER, params)), jnp.moveaxis(pairs, 1, 0))[0][0]


def accuracy(real_logits: np.ndarray, generated_logits: np.ndarray) -> float:
    """Share of right answers on equally many songs of both kinds: 0.5 where they cannot be told apart."""
    return float(0.5 * ((real_logits > 0).mean() + (generated_logits <= 0).mean()))
