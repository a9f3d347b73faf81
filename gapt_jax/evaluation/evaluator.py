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
from gapt_jax.algorithm import ppo, reward_models
from gapt_jax.algorithm.adversary import discriminator_input
from gapt_jax.algorithm.reward_models import ContrastiveReward, DiscriminativeReward
from gapt_jax.algorithm.rollout import WHOLE, Truncation, distribution, opened, roll_out, sample, valid_along
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import EvaluationConfig
from gapt_jax.evaluation import diversity, embeddings, post_hoc
from gapt_jax.evaluation.reward_models import judgement, retrieval
from gapt_jax.models.networks import interleave
from gapt_jax.task import EOS, PAD
from gapt_jax.types import Params

INDEPENDENT = "independent"  # the encoder that rewarded no policy
TIMED_FRAMES = 256  # at least
PLAYS = 16  # over one context
_OTHER_DRAWS = 1  # seed of these plays
Songs = tuple[jax.Array, ...]  # arrays with a row a song
Carry = tuple[jax.Array, Any, jax.Array]  # logits [1, V], cache, the last action [1]


@functools.partial(jax.jit, static_argnames=("spec", "validity_mask", "truncation"))
def _play(
    spec: Spec,
    params: Params,
    songs: Songs,
    key: jax.Array,
    *,
    validity_mask: bool,
    truncation: Truncation = WHOLE,
) -> jax.Array:
    task, policy = spec.task, spec.models.policy

    def play(params: Params, rows: Songs) -> jax.Array:
        context, index = rows
        return roll_out(
            policy, params, context, index, key, task, validity_mask=validity_mask, truncation=truncation
        ).actions

    return spec.layout.everywhere(spec.layout.each(play, params, songs))


@functools.partial(jax.jit, static_argnames=("spec", "truncation"))
def _go_on(spec: Spec, params: Params, songs: Songs, key: jax.Array, *, truncation: Truncation = WHOLE) -> jax.Array:
    """[B, T - K] valid actions over context [B, T] after the actions [B, K] of its first frames."""
    task, policy = spec.task, spec.models.policy

    def play(params: Params, rows: Songs) -> jax.Array:
        context, known, index = rows
        (batch, frames), begun = context.shape, known.shape[1]
        uniforms = prng.uniform_per_example(key, index, frames - begun).T
        cache = policy.method(params, "empty_cache", batch, 1 + 2 * frames)
        logits, cache = policy.method(params, "prefill", interleave(known, context[:, :begun]), cache, 2 * begun)

        def frame(carry: Any, inputs: Songs) -> Any:
            logits, cache, previous = carry
            t, heard, uniform = inputs
            drawn = sample(truncation.of(distribution(logits, task.valid_actions(previous))), uniform)
            action = jnp.where(heard == PAD, PAD, drawn)
            pair = jnp.stack([action, heard], axis=1)
            return (*policy.method(params, "decode", pair, cache, 1 + 2 * t), action), action

        inputs = jnp.arange(begun, frames), context[:, begun:].T, uniforms
        return jax.lax.scan(frame, (logits, cache, known[:, -1]), inputs)[1].T

    return spec.layout.everywhere(spec.layout.each(play, params, songs))


@functools.partial(jax.jit, static_argnames="spec")
def _embed(spec: Spec, params: Params, songs: Songs) -> tuple[jax.Array, jax.Array]:
    """[B, D] embeddings of what the agent played, and [B] their similarity to what it heard."""

    def embedded(params: Params, rows: Songs) -> tuple[jax.Array, jax.Array]:
        encoder = spec.config.rewards.ENCODER
        return reward_models.embed(spec.task.reward_models, spec.models, encoder, params, *rows)

    return spec.layout.everywhere(spec.layout.each(embedded, params, songs))


@functools.partial(jax.jit, static_argnames=("spec", "validity_mask"))
def _divergence(spec: Spec, policies: tuple[Params, Params], songs: Songs, *, validity_mask: bool) -> jax.Array:
    """[B, T] KL of the first policy to the second, exact over all tokens, along what was played."""

    def diverged(params: tuple[Params, Params], rows: Songs) -> jax.Array:
        context, actions = rows
        tokens = interleave(actions, context)[:, :-1]
        valid = valid_along(spec.task, actions) if validity_mask else None
        log_p, log_q = (distribution(spec.models.policy.method(p, "at_states", tokens), valid) for p in params)
        return ppo.kl_divergence(log_p, log_q)

    return spec.layout.everywhere(spec.layout.each_in_chunks(diverged, spec.config.minibatch_size, policies, songs))


