"""One GAPT iteration at toy size: what it changes, what it counts, that it learns and that it resumes bit for bit."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.algorithm import learner, ppo
from gapt_jax.algorithm.state import ADVERSARIAL, Frozen, Spec, init_state
from gapt_jax.config import RuntimeConfig
from gapt_jax.models.networks import part
from gapt_jax.runtime.checkpoint import checkpoints
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.types import Batch, Trajectory
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_ONSET, PAD, SILENCE

FRAMES = 16
PHASES = ("rollout", "judge", "estimate", "improve_policy", "improve_discriminator")


@pytest.fixture(scope="module")
def spec(networks, algorithm_config, vocabulary):
    return Spec(networks, algorithm_config, Accompaniment(vocabulary))


@pytest.fixture(scope="module")
def frozen(networks):
    keys = jax.random.split(jax.random.key(7), 2)
    kinds = ("contrastive", "rhythm_discriminative")
    rewards = {kind: jax.jit(jax.vmap(networks.rewards[kind].init))(keys) for kind in kinds}
    return Frozen(jax.jit(networks.anchor.init)(jax.random.key(8)), rewards)


@pytest.fixture(scope="module")
def policy(networks):
    return networks.policy.init(jax.random.key(9))


@pytest.fixture
def start(spec, policy):
    """A fresh state at every call: an iteration donates the one it is given."""
    return lambda seed=0, **hyper: with_hyper(init_state(spec, policy, seed, FRAMES), **hyper)


def with_hyper(state, *, weights=None, **changes):
    hyper = dataclasses.replace(state.hyper, **{k: jnp.float32(v) for k, v in changes.items()})
    new = {k: jnp.float32(v) for k, v in (weights or {}).items()}
    return dataclasses.replace(state, hyper=dataclasses.replace(hyper, reward_weights=hyper.reward_weights | new))


def batch(spec, number: int) -> Batch:
    """Batch `number` of an endless stream; every fourth song is short."""
    rows = spec.config.batch_size
    rng = np.random.default_rng(number)
    melody = rng.integers(NOTE_ONSET, NOTE_ONSET + 128, (rows, FRAMES))
    chord = rng.integers(0, spec.task.vocabulary.num_chords, (rows, FRAMES // 4)).repeat(4, axis=1)
    chords = np.where(np.arange(FRAMES) % 4 == 0, spec.task.vocabulary.chord_onset, CHORD_HOLD) + chord
    for row in range(0, rows, 4):
        melody[row, 9 + row // 4 :] = chords[row, 9 + row // 4 :] = PAD
    index = np.arange(number * rows, (number + 1) * rows)
    return Batch(*(x.astype(np.int32) for x in (melody, chords, index)))


def iterate(spec, frozen, state, numbers):
    metrics = []
    for number in numbers:
        state, new = learner.iteration(spec, state, frozen, batch(spec, number))
        metrics.append({name: float(value) for name, value in new.items()})
    return state, metrics


def same(a, b) -> bool:
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in zip(leaves(a), leaves(b), strict=True))


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def copy(tree):
    return jax.tree.map(np.array, tree)


def test_an_iteration_runs_and_reports(spec, frozen, start):
    state = start()
    before = copy(state)
    state, (metrics,) = iterate(spec, frozen, state, [0])
    assert int(state.step) == 1
    assert all(np.isfinite(value) for value in metrics.values()), metrics
    assert metrics["ratio_deviation/largest"] < 1e-4
    assert metrics["kl"] > 0 and metrics["entropy"] > 0
    terms = ("contrastive", "rhythm_discriminative", "early_stop", "invalid", "silence", "long_note", "repetition")
    assert {f"reward/{name}" for name in (*terms, ADVERSARIAL, "total")} <= set(metrics)
    assert metrics["reward/invalid"] == 0 and metrics["reward/early_stop"] == 0  # validity mask
    weighted = sum(float(before.hyper.reward_weights[n]) * metrics[f"reward/{n}"] for n in (*terms, ADVERSARIAL))
    assert metrics["reward/total"] == pytest.approx(weighted, rel=1e-4)
    assert metrics["reward/adversarial"] == pytest.approx(metrics["discriminator/reward_mean"], rel=1e-5)
    assert -2 <= metrics["reward/contrastive"] <= 2 and 0 <= metrics["reward/rhythm_discriminative"] <= 2  # sums of 2
    for name in ("policy", "critic", "discriminator"):
        assert not same(getattr(before, name), getattr(state, name))
    assert int(state.policy_optimizer.updates) == int(state.critic_optimizer.updates) == 2  # 16 songs in two 8s
    assert int(state.discriminator_optimizer.updates) == 2  # steps_per_update
    assert same(before.key, state.key) and same(before.hyper, state.hyper)


def test_lambda_changes_the_policy_but_neither_the_program_nor_what_is_played_first(spec, frozen, start):
    one, _ = iterate(spec, frozen, start(), [0])  # everything is compiled after this
    sizes = {name: getattr(learner, name)._cache_size() for name in PHASES}
    zero, _ = iterate(spec, frozen, start(weights={ADVERSARIAL: 0.0}), [0])
    assert {name: getattr(learner, name)._cache_size() for name in PHASES} == sizes
    assert same(one.replay, zero.replay)  # the trajectories of step 1
    assert same(one.discriminator, zero.discriminator)  # it learns at lambda 0 as well
    assert not same(one.policy, zero.policy)


def test_lambda_of_the_config_is_not_compiled_in(spec, frozen, start):
    """Two arms with configs of their own lower to the same program."""
    texts = []
    for weight in (0.0, 1.0):
        arm = dataclasses.replace(spec, config=dataclasses.replace(spec.config, adversarial_weight=weight))
        trajectory = jax.eval_shape(lambda arm=arm: learner.rollout(arm, start(), batch(arm, 0)))
        texts.append(learner.judge.lower(arm, start(), frozen, batch(arm, 0), trajectory).as_text())
    assert texts[0] == texts[1]


def test_the_batch_is_played_not_copied(spec, start):
    played = learner.rollout(spec, start(), batch(spec, 0))
    songs = batch(spec, 0)
    np.testing.assert_array_equal(played.context, songs.context)
    np.testing.assert_array_equal(played.mask, songs.context != PAD)
    assert np.mean(np.asarray(played.actions) == songs.actions) < 0.5
    again = learner.rollout(spec, start(), songs)
    assert same(played, again)
    assert not same(played, learner.rollout(spec, start(seed=1), songs))


def test_kl_is_that_of_aligned_distributions(spec, networks, frozen, start, vocabulary):
    """Recomputed frame by frame: the policy after BOS c1 m1 .. m_{t-1}, the anchor after BOS c1 .. c_{t-1}, both over
    the tokens that may follow c_{t-1}."""
    from gapt_jax.tasks.accompaniment import rules

    state, songs = start(kl_coef=0.5), batch(spec, 0)
    played = learner.rollout(spec, state, songs)
    reward, _ = learner.judge(spec, state, frozen, songs, played)
    policy, anchor = jax.jit(networks.policy.__call__), jax.jit(networks.anchor.__call__)
    total = frames = 0.0
    for row in (0, 4, 5):
        chords, melody = np.asarray(played.actions[row]), songs.context[row]
        length = int((melody != PAD).sum())
        stream = np.array([1, *itertools.chain(*zip(chords, melody, strict=True))])[None]
        log_p = np.asarray(policy(state.policy, stream))[0]
        log_q = np.asarray(anchor(frozen.anchor, part(jnp.asarray(melody[None])), np.array([1, *chords])[None]))[0]
        for t in range(length):
            before = chords[t - 1] if t else SILENCE
            valid = np.asarray(rules.valid_tokens(jnp.array(before), vocabulary.tables))
            p, q = (np.exp(x[valid].astype(np.float64)) for x in (log_p[2 * t], log_q[t]))
            p, q = p / p.sum(), q / q.sum()
            total, frames = total + np.sum(p * np.log(p / q)), frames + 1

    for row in (0, 4, 5):  # the phase on 16 copies of each: its mean over frames is that song's
        alone = jax.tree.map(lambda x, r=row: jnp.repeat(x[r : r + 1], spec.config.batch_size, axis=0), played)
        paid = jax.tree.map(lambda x, r=row: jnp.repeat(x[r : r + 1], spec.config.batch_size, axis=0), reward)
        _, m = learner.estimate(spec, state, frozen, alone, paid)
        length = int((songs.context[row] != PAD).sum())
        total -= float(m["kl"]) * length
    assert total == pytest.approx(0.0, abs=1e-5 * frames)


def test_positions_a_few_at_a_time_change_nothing(spec, frozen, start, monkeypatch):
    state, songs = start(kl_coef=0.5), batch(spec, 0)
    played = learner.rollout(spec, state, songs)
    terms, _ = learner.judge(spec, state, frozen, songs, played)
    whole = learner.estimate(spec, state, frozen, played, terms)
    monkeypatch.setattr(learner, "POSITIONS_AT_ONCE", 7)  # 128 positions of a minibatch are no multiple of it
    anew = jax.jit(lambda *arguments: learner.estimate.__wrapped__(spec, *arguments))
    found = anew(state, frozen, played, terms)
    assert "f32[7," in str(jax.make_jaxpr(anew)(state, frozen, played, terms))
    for a, b in zip(leaves(found), leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_kl_lowers_the_return(spec, frozen, start):
    returns = []
    for coefficient in (0.0, 1.0):
        state, songs = start(kl_coef=coefficient), batch(spec, 0)
        played = learner.rollout(spec, state, songs)
        terms, _ = learner.judge(spec, state, frozen, songs, played)
        experience, metrics = learner.estimate(spec, state, frozen, played, terms)
        returns.append(np.asarray(experience.returns)[:, 0])
        whitened = np.asarray(experience.advantages)[np.asarray(played.mask) > 0]
        assert abs(whitened.mean()) < 1e-5 and whitened.std() == pytest.approx(1.0, abs=1e-4)
        assert np.all(np.asarray(experience.advantages)[np.asarray(played.mask) == 0] == 0)
    # gae_lambda < 1 mixes values in, but with KL subtracted at every frame every return is lower
    assert np.all(returns[1] < returns[0])
    assert metrics["kl"] > 0


def test_non_finite_rewards_skip_the_step_and_are_counted(spec, frozen, start):
    poisoned = dataclasses.replace(frozen, rewards=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), frozen.rewards))
    state = start()
    before = copy(state)
    state, metrics = iterate(spec, poisoned, state, [0, 1])
    for name in ("policy", "critic", "policy_optimizer", "critic_optimizer"):
        assert same(getattr(before, name), getattr(state, name)), name
    assert int(state.nonfinite_steps) == 2
    assert [m["policy_skipped"] for m in metrics] == [1.0, 1.0] == [m["critic_skipped"] for m in metrics]
    assert [m["nonfinite_steps"] for m in metrics] == [1.0, 2.0]
    state, (healthy,) = iterate(spec, frozen, state, [2])  # and goes on when the cause is gone
    assert int(state.nonfinite_steps) == 0 and healthy["policy_skipped"] == 0
    assert not same(before.policy, state.policy)


@pytest.mark.parametrize("form", ["log", "sigmoid_shaped"])  # neither ever exceeds the threshold of 1 itself
def test_the_gate_opens_for_a_fooled_discriminator_whatever_is_paid(networks, vocabulary, algorithm_config, form):
    own = dataclasses.replace(algorithm_config.discriminator, reward_form=form)
    spec = Spec(networks, dataclasses.replace(algorithm_config, discriminator=own), Accompaniment(vocabulary))
    policy = networks.policy.init(jax.random.key(9))
    frozen = Frozen(networks.anchor.init(jax.random.key(8)), {})
    state = init_state(spec, policy, 0, FRAMES)
    sure = state.discriminator | {"head": {"kernel": jnp.zeros((16, 2)), "bias": jnp.array([0.0, 5.0])}}
    state = dataclasses.replace(state, step=jnp.int32(300), discriminator=sure)  # D = .9933, after phase 1
    state, rows = iterate(spec, frozen, state, [0, 1])
    assert rows[0]["discriminator/fooled"] == pytest.approx(5.006715, rel=1e-4)  # log(1 + e^5)
    assert rows[0]["discriminator/reward_mean"] < 1
    assert [row["discriminator/is_open"] for row in rows] == [0, 1]  # the window holds a step, then it is compared


def test_gate_and_replay_move_with_the_steps(spec, frozen, start):
    state, opened, replay_filled = start(gate_threshold=100.0), [], []
    for number in range(6):
        before = copy(state.discriminator)
        state, (metrics,) = iterate(spec, frozen, state, [number])
        opened.append(bool(metrics["discriminator/is_open"]))
        assert bool(np.isfinite(metrics["discriminator/loss"])) is opened[-1]  # there is none where nothing is learnt
        assert opened[-1] != same(before, state.discriminator)
        replay_filled.append(int(state.replay.filled))
        np.testing.assert_array_equal(state.replay.real[0], batch(spec, number).actions)
        assert float(state.recent_rewards[0]) == np.float32(metrics["discriminator/fooled"])
    assert opened == [True, False, False, False, True, False]  # steps 1 and 5
    assert int(state.gate_openings) == 2 and int(state.steps_since_open) == 1
    assert replay_filled == [1, 2, 2, 2, 2, 2]
    assert int(state.discriminator_optimizer.updates) == 4
    state, (metrics,) = iterate(
        spec, frozen, with_hyper(state, gate_threshold=-1.0), [6]
    )  # fooled: above the threshold
    assert metrics["discriminator/is_open"] == 1


def test_each_epoch_uses_each_row_once(networks, vocabulary, algorithm_config, start, monkeypatch):
    seen = []
    original = ppo.value_loss

    def spy(values, returns, mask):
        jax.debug.callback(lambda rows: seen.append(rows[:, 0].tolist()), returns, ordered=True)
        return original(values, returns, mask)

    monkeypatch.setattr(ppo, "value_loss", spy)
    spec = Spec(networks, dataclasses.replace(algorithm_config, epochs=2, minibatch_size=4), Accompaniment(vocabulary))
    state, songs, rows = start(), batch(spec, 0), spec.config.batch_size
    numbered = jnp.broadcast_to(jnp.arange(rows, dtype=jnp.float32)[:, None], (rows, FRAMES))
    played = Trajectory(
        songs.context, songs.actions, -jnp.ones((rows, FRAMES)), (songs.context != PAD).astype(np.float32)
    )
    state, _ = learner.improve_policy(spec, state, learner.Experience(played, numbered, numbered))
    jax.block_until_ready(state)
    jax.effects_barrier()
    assert [len(rows_) for rows_ in seen] == [4] * 8
    first, second = (list(itertools.chain(*epoch)) for epoch in (seen[:4], seen[4:]))
    assert sorted(first) == sorted(second) == list(range(rows))
    assert first != second and first != sorted(first)
    assert int(state.policy_optimizer.updates) == 8


def test_discriminator_learns_to_tell_data_from_play(spec, frozen, start):
    state = start(gate_threshold=-1.0, discriminator_learning_rate=1e-2, policy_learning_rate=0.0)
    state, metrics = iterate(spec, frozen, state, range(45))
    accuracy = [m["discriminator/accuracy"] for m in metrics]
    assert np.mean(accuracy[-5:]) > 0.9 > 0.75 > np.mean(accuracy[:2])


def test_a_simple_rule_is_learnt(spec, frozen, start):
    """Silence is paid instead of punished: +1 a silent frame after the first eight. The policy finds it."""
    nothing = dict.fromkeys(
        ("contrastive", "rhythm_discriminative", "repetition", "invalid", "early_stop", ADVERSARIAL), 0
    )
    state = start(weights=nothing | {"silence": -10.0}, policy_learning_rate=1e-2, critic_learning_rate=1e-2, kl_coef=0)
    _, metrics = iterate(spec, frozen, state, range(40))
    total = [m["reward/total"] for m in metrics]
    best = np.mean([np.maximum((batch(spec, 0).context != PAD).sum(axis=1) - 8, 0)])  # 6.4 of 8 on these lengths
    assert np.mean(total[:3]) < 0.2 * best
    assert np.mean(total[-3:]) > 0.7 * best


def test_interrupted_is_uninterrupted_bit_for_bit(spec, frozen, start, tmp_path):
    whole, whole_metrics = iterate(spec, frozen, start(), range(6))
    state, _ = iterate(spec, frozen, start(), range(3))
    with checkpoints(tmp_path, RuntimeConfig(keep_checkpoints=1), Console()) as saved:
        saved.save(3, state, {})
        state, _ = iterate(spec, frozen, state, [3])  # its buffers are donated while the save is under way
    del state
    with checkpoints(tmp_path, RuntimeConfig(keep_checkpoints=1), Console()) as saved:
        assert saved.latest() == 3
        _, restored = saved.restore(start(seed=5, gate_threshold=77.0), {})  # of the template only shapes count
    assert int(restored.step) == 3 and float(restored.hyper.gate_threshold) == 1.0
    restored = jax.tree.map(lambda x: jnp.array(np.array(x)), restored)  # not bound to a device: no second compilation
    resumed, metrics = iterate(spec, frozen, restored, range(3, 6))
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(whole)[0], jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    np.testing.assert_equal(metrics, whole_metrics[3:])  # where NaN equals NaN


def test_the_caller_keeps_its_policy(spec, frozen, start, policy):
    before = copy(policy)
    iterate(spec, frozen, start(), [0])
    assert same(before, policy)


def test_the_critic_starts_as_the_policy_with_its_own_head(start, policy):
    state = start()
    assert same(state.critic | {"head": 0}, policy | {"head": 0})
    assert state.critic["head"]["kernel"].shape == (16, 1)
    assert same(state.policy, policy)
    assert np.all(np.isnan(state.recent_rewards)) and state.recent_rewards.shape == (3,)


@pytest.mark.parametrize(("follows", "rate"), [(True, 3e-6), (False, 5e-6)])
def test_discriminator_rate_follows_its_own_updates_or_the_steps(
    networks, vocabulary, algorithm_config, policy, follows, rate
):
    """Released behaviour: after 2 updates the third is done at 3 / 1000 of the peak, 1e-3; the option counts 4 steps
    before. The moments start at 0, so one step of Adam moves each entry by its rate."""
    own = dataclasses.replace(algorithm_config.discriminator, schedule_follows_updates=follows, steps_per_update=1)
    adam = dataclasses.replace(algorithm_config.discriminator_optimizer, warmup_steps=1000)
    config = dataclasses.replace(algorithm_config, discriminator=own, discriminator_optimizer=adam)
    spec = Spec(networks, config, Accompaniment(vocabulary))
    state, songs = init_state(spec, policy, 0, FRAMES), batch(spec, 0)
    optimizer = dataclasses.replace(state.discriminator_optimizer, updates=jnp.int32(2))
    state = dataclasses.replace(state, step=jnp.int32(4), discriminator_optimizer=optimizer)
    before = np.array(state.discriminator["head"]["bias"])
    chords = jnp.asarray(songs.actions)
    played = Trajectory(songs.context, chords[::-1], jnp.zeros(chords.shape), jnp.ones(chords.shape))
    realism = {"discriminator/fooled": jnp.float32(0)}
    state, metrics = learner.improve_discriminator(spec, state, None, songs, played, realism)
    assert metrics["discriminator/is_open"] == 1 and metrics["discriminator/skipped"] == 0
    moved = np.abs(np.asarray(state.discriminator["head"]["bias"]) - before)
    np.testing.assert_allclose(moved, rate, rtol=0.02)  # entries near .2 have a resolution of 1.5e-8
    assert int(state.discriminator_optimizer.updates) == 3
