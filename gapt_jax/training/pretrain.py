"""Supervised stages (docs/method.md §3): maximum likelihood of policy and anchor, fitting of the reward models.

A loss is a pure function (params, batch, key, dropout_keys) -> (Ratio, {name: Ratio}); `key` draws negatives,
`dropout_keys` [B] are None in validation.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gapt_jax import masked, prng
from gapt_jax.algorithm import gradients, optim
from gapt_jax.algorithm.layout import ONE_DEVICE, Layout
from gapt_jax.algorithm.optim import OptimizerState
from gapt_jax.config import FitConfig
from gapt_jax.masked import Ratio
from gapt_jax.models import Models
from gapt_jax.models.layers import Keys
from gapt_jax.models.networks import interleave, pair, part
from gapt_jax.types import Batch, Params, pytree
from gapt_jax.vocabulary import EOS, PAD, SILENCE, TokenTables

Metrics = dict[str, jax.Array]
Ratios = tuple[Ratio, dict[str, Ratio]]
Loss = Callable[[Params, Batch, jax.Array, Keys], Ratios]
_ONSET, _HOLD = 4, 5  # in the rhythm alphabet


def next_token_loss(logits: jax.Array, targets: jax.Array) -> Ratios:
    """Mean cross-entropy and accuracy over the targets that are not PAD; logits [B, L, V], targets [B, L]."""
    log_p = masked.select(logits, targets) - jax.nn.logsumexp(logits, axis=-1)
    mask = (targets != PAD).astype(jnp.float32)
    hits = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
    return masked.ratio(-log_p, mask), {"accuracy": masked.ratio(hits, mask)}


def with_end(tokens: jax.Array) -> jax.Array:
    """[B, L] -> [B, L + 1]: EOS in place of the first PAD."""
    padded = jnp.pad(tokens, ((0, 0), (0, 1)), constant_values=PAD)
    return jnp.where((padded == PAD) & (jnp.cumsum(padded == PAD, axis=1) == 1), EOS, padded)


def policy_loss(models: Models) -> Loss:
    """Next token of the interleaved stream, chords and notes alike."""

    def loss(params: Params, batch: Batch, key: jax.Array, dropout_keys: Keys) -> Ratios:
        stream = with_end(interleave(batch.actions, batch.context))
        targets = jnp.where(batch.context[:, :1] == PAD, PAD, stream[:, 1:])  # a row that fills up has no end either
        return next_token_loss(models.policy(params, stream[:, :-1], dropout_keys), targets)

    return loss


def anchor_loss(models: Models) -> Loss:
    """Next chord given all earlier chords and the whole melody."""

    def loss(params: Params, batch: Batch, key: jax.Array, dropout_keys: Keys) -> Ratios:
        heard = part(batch.actions)
        targets = jnp.where(batch.context[:, :1] == PAD, PAD, heard[:, 1:])
        return next_token_loss(models.anchor(params, part(batch.context), heard[:, :-1], dropout_keys), targets)

    return loss


def contrastive_loss(models: Models, kind: str, tables: TokenTables) -> Loss:
    """Symmetric InfoNCE over the batch; accuracy is retrieval at rank 1, melody to chords."""

    def loss(params: Params, batch: Batch, key: jax.Array, dropout_keys: Keys) -> Ratios:
        melody, chords = _parts(kind, batch, tables)
        melody_embedding, chord_embedding, scale = models.reward(kind)(params, part(melody), part(chords), dropout_keys)
        similarity = scale * melody_embedding @ chord_embedding.T
        rows, columns = jax.nn.log_softmax(similarity, axis=1), jax.nn.log_softmax(similarity, axis=0)
        hits = (jnp.argmax(similarity, axis=1) == jnp.arange(len(similarity))).astype(jnp.float32)
        every = jnp.ones_like(hits)
        losses = -0.5 * (jnp.diagonal(rows) + jnp.diagonal(columns))
        return masked.ratio(losses, every), {"accuracy": masked.ratio(hits, every)}

    return loss


def discriminative_loss(models: Models, kind: str, tables: TokenTables) -> Loss:
    """Genuine pairs against re-paired ones, and for rhythm half of the time against shifted ones."""

    def loss(params: Params, batch: Batch, key: jax.Array, dropout_keys: Keys) -> Ratios:
        melody, chords = _parts(kind, batch, tables)
        partner_key, choice_key, shift_key = jax.random.split(key, 3)
        partner = derangement(partner_key, len(melody))
        negative_melody, negative_chords = melody[partner], chords
        if kind.startswith("rhythm"):
            moved_melody, moved_chords = shift_one_part(shift_key, melody, chords)
            is_shift = jax.random.bernoulli(choice_key, 0.5, (len(melody), 1))
            negative_melody = jnp.where(is_shift, moved_melody, negative_melody)
            negative_chords = jnp.where(is_shift, moved_chords, negative_chords)
        # Genuine and false pairs of a row end on the same frame, so that length gives nothing away.
        ended = (negative_melody == PAD) | (negative_chords == PAD)
        cut = [jnp.where(ended, PAD, x) for x in (melody, chords, negative_melody, negative_chords)]
        tokens = jnp.concatenate([pair(cut[0], cut[1]), pair(cut[2], cut[3])])
        keys = None if dropout_keys is None else jnp.concatenate([prng.fold_each(dropout_keys, n) for n in (0, 1)])
        positive, negative = jnp.split(models.reward(kind)(params, tokens, keys), 2)
        every = jnp.ones_like(positive)
        losses = 0.5 * (jax.nn.softplus(-positive) + jax.nn.softplus(negative))
        hits = 0.5 * ((positive > 0).astype(jnp.float32) + (negative <= 0))
        return masked.ratio(losses, every), {"accuracy": masked.ratio(hits, every)}

    return loss


def _parts(kind: str, batch: Batch, tables: TokenTables) -> tuple[jax.Array, jax.Array]:
    if not kind.startswith("rhythm"):
        return batch.context, batch.actions
    rhythm = jnp.asarray(tables.rhythm)
    return rhythm[batch.context], rhythm[batch.actions]


def derangement(key: jax.Array, size: int) -> jax.Array:
    """[size] a random single cycle: no row is its own partner (size 1 has none)."""
    order = jax.random.permutation(key, size)
    return jnp.zeros(size, jnp.int32).at[order].set(jnp.roll(order, 1))


def shift_one_part(key: jax.Array, melody: jax.Array, chords: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Delays one of the two rhythm parts [B, T] of each row by 1-3 frames, fills the gap so that the part stays well
    formed (docs/method.md §3.6), and cuts the end so that the length stays."""
    which_key, delay_key = jax.random.split(key)
    rows, frames = melody.shape
    delay = jax.random.randint(delay_key, (rows, 1), 1, 4)
    source = jnp.arange(frames) - delay

    def delayed(x: jax.Array) -> jax.Array:
        opening = jnp.where(x[:, :1] == SILENCE, SILENCE, jnp.where(jnp.arange(frames) == 0, _ONSET, _HOLD))
        moved = jnp.where(source <= 0, opening, jnp.take_along_axis(x, jnp.maximum(source, 0), axis=1))
        return jnp.where(x == PAD, PAD, moved)

    moves_melody = jax.random.bernoulli(which_key, 0.5, (rows, 1))
    return jnp.where(moves_melody, delayed(melody), melody), jnp.where(moves_melody, chords, delayed(chords))