@functools.partial(jax.jit, static_argnames="spec")
def _proxy(spec: Spec, seeds: dict[str, Params], songs: Songs) -> jax.Array:
    """[B] score by the reward models that paid the policy: mean over the seeds of each, then over the models."""

    def scored(seeds: dict[str, Params], rows: Songs) -> jax.Array:
        scores = reward_models.scores(spec.task.reward_models, spec.models, seeds, *rows)
        return jnp.mean(jnp.stack([jnp.mean(s, axis=0) for s in scores.values()]), axis=0)

    return spec.layout.everywhere(spec.layout.each(scored, seeds, songs))


@functools.partial(jax.jit, static_argnames=("spec", "name"))
def _both(spec: Spec, name: str, params: Params, songs: Songs) -> tuple[jax.Array, jax.Array]:
    """[B, D] embeddings of both parts by one seed of a contrastive reward model."""

    def embedded(params: Params, rows: Songs) -> tuple[jax.Array, jax.Array]:
        reward = spec.task.reward_models[name]
        assert isinstance(reward, ContrastiveReward)
        return reward.embed_both(spec.models.rewards[name], params, *rows)

    return spec.layout.everywhere(spec.layout.each(embedded, params, songs))


@functools.partial(jax.jit, static_argnames=("spec", "name"))
def _told(spec: Spec, name: str, params: Params, songs: Songs) -> tuple[jax.Array, jax.Array]:
    """[B] logits of genuine and of false pairs [B, L] by one seed of a discriminative reward model."""

    def judged(params: Params, rows: Songs) -> tuple[jax.Array, jax.Array]:
        genuine, false = (spec.models.rewards[name](params, tokens) for tokens in rows)
        return genuine, false

    return spec.layout.everywhere(spec.layout.each(judged, params, songs))


@functools.partial(jax.jit, static_argnames="spec")
def _realism(spec: Spec, params: Params, songs: Songs) -> jax.Array:
    def judged(params: Params, rows: Songs) -> jax.Array:
        return spec.models.discriminator(params, discriminator_input(*rows))

    return spec.layout.everywhere(spec.layout.each(judged, params, songs))


@functools.partial(jax.jit, static_argnames=("spec", "validity_mask"), donate_argnames="carry")
def _frame(
    spec: Spec, params: Params, carry: Carry, t: int, heard: jax.Array, uniform: jax.Array, *, validity_mask: bool
) -> Carry:
    """One frame of one song: the action [1] is drawn, then it and the context [1] are heard (`rollout.frame`)."""
    logits, cache, previous = carry
    valid = spec.task.valid_actions(previous) if validity_mask else None
    action = sample(distribution(logits, valid), uniform)
    pair = jnp.stack([action, heard], axis=1)
    return *spec.models.policy.method(params, "decode", pair, cache, 1 + 2 * t), action


