"""Plays held-out songs with a policy and measures what comes out."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax import prng
from gapt_jax.algorithm import ppo
from gapt_jax.algorithm.adversary import discriminator_input
from gapt_jax.algorithm.rollout import distribution, opened, roll_out, sample, valid_along
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import EvaluationConfig
from gapt_jax.evaluation import post_hoc
from gapt_jax.evaluation.interaction import summarize_melody
from gapt_jax.evaluation.metrics import summarize
from gapt_jax.models.networks import interleave
from gapt_jax.task import PAD
from gapt_jax.tasks.accompaniment.task import accompaniment_of
from gapt_jax.types import Params

TIMED_FRAMES = 256  # at least
Songs = tuple[jax.Array, ...]  # arrays with a row a song
Carry = tuple[jax.Array, Any, jax.Array]  # logits [1, V], cache, the last chord [1]


@functools.partial(jax.jit, static_argnames=("spec", "validity_mask"))
def _play(spec: Spec, params: Params, songs: Songs, key: jax.Array, *, validity_mask: bool) -> jax.Array:
    task, policy = spec.task, spec.models.policy

    def accompany(params: Params, rows: Songs) -> jax.Array:
        melody, index = rows
        return roll_out(policy, params, melody, index, key, task, validity_mask=validity_mask).actions

    return spec.layout.everywhere(spec.layout.each(accompany, params, songs))


@functools.partial(jax.jit, static_argnames="spec")
def _go_on(spec: Spec, params: Params, songs: Songs, key: jax.Array) -> jax.Array:
    """[B, T - K] valid chords over melody [B, T] after the chords [B, K] of its first frames."""
    task, policy = spec.task, spec.models.policy

    def accompany(params: Params, rows: Songs) -> jax.Array:
        melody, known, index = rows
        (batch, frames), begun = melody.shape, known.shape[1]
        uniforms = prng.uniform_per_example(key, index, frames - begun).T
        cache = policy.method(params, "empty_cache", batch, 1 + 2 * frames)
        logits, cache = policy.method(params, "prefill", interleave(known, melody[:, :begun]), cache, 2 * begun)

        def frame(carry: Any, inputs: Songs) -> Any:
            logits, cache, previous = carry
            t, note, uniform = inputs
            drawn = sample(distribution(logits, task.valid_actions(previous)), uniform)
            chord = jnp.where(note == PAD, PAD, drawn)
            heard = jnp.stack([chord, note], axis=1)
            return (*policy.method(params, "decode", heard, cache, 1 + 2 * t), chord), chord

        inputs = jnp.arange(begun, frames), melody[:, begun:].T, uniforms
        return jax.lax.scan(frame, (logits, cache, known[:, -1]), inputs)[1].T

    return spec.layout.everywhere(spec.layout.each(accompany, params, songs))


@functools.partial(jax.jit, static_argnames="spec")
def _embed(spec: Spec, params: Params, songs: Songs) -> tuple[jax.Array, jax.Array]:
    """[B, D] embeddings of what the agent played, and [B] their similarity to what it heard."""

    def embedded(params: Params, rows: Songs) -> tuple[jax.Array, jax.Array]:
        return spec.task.embed(spec.models, params, *rows)

    return spec.layout.everywhere(spec.layout.each(embedded, params, songs))


@functools.partial(jax.jit, static_argnames=("spec", "validity_mask"))
def _divergence(spec: Spec, policies: tuple[Params, Params], songs: Songs, *, validity_mask: bool) -> jax.Array:
    """[B, T] KL of the first policy to the second, exact over the vocabulary, along what was played."""

    def diverged(params: tuple[Params, Params], rows: Songs) -> jax.Array:
        melody, chords = rows
        tokens = interleave(chords, melody)[:, :-1]
        valid = valid_along(spec.task, chords) if validity_mask else None
        log_p, log_q = (distribution(spec.models.policy.method(p, "at_states", tokens), valid) for p in params)
        return ppo.kl_divergence(log_p, log_q)

    return spec.layout.everywhere(spec.layout.each_in_chunks(diverged, spec.config.minibatch_size, policies, songs))


@functools.partial(jax.jit, static_argnames="spec")
def _proxy(spec: Spec, members: dict[str, Params], songs: Songs) -> jax.Array:
    """[B] score by the reward models that paid the policy: mean over members, then over kinds."""

    def scored(members: dict[str, Params], rows: Songs) -> jax.Array:
        scores = spec.task.coherence(spec.models, members, *rows)
        return jnp.mean(jnp.stack([jnp.mean(s, axis=0) for s in scores.values()]), axis=0)

    return spec.layout.everywhere(spec.layout.each(scored, members, songs))


@functools.partial(jax.jit, static_argnames="spec")
def _realism(spec: Spec, params: Params, songs: Songs) -> jax.Array:
    def judged(params: Params, rows: Songs) -> jax.Array:
        return spec.models.discriminator(params, discriminator_input(*rows))

    return spec.layout.everywhere(spec.layout.each(judged, params, songs))


@functools.partial(jax.jit, static_argnames=("spec", "validity_mask"), donate_argnames="carry")
def _frame(
    spec: Spec, params: Params, carry: Carry, t: int, note: jax.Array, uniform: jax.Array, *, validity_mask: bool
) -> Carry:
    """One frame of one song: the chord [1] is drawn, then it and the note [1] are heard (`rollout.frame`)."""
    logits, cache, previous = carry
    valid = spec.task.valid_actions(previous) if validity_mask else None
    chord = sample(distribution(logits, valid), uniform)
    heard = jnp.stack([chord, note], axis=1)
    return *spec.models.policy.method(params, "decode", heard, cache, 1 + 2 * t), chord


@functools.partial(jax.jit, static_argnames=("spec", "frames"))
def _opening(spec: Spec, params: Params, frames: int) -> Carry:
    return opened(spec.models.policy, params, spec.task, 1, frames)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Fixed songs, fixed random numbers, fixed encoders: the same policy always gets the same numbers."""

    spec: Spec
    encoders: dict[str, Params]  # chord encoders of the Vendi score, by name
    config: EvaluationConfig
    rewards: dict[str, Params] = dataclasses.field(default_factory=dict)  # members that pay the policy, by kind
    reference: Params | None = None  # the supervised policy, to which `kl` is measured
    before_batch: Callable[[], None] = lambda: None  # may raise to end the evaluation

    def play(
        self, policy: Params, melody: np.ndarray, index: np.ndarray, *, sampling: str, seed: int = 0
    ) -> np.ndarray:
        """[N, T] chords of `policy` over `melody`, T = 1, over all tokens or (sampling = masked) the valid ones."""
        key = prng.stream(jax.random.key(self.config.seed), seed, "evaluation")
        play = functools.partial(_play, validity_mask=sampling == "masked")
        return self._in_batches(lambda songs: play(self.spec, policy, songs, key), melody, index)

    def accompany(
        self,
        policy: Params,
        melody: np.ndarray,
        count: int,
        window: int,
        *,
        seed: int = 0,
        report: Callable[[int], None] = lambda frame: None,
    ) -> np.ndarray:
        """[count, F] chords over one melody [F] of any length, the valid ones only.

        The network remembers `window` frames. Beyond them it goes on, half a window at a time, with the half before
        as its memory; `report` is told how far it is.
        """
        index, kept = np.arange(count, dtype=np.int32), window // 2
        key = prng.stream(jax.random.key(self.config.seed), seed, "evaluation")

        def heard(first: int) -> np.ndarray:
            part = melody[first : first + window]
            return np.pad(part, (0, window - len(part)), constant_values=PAD)[None].repeat(count, axis=0)

        chords = self.play(policy, heard(0), index, sampling="masked", seed=seed)
        while (done := chords.shape[1]) < len(melody):
            report(done)
            go_on = functools.partial(_go_on, self.spec, policy, key=jax.random.fold_in(key, done))
            more = self._in_batches(go_on, heard(done - kept), chords[:, done - kept :], index)
            chords = np.concatenate([chords, more], axis=1)
        return chords[:, : len(melody)]

    def measure(
        self, melody: np.ndarray, chords: np.ndarray, data_chords: np.ndarray, policy: Params | None = None
    ) -> dict[str, float]:
        """Measures one accompaniment of each song (`metrics.summarize`) and scores the pairs by the reward models.

        `policy` is the one that played, by the run's own sampling: with it, its `kl` is measured too."""
        measured = self.judge(melody, chords, data_chords)[0]
        return measured | (self.divergence(policy, melody, chords, sampling=self.config.sampling) if policy else {})

    def judge(
        self, melody: np.ndarray, chords: np.ndarray, data_chords: np.ndarray
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """(metrics, embeddings [N, D] of the chords by encoder)."""
        embeddings, similarity = {}, {}
        for name in self.encoders:
            embeddings[name], similarity[name] = self.embed(name, melody, chords)
        task = accompaniment_of(self.spec)
        if task.part == "melody":
            measured = summarize_melody(chords, melody, task.vocabulary, embeddings)
        else:
            measured = summarize(melody, chords, data_chords, task.vocabulary, embeddings)
        if "independent" in similarity:
            measured["held_out_coherence"] = float(similarity["independent"].mean())
        if self.rewards:
            measured["proxy_coherence"] = self.proxy(melody, chords)
        return measured, embeddings

    def proxy(self, melody: np.ndarray, chords: np.ndarray) -> float:
        """Mean score over songs by the reward models that paid the policy (`rewards` has some)."""
        return float(self._in_batches(functools.partial(_proxy, self.spec, self.rewards), melody, chords).mean())

    def embed(self, encoder: str, melody: np.ndarray, chords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([N, D] embeddings of the chords, [N] their similarity to the melody)."""
        return self._in_batches(functools.partial(_embed, self.spec, self.encoders[encoder]), melody, chords)

    def divergence(self, policy: Params, melody: np.ndarray, chords: np.ndarray, *, sampling: str) -> dict[str, float]:
        """KL per frame of `policy` to the supervised one along its own chords [N, T], and the root of it."""
        if self.reference is None:
            return {}
        if policy is self.reference:
            return {"kl": 0.0, "sqrt_kl": 0.0}
        along = functools.partial(_divergence, self.spec, (policy, self.reference), validity_mask=sampling == "masked")
        kl = max(0.0, float(self._in_batches(along, melody, chords)[melody != PAD].mean()))
        return {"kl": kl, "sqrt_kl": kl**0.5}

    def post_hoc_accuracy(self, chords: np.ndarray, data_chords: np.ndarray) -> float:
        """Accuracy on every other song of a discriminator fitted on the rest (`post_hoc.fit`); NaN for one song."""
        if len(chords) < 2:
            return float("nan")
        fitted = post_hoc.fit(self.spec, data_chords[::2], chords[::2], self.config.post_hoc_steps, self.config.seed)
        judge = functools.partial(_realism, self.spec, fitted)
        return post_hoc.accuracy(*(self._in_batches(judge, songs[1::2]) for songs in (data_chords, chords)))

    def decode_step(self, policy: Params, melody: np.ndarray, *, sampling: str) -> dict[str, float]:
        """Milliseconds of the compiled decoding step, one frame of one song, melody [T], on one device of this host: a
        chord drawn, it and the note heard. Nothing is planned ahead, which live play does in each frame too."""
        whole = jax.jit(self.spec.layout.everywhere)(policy)
        params = jax.tree.map(lambda x: x.addressable_data(0), whole)
        key = prng.stream(jax.random.key(self.config.seed), 0, "evaluation")
        uniforms = np.asarray(prng.uniform_per_example(key, jnp.zeros(1, jnp.int32), len(melody)))
        step = functools.partial(_frame, self.spec, params, validity_mask=sampling == "masked")
        times: list[float] = []
        for song in range(1 + -(-TIMED_FRAMES // len(melody))):
            carry = jax.block_until_ready(_opening(self.spec, params, len(melody)))
            for t in range(len(melody)):
                started = time.perf_counter()
                carry = jax.block_until_ready(step(carry, np.int32(t), melody[t : t + 1], uniforms[:, t]))
                times += [1000 * (time.perf_counter() - started)] if song else []  # the first song compiles
        p50, p95 = np.percentile(times, (50, 95))
        return {"p50_ms": round(float(p50), 4), "p95_ms": round(float(p95), 4), "frames": len(times)}

    def _in_batches(self, fn: Any, *arrays: np.ndarray) -> Any:
        """Applies `fn` to some rows at a time (the last batch is filled up with row 0, so that shapes stay fixed)."""
        rows, size, out = len(arrays[0]), self.config.batch_size, []
        for start in range(0, rows, size):
            self.before_batch()
            chosen = np.arange(start, start + size)
            songs = tuple(x[np.where(chosen < rows, chosen, 0)] for x in arrays)
            out.append(fn(self.spec.layout.place(songs, size)))
        return jax.tree.map(lambda *parts: np.concatenate([np.asarray(p)[:size] for p in parts])[:rows], *out)
