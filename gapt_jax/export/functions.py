"""The functions of a serving bundle: flat names, the parameters and the whole state as inputs. Pure: no files.

A session begins with `prefill`, goes on with `commit_frame` (what was played and heard in a frame) or `step` (one
token), and looks ahead with `plan`. The state of layer l is ``past_key_values.{l}.key`` [B, H, d, L] and
``past_key_values.{l}.value`` [B, H, L, d], handed back as ``present.{l}.key`` and ``present.{l}.value``; `position` []
int32 is the number of tokens it holds. Entries from `position` on are never read, so setting it back takes frames back
without a copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from gapt_jax.algorithm.rollout import MASKED_LOGIT, sample
from gapt_jax.export.verify import PAST, PRESENT
from gapt_jax.models import Model
from gapt_jax.models.layers import Cache
from gapt_jax.task import Task
from gapt_jax.tasks.accompaniment import rules
from gapt_jax.types import Params
from gapt_jax.vocabulary import BOS, TokenTables

PLATFORMS = ("cpu", "cuda", "tpu")
_FOLDERS = r".*[/\\]"  # of the names of source files
LEAST_TEMPERATURE = 1e-6
FED = 2  # tokens of a pass of `plan`: on a CPU a pass over one costs more than over two; more would need spare cache
SCALE = ".scale"  # of an int8 weight: float32, one number for each output
Weights = dict[str, Any]  # flat parameters by name


def flatten(params: Params, prefix: str = "") -> Weights:
    """``{"stack": {"blocks": {0: ...}}}`` -> ``{"stack.blocks.0...": array}``."""
    flat: Weights = {}
    for name, value in params.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def unflatten(weights: Weights) -> Params:
    """The tree that `flatten` was given; names of digits are numbers."""
    tree: Params = {}
    for name, value in weights.items():
        *parents, last = (int(part) if part.isdigit() else part for part in name.split("."))
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def quantised(weights: Weights) -> Weights:
    """Matrices as int8 with a float32 scale for each output (their last axis), the rest unchanged: w ≈ scale · q."""
    found: Weights = {}
    for name, value in weights.items():
        array = np.asarray(value, np.float32)
        if not name.endswith(".kernel"):
            found[name] = array
            continue
        scale = np.maximum(np.abs(array).max(axis=0), 1e-12) / 127
        found[name] = np.clip(np.rint(array / scale), -127, 127).astype(np.int8)
        found[name + SCALE] = scale.astype(np.float32)
    return found


def computed(weights: Weights) -> Params:
    """float32 parameters of stored ones, whatever they are stored as."""
    plain = {name: value.astype(jnp.float32) for name, value in weights.items() if not name.endswith(SCALE)}
    scaled = {name: plain[name] * weights[name + SCALE] for name in plain if name + SCALE in weights}
    return unflatten(plain | scaled)


def allowed(previous: jax.Array, is_masked: jax.Array, tables: TokenTables) -> jax.Array:
    """[B, V] bool: what may be played after `previous` [B] of the same part; all, where it `is_masked` [] not."""
    return rules.valid_tokens(previous, tables) | ~is_masked


def drawn(logits: jax.Array, may_be: jax.Array, uniform: jax.Array, temperature: jax.Array) -> jax.Array:
    """The token [B] that `uniform` [B] in [0, 1) chooses from logits [B, V] among those that `may_be` [B, V]."""
    scaled = logits / jnp.maximum(temperature, LEAST_TEMPERATURE)
    return sample(jax.nn.log_softmax(jnp.where(may_be, scaled, MASKED_LOGIT)), uniform)


def state_names(layers: int, prefix: str) -> list[str]:
    return [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


Last = tuple[jax.Array, jax.Array]  # the chord and the note [B] that sound last


@dataclasses.dataclass(frozen=True)
class _Lookahead:
    """What stays the same while `Functions.plan` goes from token to token; chords have even indices, notes odd ones."""

    model: Model
    params: Params
    task: Task
    hold: jax.Array  # [V], `Task.going_on`
    forced: jax.Array  # [B, 2K + FED] tokens that are decided, -1 where free
    draws: jax.Array  # [B, 2K + FED] in [0, 1)
    temperature: jax.Array
    is_masked: jax.Array
    start: jax.Array  # tokens in the state before
    total: jax.Array  # tokens to be planned

    def sampled(self, logits: jax.Array, index: jax.Array, last: Last) -> jax.Array:
        """The token [B] at `index`: the one that is decided, or one drawn from logits [B, V]."""
        chords = self.task.valid_actions(last[0]) | ~self.is_masked
        notes = self.task.valid_context(last[1]) | ~self.is_masked
        chosen = drawn(logits, jnp.where(index % 2 == 0, chords, notes), self.draws[:, index], self.temperature)
        return jnp.where(self.forced[:, index] >= 0, self.forced[:, index], chosen)

    def guesses(self, index: jax.Array, last: Last) -> list[jax.Array]:
        """The next tokens [B] from `index` on: those that are decided, or the HOLD of what sounds."""
        held = self.hold[last[0]], self.hold[last[1]]
        likely = [jnp.where((index + i) % 2 == 0, held[0], held[1]) for i in range(FED - 1)]
        known = [self.forced[:, index + i] for i in range(FED - 1)]
        return [jnp.where(sure >= 0, sure, guess) for sure, guess in zip(known, likely, strict=True)]

    def advance(self, carry: Any) -> Any:
        """One pass: feeds the last token and guesses, and keeps as many tokens as the guesses were right for."""
        count, tokens, last, cache = carry
        first, guesses = jnp.where(count % 2 == 1, last[0], last[1]), self.guesses(count, last)
        fed = jnp.stack([first, *guesses], axis=1)
        logits, cache = self.model.method(self.params, "decode_each", fed, cache, self.start + count - 1)
        is_right, index = jnp.bool_(True), count
        for i in range(FED):
            is_right = is_right & (index < self.total)
            token = self.sampled(logits[:, i], index, last)
            tokens, last = _put(tokens, last, index, token, is_right)
            index = index + is_right
            if i < FED - 1:
                is_right = is_right & (token == guesses[i]).all()
        return index, tokens, last, cache


def _put(
    tokens: jax.Array, last: Last, index: jax.Array, token: jax.Array, is_taken: jax.Array
) -> tuple[jax.Array, Last]:
    """(tokens, last) with `token` [B] at `index`, where it `is_taken` []."""
    tokens = tokens.at[:, index].set(jnp.where(is_taken, token, tokens[:, index]))
    is_chord = index % 2 == 0
    chord, note = jnp.where(is_taken & is_chord, token, last[0]), jnp.where(is_taken & ~is_chord, token, last[1])
    return tokens, (chord, note)


@dataclasses.dataclass(frozen=True)
class Functions:
    """The functions of one policy. `length` is the number of tokens that a session holds at most.

    They call its actions chords and its context notes, in any task."""

    policy: Model
    task: Task
    layers: int
    length: int

    def _cache(self, state: Weights) -> Cache:
        names = iter(state_names(self.layers, PAST))
        return [(state[key], state[value]) for key, value in zip(names, names, strict=True)]

    def _present(self, cache: Cache, position: jax.Array) -> Weights:
        flat = [array for pair in cache for array in pair]
        return dict(zip(state_names(self.layers, PRESENT), flat, strict=True)) | {"position": position}

    def _decode(self, weights: Weights, tokens: jax.Array, state: Weights) -> tuple[jax.Array, Weights]:
        cache, position = self._cache(state), state["position"]
        logits, cache = self.policy.method(computed(weights), "decode", tokens, cache, position)
        return logits, self._present(cache, position + tokens.shape[1])

    def prefill(self, weights: Weights, chords: jax.Array, notes: jax.Array, frames: jax.Array) -> Any:
        """The first `frames` [] of chords and notes [B, T] int32 -> (logits of the next chord [B, V], state)."""
        batch = chords.shape[0]
        pairs = jnp.stack([chords, notes], axis=-1).reshape(batch, -1)
        stream = jnp.pad(pairs, ((0, 0), (1, 0)), constant_values=BOS)
        params = computed(weights)
        empty = self.policy.method(params, "empty_cache", batch, self.length)
        logits, cache = self.policy.method(params, "prefill", stream, empty, 2 * frames)
        return logits, self._present(cache, 1 + 2 * frames)

    def step(self, weights: Weights, token: jax.Array, state: Weights) -> Any:
        """One token [B] int32 -> (logits of the next one [B, V], state)."""
        return self._decode(weights, token[:, None], state)

    def commit_frame(self, weights: Weights, chord: jax.Array, note: jax.Array, state: Weights) -> Any:
        """What was played and what was heard in a frame, [B] int32 each -> (logits of the next chord [B, V], state)."""
        return self._decode(weights, jnp.stack([chord, note], axis=1), state)

    def plan(
        self,
        weights: Weights,
        logits: jax.Array,
        chord: jax.Array,
        note: jax.Array,
        given: jax.Array,
        uniforms: jax.Array,
        frames: jax.Array,
        temperature: jax.Array,
        is_masked: jax.Array,
        state: Weights,
    ) -> Any:
        """Looks ahead: chords, and the melody that the policy imagines under them, [B, K] int32 each, and the state.

        The first `frames` [] of the K are planned, but no note in the last of them, after which nothing follows. The
        state holds all of them but the last: a plan that goes on begins with it, its chord given. What the state held
        before is still there.

        Most tokens go on with what sounds. So each pass is fed the last token and guesses of the next ones; as many
        are kept as sampling from the pass's own logits confirms. What comes out does not depend on the guesses.

        logits [B, V] of the next chord; chord and note [B] int32 that sound last; given [B, K] int32: chords that are
        already decided, -1 where free; uniforms [B, K, 2] float32 in [0, 1); temperature [] float32, 0 for the
        likeliest; is_masked [] bool: whether only valid tokens may be played.
        """
        room, more = 2 * given.shape[1], ((0, 0), (0, FED))
        forced = jnp.stack([given, jnp.full_like(given, -1)], axis=-1).reshape(-1, room)
        look = _Lookahead(
            model=self.policy,
            params=computed(weights),
            task=self.task,
            hold=jnp.asarray(self.task.going_on),
            forced=jnp.pad(forced, more, constant_values=-1),
            draws=jnp.pad(uniforms.reshape(-1, room), more),
            temperature=temperature,
            is_masked=is_masked,
            start=state["position"],
            total=2 * jnp.minimum(frames, given.shape[1]) - 1,
        )
        tokens, last = jnp.zeros_like(look.forced), (chord, note)
        token = look.sampled(logits, jnp.int32(0), last)
        tokens, last = _put(tokens, last, jnp.int32(0), token, jnp.bool_(True))
        begun = jnp.int32(1), tokens, last, self._cache(state)
        _, tokens, _, cache = jax.lax.while_loop(lambda carry: carry[0] < look.total, look.advance, begun)
        return tokens[:, :room:2], tokens[:, 1:room:2], self._present(cache, look.start + look.total - 1)

    def signatures(self, weights: Weights, heads: int, head_dim: int, size: int) -> dict[str, tuple[Callable, tuple]]:
        """Each function with the shapes it takes: B songs, T frames (`prefill`) or K frames (`plan`), symbolic."""

        def shaped(*shape: Any, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, dtype)

        def state(batch: Any) -> Weights:
            shapes = [(batch, heads, head_dim, self.length), (batch, heads, self.length, head_dim)] * self.layers
            names = state_names(self.layers, PAST)
            past = {name: shaped(*shape, dtype=jnp.float32) for name, shape in zip(names, shapes, strict=True)}
            return past | {"position": shaped()}

        stored = {name: shaped(*value.shape, dtype=value.dtype) for name, value in weights.items()}
        songs, frames = export.symbolic_shape("B, T", constraints=[f"T <= {(self.length - 1) // 2}"])
        (batch,) = export.symbolic_shape("B")
        one, then = shaped(batch), state(batch)
        many, ahead = export.symbolic_shape("B, K")
        now, logits = shaped(many), shaped(many, size, dtype=jnp.float32)
        uniforms, temperature = shaped(many, ahead, 2, dtype=jnp.float32), shaped(dtype=jnp.float32)
        given, options = shaped(many, ahead), (shaped(), temperature, shaped(dtype=jnp.bool_))
        planned = (stored, logits, now, now, given, uniforms, *options)
        return {
            "prefill": (self.prefill, (stored, shaped(songs, frames), shaped(songs, frames), shaped())),
            "step": (self.step, (stored, one, then)),
            "commit_frame": (self.commit_frame, (stored, one, one, then)),
            "plan": (self.plan, (*planned, state(many))),
        }


def exported(function: Callable, arguments: tuple) -> bytes:
    """A function compiled for no machine yet, for all of `PLATFORMS`. It names source files without their folders."""
    name = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, name)
    jax.config.update(name, _FOLDERS)
    try:
        return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).serialize())
    finally:
        jax.config.update(name, before)