@functools.partial(jax.jit, static_argnames=("spec", "frames"))
def _opening(spec: Spec, params: Params, frames: int) -> Carry:
    return opened(spec.models.policy, params, spec.task, 1, frames)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Fixed songs, fixed random numbers, fixed encoders: the same policy always gets the same numbers."""

    spec: Spec
    encoders: dict[str, Params]  # seeds of the task's encoder, for the Vendi score, by name
    config: EvaluationConfig
    rewards: dict[str, Params] = dataclasses.field(default_factory=dict)  # seeds that pay the policy, by name
    reference: Params | None = None  # the supervised policy, to which `kl` is measured
    before_batch: Callable[[], None] = lambda: None  # may raise to end the evaluation
    truncation: Truncation = WHOLE  # of what is played
    # All seeds of each, by name: `rewards`, and those that rewarded no policy.
    reward_models: dict[str, Params] = dataclasses.field(default_factory=dict)

    def play(
        self, policy: Params, context: np.ndarray, index: np.ndarray, *, sampling: str, seed: int = 0
    ) -> np.ndarray:
        """[N, T] actions of `policy` over `context`, T = 1, over all tokens or (sampling = masked) the valid ones, of
        these over what the `truncation` leaves."""
        key = prng.stream(jax.random.key(self.config.seed), seed, "evaluation")
        play = functools.partial(_play, validity_mask=sampling == "masked", truncation=self.truncation)
        return self.in_batches(lambda songs: play(self.spec, policy, songs, key), context, index)

    def play_on(
        self,
        policy: Params,
        context: np.ndarray,
        count: int,
        window: int,
        *,
        seed: int = 0,
        report: Callable[[int], None] = lambda frame: None,
    ) -> np.ndarray:
        """[count, F] actions over one context [F] of any length, the valid ones only.

        The network remembers `window` frames. Beyond them it goes on, half a window at a time, with the half before
        as its memory; `report` is told how far it is.
        """
        index, kept = np.arange(count, dtype=np.int32), window // 2
        key = prng.stream(jax.random.key(self.config.seed), seed, "evaluation")

        def heard(first: int) -> np.ndarray:
            chunk = context[first : first + window]
            return np.pad(chunk, (0, window - len(chunk)), constant_values=PAD)[None].repeat(count, axis=0)

        actions = self.play(policy, heard(0), index, sampling="masked", seed=seed)
        while (done := actions.shape[1]) < len(context):
            report(done)
            draws = jax.random.fold_in(key, done)
            go_on = functools.partial(_go_on, self.spec, policy, key=draws, truncation=self.truncation)
            more = self.in_batches(go_on, heard(done - kept), actions[:, done - kept :], index)
            actions = np.concatenate([actions, more], axis=1)
        return actions[:, : len(context)]

    def measure(
        self, context: np.ndarray, actions: np.ndarray, data: np.ndarray, policy: Params | None = None
    ) -> dict[str, float]:
        """Measures what was played once over each context [N, T], beside the actions of the data.

        `policy` is the one that played, by the run's own sampling: with it, its `kl` is measured too."""
        measured = self.judge(context, actions, data)[0]
        return measured | (self.divergence(policy, context, actions, sampling=self.config.sampling) if policy else {})

    def judge(
        self, context: np.ndarray, actions: np.ndarray, data: np.ndarray
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """(metrics, embeddings [N, D] of the actions by encoder)."""
        embedded, similarity = {}, {}
        for name in self.encoders:
            embedded[name], similarity[name] = self.embed(name, context, actions)
        measured, kept = self.spec.task.measure(context, actions, data), sounding(context, actions)
        for name, rows in embedded.items():  # a song in which nothing is played is skipped (docs/method.md §12.3)
            measured[f"vendi_{name}"] = diversity.vendi(rows[kept])
            measured[f"self_similarity_{name}"] = diversity.self_similarity(rows[kept])
        if INDEPENDENT in similarity:
            measured["held_out_coherence"] = float(similarity[INDEPENDENT].mean())
        if self.rewards:
            measured["proxy_coherence"] = self.proxy(context, actions)
        return measured, embedded

    def proxy(self, context: np.ndarray, actions: np.ndarray) -> float:
        """Mean score over songs by the reward models that paid the policy (`rewards` has some)."""
        return float(self.in_batches(functools.partial(_proxy, self.spec, self.rewards), context, actions).mean())

    def reward_model_quality(self, context: np.ndarray, actions: np.ndarray) -> dict[str, dict[str, Any]]:
        """The figures of every seed of each reward model on the N pairs of a set of data, by name; of kinds that have
        some, and of two songs or more (docs/method.md §12.10)."""
        found: dict[str, dict[str, Any]] = {}
        for name, stacked in self.reward_models.items() if len(context) > 1 else ():
            seeds = [jax.tree.map(lambda x, n=n: x[n], stacked) for n in range(len(jax.tree.leaves(stacked)[0]))]
            reward, figures = self.spec.task.reward_models[name], list[Any]()
            if isinstance(reward, ContrastiveReward):
                kind, figures = "contrastive", [self._retrieval(name, reward, seed, context, actions) for seed in seeds]
            elif isinstance(reward, DiscriminativeReward):
                examples = jax.jit(reward.examples)(jax.random.key(self.config.seed), context, actions)
                pairs = tuple(np.asarray(x) for x in examples)
                kind, figures = "discriminative", [self._judgement(name, seed, pairs) for seed in seeds]
            else:
                continue
            found[name] = {"kind": kind, "n_songs": len(context), "seeds": figures}
        return found

    def _retrieval(
        self, name: str, reward: ContrastiveReward, seed: Params, context: np.ndarray, actions: np.ndarray
    ) -> dict[str, dict[str, float]]:
        first, second = self.in_batches(functools.partial(_both, self.spec, name, seed), context, actions)
        similarity, (one, other) = first @ second.T, reward.parts
        return {f"{one}_to_{other}": retrieval(similarity), f"{other}_to_{one}": retrieval(similarity.T)}

    def _judgement(self, name: str, seed: Params, pairs: tuple[np.ndarray, ...]) -> dict[str, float]:
        return judgement(*self.in_batches(functools.partial(_told, self.spec, name, seed), *pairs))

    def embed(self, encoder: str, context: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([N, D] embeddings of the actions, [N] their similarity to the context)."""
        return self.in_batches(functools.partial(_embed, self.spec, self.encoders[encoder]), context, actions)

    def same_context_vendi(self, policy: Params, context: np.ndarray, *, sampling: str) -> float:
        """`embeddings.mean_vendi` over `PLAYS` plays over each context [N, T], in the independent encoder."""
        repeated = np.repeat(context, PLAYS, axis=0)
        index = np.arange(len(repeated), dtype=np.int32)
        actions = self.play(policy, repeated, index, sampling=sampling, seed=_OTHER_DRAWS)
        embedded, _ = self.embed(INDEPENDENT, repeated, actions)
        sounds = sounding(repeated, actions)
        return embeddings.mean_vendi(embedded.reshape(-1, PLAYS, embedded.shape[1]), sounds.reshape(-1, PLAYS))

    def divergence(
        self, policy: Params, context: np.ndarray, actions: np.ndarray, *, sampling: str
    ) -> dict[str, float]:
        """KL per frame of `policy` to the supervised one along its own actions [N, T], and the root of it; of the whole
        distributions, whatever the `truncation`."""
        if self.reference is None:
            return {}
        if policy is self.reference:
            return {"kl": 0.0, "sqrt_kl": 0.0}
        along = functools.partial(_divergence, self.spec, (policy, self.reference), validity_mask=sampling == "masked")
        kl = max(0.0, float(self.in_batches(along, context, actions)[context != PAD].mean()))
        return {"kl": kl, "sqrt_kl": kl**0.5}

    def post_hoc_accuracy(self, actions: np.ndarray, data: np.ndarray) -> float:
        """Accuracy on every other song of a discriminator fitted on the rest (`post_hoc.fit`); NaN for one song."""
        if len(actions) < 2:
            return float("nan")
        fitted = post_hoc.fit(self.spec, data[::2], actions[::2], self.config.post_hoc_steps, self.config.seed)
        judge = functools.partial(_realism, self.spec, fitted)
        return post_hoc.accuracy(*(self.in_batches(judge, songs[1::2]) for songs in (data, actions)))

    def decode_step(self, policy: Params, context: np.ndarray, *, sampling: str) -> dict[str, float]:
        """Milliseconds of the compiled decoding step, one frame of one song, context [T], on one device of this host:
        an action drawn, it and its context heard. Nothing is planned ahead, which live play does in each frame too."""
        whole = jax.jit(self.spec.layout.everywhere)(policy)
        params = jax.tree.map(lambda x: x.addressable_data(0), whole)
        key = prng.stream(jax.random.key(self.config.seed), 0, "evaluation")
        uniforms = np.asarray(prng.uniform_per_example(key, jnp.zeros(1, jnp.int32), len(context)))
        step = functools.partial(_frame, self.spec, params, validity_mask=sampling == "masked")
        times: list[float] = []
        for song in range(1 + -(-TIMED_FRAMES // len(context))):
            carry = jax.block_until_ready(_opening(self.spec, params, len(context)))
            for t in range(len(context)):
                started = time.perf_counter()
                carry = jax.block_until_ready(step(carry, np.int32(t), context[t : t + 1], uniforms[:, t]))
                times += [1000 * (time.perf_counter() - started)] if song else []  # the first song compiles
        p50, p95 = np.percentile(times, (50, 95))
        return {"p50_ms": round(float(p50), 4), "p95_ms": round(float(p95), 4), "frames": len(times)}

    def in_batches(self, fn: Any, *arrays: np.ndarray) -> Any:
        """Applies `fn` to some rows at a time (the last batch is filled up with row 0, so that shapes stay fixed)."""
        rows, size, out = len(arrays[0]), self.config.batch_size, []
        for start in range(0, rows, size):
            self.before_batch()
            chosen = np.arange(start, start + size)
            songs = tuple(x[np.where(chosen < rows, chosen, 0)] for x in arrays)
            out.append(fn(self.spec.layout.place(songs, size)))
        return jax.tree.map(lambda *found: np.concatenate([np.asarray(x)[:size] for x in found])[:rows], *out)


def sounding(context: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """[N] bool: songs with something played before their end; the others have no embedding."""
    return np.any(np.where(context == PAD, PAD, actions) > EOS, axis=1)