@pytree
class FitState:
    """A supervised stage in progress; with members, every leaf but `step` and `key` has a leading member axis."""

    step: jax.Array  # [] int32
    key: jax.Array  # [2] uint32 raw PRNG key
    params: Params
    optimizer: OptimizerState


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A stage: its loss, its settings and how many seeds train together (None: one, without a member axis).

    Members contrast the songs of a batch with each other, so that their loss needs the whole batch; without a member
    axis the loss is a mean over rows.
    """

    loss: Loss
    config: FitConfig
    members: int | None = None
    layout: Layout = ONE_DEVICE
    guessing: Callable[[int], float] = lambda songs: math.inf  # loss of guessing among so many songs

    @property
    def rows(self) -> int:
        """Songs per step: each member has its own."""
        return self.config.batch_size * (self.members or 1)


def init_fit(fit: Fit, init: Callable[[jax.Array], Params], seed: int) -> FitState:
    key = jax.random.key(seed)
    start = prng.stream(key, 0, "init")
    if fit.members is None:
        params = init(start)
        optimizer = optim.init(fit.config.optimizer, params)
    else:
        params = jax.vmap(init)(jax.random.split(start, fit.members))
        optimizer = jax.vmap(functools.partial(optim.init, fit.config.optimizer))(params)
    return FitState(jnp.int32(0), jax.random.key_data(key), params, optimizer)


@functools.partial(jax.jit, static_argnames="fit", donate_argnames="state")
def fit_step(fit: Fit, state: FitState, batch: Batch) -> tuple[FitState, Metrics]:
    """One optimiser step on `fit.rows` songs. Metrics are means over members."""
    key = jax.random.wrap_key_data(state.key)
    keys = prng.stream(key, state.step, "negatives"), prng.stream(key, state.step, "dropout")
    config = fit.config.optimizer

    def one(
        layout: Layout, params: Params, optimizer: OptimizerState, batch: Batch, key: jax.Array, dropout_key: jax.Array
    ) -> tuple[Params, OptimizerState, dict[str, jax.Array]]:
        def loss(params: Params, songs: Batch) -> Ratios:
            return fit.loss(params, songs, key, prng.per_example(dropout_key, songs.index))

        value, metrics, gradient = gradients.of_rows(loss, layout, params, batch)
        rate = config.learning_rate * optim.schedule(config, optimizer.updates, fit.config.steps)
        params, optimizer, info = optim.update(config, params, gradient, optimizer, rate)
        return params, optimizer, {"loss": value} | metrics | info

    if fit.members is None:
        params, optimizer, metrics = one(fit.layout, state.params, state.optimizer, batch, *keys)
    else:
        songs = jax.tree.map(lambda x: x[: fit.rows].reshape(fit.members, -1, *x.shape[1:]), batch)
        songs = fit.layout.rows(songs, axis=1)
        member_keys = [jax.random.split(k, fit.members) for k in keys]
        each = jax.vmap(functools.partial(one, ONE_DEVICE))  # the compiler spreads what needs a whole batch
        params, optimizer, metrics = each(state.params, state.optimizer, songs, *member_keys)
        metrics = jax.tree.map(jnp.mean, metrics)
    return fit.layout.stored(FitState(state.step + 1, state.key, params, optimizer)), metrics


@functools.partial(jax.jit, static_argnames="fit")
def validate(fit: Fit, params: Params, batch: Batch) -> Metrics:
    """Loss and accuracy without dropout, negatives drawn with a fixed key; means over members."""
    return jax.tree.map(jnp.mean, _of_each(fit, params, batch))


@functools.partial(jax.jit, static_argnames="fit")
def worst_loss(fit: Fit, params: Params, batch: Batch) -> jax.Array:
    """The largest `valid/loss` of a member, []."""
    return jnp.max(_of_each(fit, params, batch)["valid/loss"])


def _of_each(fit: Fit, params: Params, batch: Batch) -> Metrics:
    """Validation of every member, [members], or of the one model, []."""
    key = jax.random.key(0)

    def one(params: Params) -> dict[str, jax.Array]:
        loss, metrics = fit.loss(params, batch, key, None)
        return {f"valid/{name}": ratio.value() for name, ratio in ({"loss": loss} | metrics).items()}

    return one(params) if fit.members is None else jax.vmap(one)(params)
