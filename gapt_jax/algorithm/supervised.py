"""Losses of the supervised stages (docs/method.md §3): maximum likelihood of policy and anchor.

A loss is a pure function (params, batch, key, dropout_keys) -> (Ratio, {name: Ratio}); `key` draws negatives,
`dropout_keys` [B] are None in validation.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gapt_jax import masked
from gapt_jax.masked import Ratio
from gapt_jax.models import Models
from gapt_jax.models.layers import Keys
from gapt_jax.models.networks import interleave, part, with_end
from gapt_jax.task import PAD
from gapt_jax.types import Batch, Params

Ratios = tuple[Ratio, dict[str, Ratio]]
Loss = Callable[[Params, Batch, jax.Array, Keys], Ratios]


def next_token_loss(logits: jax.Array, targets: jax.Array) -> Ratios:
    """Mean cross-entropy and accuracy over the targets that are not PAD; logits [B, L, V], targets [B, L]."""
    log_p = masked.select(logits, targets) - jax.nn.logsumexp(logits, axis=-1)
    mask = (targets != PAD).astype(jnp.float32)
    hits = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
    return masked.ratio(-log_p, mask), {"accuracy": masked.ratio(hits, mask)}


def policy_loss(models: Models) -> Loss:
    """Next token of the interleaved stream, actions and context alike."""

    def loss(params: Params, batch: Batch, key: jax.Array, dropout_keys: Keys) -> Ratios:
        stream = with_end(interleave(batch.actions, batch.context))
        targets = jnp.where(batch.context[:, :1] == PAD, PAD, stream[:, 1:])  # a row that fills up has no end either
        return next_token_loss(models.policy(params, stream[:, :-1], dropout_keys), targets)

    return loss


def anchor_loss(models: Models) -> Loss:
    """Next action given all earlier actions and the whole context."""

    def loss(params: Params, batch: Batch, key: jax.Array, dropout_keys: Keys) -> Ratios:
        played = part(batch.actions)
        targets = jnp.where(batch.context[:, :1] == PAD, PAD, played[:, 1:])
        return next_token_loss(models.anchor(params, part(batch.context), played[:, :-1], dropout_keys), targets)

    return loss
