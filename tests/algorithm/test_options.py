"""Options beside the published method: several at once, two iterations each, and what each must have done."""

import dataclasses
import functools
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.algorithm import adversary, groups, learner, ppo, rewards
from gapt_jax.algorithm.rollout import distribution
from gapt_jax.algorithm.state import ADVERSARIAL, TRACED, Frozen, Spec, hyperparameters, init_state, program
from gapt_jax.config import ConfigError, from_dict, to_dict
from gapt_jax.models.networks import interleave, part
from gapt_jax.overrides import override
from gapt_jax.runtime import cost
from gapt_jax.tasks.accompaniment import rules
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig, Experiment, RewardsConfig
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.types import Batch
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_ONSET, PAD

FRAMES, SIZE = 16, 4


def songs(spec: Spec, number: int) -> Batch:
    rng, rows = np.random.default_rng(number), spec.config.batch_size
    melody = rng.integers(NOTE_ONSET, NOTE_ONSET + 128, (rows, FRAMES))
    chord = rng.integers(0, spec.task.vocabulary.num_chords, (rows, FRAMES // 4)).repeat(4, axis=1)
    chords = np.where(np.arange(FRAMES) % 4 == 0, spec.task.vocabulary.chord_onset, CHORD_HOLD) + chord
    melody[4, 11:] = chords[4, 11:] = PAD  # the first of its group
    return Batch(*(x.astype(np.int32) for x in (melody, chords, np.arange(rows) + rows * number)))


def copy(tree):
    return jax.tree.map(np.array, tree)


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


class Run:
    """Two iterations, with what each phase of the first returned."""

    def __init__(self, networks, vocabulary, config: AlgorithmConfig):
        self.spec = spec = Spec(networks, config, Accompaniment(vocabulary))
        self.policy = jax.jit(networks.policy.init)(jax.random.key(9))
        keys = jax.random.split(jax.random.key(7), 2)
        members = {"contrastive": jax.jit(jax.vmap(networks.rewards["contrastive"].init))(keys)}
        anchors = {"online": self.policy, "none": None}
        self.frozen = Frozen(anchors[config.anchor], members)
        self.phases, self.metrics = {}, []
        state = self.start()
        self.before = copy(state)
        state, metrics = learner.iteration(spec, state, self.frozen, songs(spec, 0), self._keep)
        self.metrics.append(metrics)
        self.after_one = copy(state)
        state, metrics = learner.iteration(spec, state, self.frozen, songs(spec, 1))
        self.metrics.append(metrics)
        self.after = copy(state)

    def start(self):
        return jax.jit(lambda policy: init_state(self.spec, policy, 0, FRAMES))(self.policy)

    def _keep(self, phase, *inputs):
        outputs = phase(*inputs)
        self.phases[phase.__name__] = None if phase.__name__.startswith("improve") else copy(outputs)
        return outputs


@pytest.fixture(scope="module")
def by_group(networks, vocabulary, algorithm_config) -> Run:
    """GRPO in groups of 4, DQO, split KL to the MLE policy, D(a|c) that learns in phase 1 and pays what is valid."""
    config = dataclasses.replace(
        algorithm_config,
        validity_mask=False,
        advantages="grpo",
        group_size=SIZE,
        anchor="online",
        kl_coef=0.5,
        rewards=RewardsConfig(diversity=2.0, entropy=0.25, ensemble="mean_minus_std", ensemble_std_weight=0.5),
        discriminator=dataclasses.replace(
            algorithm_config.discriminator,
            conditional=True,
            only_valid=True,
            gate="frozen",
            gate_warmup_steps=2,
            gate_threshold=-1.0,
        ),
    )
    return Run(networks, vocabulary, config)


@pytest.fixture(scope="module")
def without_anchor(networks, vocabulary, algorithm_config) -> Run:
    """RLOO, no anchor, a relativistic discriminator on a frozen encoder that learns at every step."""
    discriminator = dataclasses.replace(
        algorithm_config.discriminator,
        loss="relativistic",
        reward_form="logit",
        gate="every_step",
        encoder="frozen",
    )
    config = dataclasses.replace(
        algorithm_config, advantages="rloo", group_size=2, anchor="none", discriminator=discriminator
    )
    return Run(networks, vocabulary, config)


@pytest.fixture(scope="module")
def later(networks, vocabulary, algorithm_config) -> Run:
    """λ that follows a target, normalised seeds and terms, a first step for the critic alone, re-paired negatives,
    screening."""
    config = dataclasses.replace(
        algorithm_config,
        anchor="online",
        adversarial_target=0.25,
        adversarial_target_rate=2.0,
        critic_warmup_steps=1,
        rewards=RewardsConfig(contrastive=2.0, ensemble="normalised_mean", normalised="rollout"),
        discriminator=dataclasses.replace(
            algorithm_config.discriminator, conditional=True, repaired=0.5, screened=0.25
        ),
    )
    return Run(networks, vocabulary, config)


def assert_finite(metrics):
    """All but the loss of a discriminator that learns nothing, which has none."""
    is_open = metrics["discriminator/is_open"] > 0
    bad = {name for name, value in metrics.items() if not np.isfinite(float(value))}
    assert bad == (set() if is_open else {"discriminator/loss"}), metrics


@pytest.mark.parametrize("name", ["by_group", "without_anchor"])
def test_two_iterations_are_finite_and_only_what_learns_moves(name, request):
    run = request.getfixturevalue(name)
    assert int(run.after.step) == 2 and int(run.after.policy_optimizer.updates) == 4
    for metrics in run.metrics:
        assert_finite(metrics)
        assert not any(key.startswith("critic") or key in ("value", "value_loss") for key in metrics)
        assert metrics["ratio_deviation/largest"] < 1e-4
    for which in ("policy", "discriminator"):
        assert not same(getattr(run.before, which), getattr(run.after, which))
    assert same(run.before.critic, run.after.critic)
    assert same(run.before.critic_optimizer, run.after.critic_optimizer)
    assert run.phases["estimate"][0].returns is None


def test_a_group_plays_one_melody_in_its_own_ways(by_group):
    played, batch = by_group.phases["rollout"], songs(by_group.spec, 0)
    np.testing.assert_array_equal(played.context, np.repeat(batch.context[::SIZE], SIZE, axis=0))
    assert (played.mask.sum(axis=1) == np.repeat([16, 11, 16, 16], SIZE)).all()
    assert len({tuple(row) for row in played.actions}) == 16


def test_advantages_are_those_of_songs_among_their_group(by_group, networks):
    """At the first step the policy is its own anchor: KL is 0 and the reward alone counts."""
    played, terms = by_group.phases["rollout"], judged(by_group)[0]
    assert abs(float(by_group.metrics[0]["kl"])) < 1e-6
    assert float(by_group.metrics[1]["kl"]) > 1e-6
    tokens = interleave(jnp.asarray(played.actions), jnp.asarray(played.context))[:, :-1]
    log_p = distribution(networks.policy.method(by_group.policy, "at_states", tokens), None)
    entropy = np.sum(np.asarray(ppo.entropy(log_p)) * played.mask, axis=1)
    assert float(by_group.metrics[0]["reward/entropy"]) == pytest.approx(entropy.mean(), rel=1e-5)
    weights = hyperparameters(by_group.spec.config).reward_weights
    returns = 0.25 * entropy + sum(float(weights[k]) * x.sum(axis=1) for k, x in terms.terms.items())
    assert float(by_group.metrics[0]["return"]) == pytest.approx(returns.mean(), rel=1e-4)
    expected = groups.relative_to_group(jnp.asarray(returns, jnp.float32), SIZE)[:, None] * played.mask
    np.testing.assert_allclose(by_group.phases["estimate"][0].advantages, expected, atol=2e-3)


def judged(run: Run, **weights: float):
    """The first rollout judged anew, under other weights."""
    fresh = run.start()
    new = {name: jnp.float32(weight) for name, weight in weights.items()}
    hyper = dataclasses.replace(fresh.hyper, reward_weights=fresh.hyper.reward_weights | new)
    fresh = dataclasses.replace(fresh, hyper=hyper)
    return copy(
        learner.judge(run.spec, fresh, run.frozen, songs(run.spec, 0), jax.tree.map(jnp.asarray, run.phases["rollout"]))
    )


def test_diversity_is_paid_at_the_end_of_each_song(by_group, networks):
    played, terms = by_group.phases["rollout"], judged(by_group)[0].terms
    first = jax.tree.map(lambda x: x[0], by_group.frozen.rewards["contrastive"])
    embeddings = networks.rewards["contrastive"].method(first, "chord_tower", part(jnp.asarray(played.actions)))
    expected = np.asarray(groups.log_determinant_gains(embeddings, SIZE))
    np.testing.assert_allclose(terms["diversity"].sum(axis=1), expected, rtol=1e-4)
    ends = np.where(np.arange(16) // SIZE == 1, 10, 15)
    assert np.all(terms["diversity"][np.arange(16), ends] > 0) and np.count_nonzero(terms["diversity"]) == 16


def test_realism_pays_for_valid_output_alone(by_group):
    played, (terms, metrics) = by_group.phases["rollout"], judged(by_group)
    valid = np.asarray(rules.invalid_output(played.actions, played.mask, by_group.spec.task.tables)) == 0
    paid = terms.terms[ADVERSARIAL].sum(axis=1)
    assert np.all(paid[~valid] == 0) and (~valid).sum() > 0
    assert np.all(paid[valid] > 0)
    assert metrics["discriminator/reward_mean"] > paid.mean()  # what the gate sees is realism, paid or not


def test_spread_of_each_member(by_group):
    _, metrics = judged(by_group)
    for member in (0, 1):
        assert 0 < metrics[f"reward_member_std/contrastive/{member}"] < 1
    assert "reward_member_std/contrastive/2" not in metrics


def test_the_replay_of_a_conditional_discriminator_holds_both_parts(by_group):
    batch, played = songs(by_group.spec, 0), by_group.phases["rollout"]
    assert by_group.after.replay.real.shape == (2, 16, 2 * FRAMES)
    np.testing.assert_array_equal(
        by_group.after_one.replay.real[0], np.concatenate([batch.context, batch.actions], axis=1)
    )
    generated = np.concatenate([played.context, played.actions], axis=1)
    np.testing.assert_array_equal(by_group.after_one.replay.generated[0], generated)


def test_gates_of_the_two_runs(by_group, without_anchor):
    opened = lambda run: [float(m["discriminator/is_open"]) for m in run.metrics]  # noqa: E731
    assert opened(by_group) == [1, 0]  # frozen after phase 1, although it is fooled
    assert opened(without_anchor) == [1, 1]


def test_no_anchor_no_kl(without_anchor):
    assert without_anchor.frozen.anchor is None
    assert all("kl" not in metrics for metrics in without_anchor.metrics)
    advantages = without_anchor.phases["estimate"][0].advantages
    returns = sum(
        float(hyperparameters(without_anchor.spec.config).reward_weights[k]) * x.sum(axis=1)
        for k, x in judged(without_anchor)[0].terms.items()
    )
    expected = groups.leave_one_out(jnp.asarray(returns, jnp.float32), 2)
    np.testing.assert_allclose(advantages[:, 0], expected, atol=1e-4)


def test_what_later_options_compute_is_finite(later):
    assert int(later.after.step) == 2
    for metrics in later.metrics:
        assert_finite(metrics)


def test_lambda_follows_its_target_and_what_is_logged_is_what_paid(later):
    weights = [float(state.hyper.reward_weights[ADVERSARIAL]) for state in (later.before, later.after_one, later.after)]
    assert [float(metrics["adversarial_weight"]) for metrics in later.metrics] == weights[:2] and weights[0] == 1
    for metrics, (old, new) in zip(later.metrics, itertools.pairwise(weights), strict=True):
        error = float(metrics["discriminator/accuracy"]) - 0.25
        assert error != 0 and new == pytest.approx(old * np.exp(2 * error), rel=1e-6)
    once, twice = judged(later)[0], judged(later, **{ADVERSARIAL: 2.0})[0]
    realism = rewards.normalised(jnp.asarray(once.terms[ADVERSARIAL]), later.phases["rollout"].mask)
    np.testing.assert_allclose(twice.total - once.total, realism, atol=1e-5)


def test_each_term_is_normalised_before_its_weight_and_logged_as_it_was(later):
    played, (reward, metrics) = later.phases["rollout"], judged(later)
    weights = hyperparameters(later.spec.config).reward_weights
    expected = 0.0
    for name, term in reward.terms.items():
        by_song = term.sum(axis=1)
        expected += float(weights[name]) * (by_song - by_song.mean()) / (by_song.std() + 1e-4)
    np.testing.assert_allclose(reward.total.sum(axis=1), expected, atol=1e-3)
    assert abs(float(later.metrics[0]["reward/total"])) < 1e-4 < abs(float(later.metrics[0]["reward/adversarial"]))
    frozen, networks = later.frozen.rewards["contrastive"], later.spec.models.rewards
    seeds = []
    for seed in (0, 1):
        params = jax.tree.map(lambda x, seed=seed: x[seed], frozen)
        model = later.spec.task.reward_models["contrastive"]
        scores = np.asarray(model.score(networks["contrastive"], params, played.context, played.actions))
        seeds.append((scores - scores.mean()) / (scores.std() + 1e-4))
        assert metrics[f"reward_member_std/contrastive/{seed}"] == pytest.approx(scores.std(), rel=1e-3)
    np.testing.assert_allclose(reward.terms["contrastive"].sum(axis=1), np.mean(seeds, axis=0), atol=2e-3)


def test_the_policy_waits_while_the_critic_warms_up(later):
    states = later.before, later.after_one, later.after
    assert [same(old.policy, new.policy) for old, new in itertools.pairwise(states)] == [True, False]
    assert [same(old.critic, new.critic) for old, new in itertools.pairwise(states)] == [False, False]
    assert [int(state.policy_optimizer.updates) for state in states] == [0, 0, 2]  # its schedule begins with it
    assert [int(state.critic_optimizer.updates) for state in states] == [0, 2, 4]
    assert same(later.before.policy_optimizer, later.after_one.policy_optimizer)


def test_the_discriminator_learns_from_repaired_data(later):
    with mock.patch.object(adversary, "repaired", side_effect=adversary.repaired) as made:
        train = functools.partial(learner._train_discriminator, later.spec, None)
        jax.eval_shape(train, later.before, later.after_one.replay)
    ((_, real, generated, share),) = (call.args for call in made.call_args_list)
    assert real.shape == generated.shape == (8, 2 * FRAMES) and share == 0.5


def test_screened_songs_teach_nothing_but_are_shown_to_the_discriminator(later):
    played, experience = later.phases["rollout"], later.phases["estimate"][0]
    realism = later.phases["judge"][0].terms[ADVERSARIAL].sum(axis=1)
    dropped = np.argsort(realism)[:4]
    kept = np.isin(np.arange(16), dropped, invert=True)[:, None] * played.mask
    np.testing.assert_array_equal(experience.trajectory.mask, kept)
    assert np.all(np.asarray(experience.advantages)[dropped] == 0)
    counted = np.asarray(experience.advantages)[kept > 0]
    assert counted.mean() == pytest.approx(0, abs=1e-5) and counted.std() == pytest.approx(1, abs=1e-4)
    assert float(later.metrics[0]["discriminator/accepted"]) == 0.75
    np.testing.assert_array_equal(later.after_one.replay.generated[0][:, FRAMES:], played.actions)


def test_of_a_discriminator_on_a_frozen_encoder_only_the_head_learns(without_anchor, networks):
    run, played = without_anchor, without_anchor.phases["rollout"]
    first = jax.tree.map(lambda x: x[0], run.frozen.rewards["contrastive"])
    unit = networks.rewards["contrastive"].method(first, "chord_tower", part(jnp.asarray(played.actions)))
    logits = np.sqrt(16) * np.asarray(unit) @ run.before.discriminator["head"]["kernel"]
    logits = logits + run.before.discriminator["head"]["bias"]
    realism = judged(run)[0].terms[ADVERSARIAL].sum(axis=1)
    np.testing.assert_allclose(realism, logits[:, 1] - logits[:, 0], atol=1e-4)
    for name, params in run.before.discriminator.items():
        assert same(params, run.after.discriminator[name]) == (name != "head")


def phases_of(spec: Spec, state, frozen) -> list[str]:
    """The program of each phase."""
    return [
        phase.lower().as_text()
        for phase in cost.traced(learner.iteration, spec, state, frozen, songs(spec, 0)).values()
    ]


def test_traced_settings_are_in_no_program(networks, vocabulary, algorithm_config):
    """All of them changed at once: other hyperparameters, the same programs."""
    rewards = RewardsConfig(diversity=1.0, entropy=1.0, long_note=1.0, ensemble="mean_minus_std")
    one = dataclasses.replace(algorithm_config, group_size=2, rewards=rewards)
    data = to_dict(one)
    weights = [f"rewards.{name}" for name in rewards.weights()]
    for path in (*TRACED, *weights):
        *parents, name = path.split(".")
        table = data
        for parent in parents:
            table = table[parent]
        table[name] = table[name] * 1.5 + 0.01
    other = from_dict(AlgorithmConfig, data)
    assert program(one) == program(other) != program(dataclasses.replace(other, group_size=4))
    hyper = [jax.tree.leaves(hyperparameters(config)) for config in (one, other)]
    assert len(hyper[0]) == len(TRACED) + len(weights)
    assert all(a != b for a, b in zip(*hyper, strict=True))
    texts = []
    for config in (one, other):
        spec = Spec(networks, config, Accompaniment(vocabulary))
        policy = jax.eval_shape(networks.policy.init, jax.random.key(0))
        state = jax.eval_shape(lambda spec=spec, policy=policy: init_state(spec, zeros(policy), 0, FRAMES))
        frozen = jax.eval_shape(
            lambda: Frozen(
                networks.anchor.init(jax.random.key(0)),
                {"contrastive": jax.vmap(networks.rewards["contrastive"].init)(jax.random.split(jax.random.key(0)))},
            )
        )
        texts.append(phases_of(spec, state, frozen))
    assert texts[0] == texts[1]


def zeros(shapes):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def test_weights_of_kinds_multiply_those_of_their_terms_and_change_no_program():
    plain = AlgorithmConfig(group_size=2, rewards=RewardsConfig(contrastive=3.0, diversity=5.0, silence=0.5))
    kinds = dataclasses.replace(plain.rewards, coherence_weight=2.0, rules_weight=0.0)
    found = {
        name: float(x) for name, x in hyperparameters(dataclasses.replace(plain, rewards=kinds)).reward_weights.items()
    }
    before = {name: float(x) for name, x in hyperparameters(plain).reward_weights.items()}
    doubled = {name: 2 * before[name] for name in RewardsConfig.MODELS}
    rules = dict.fromkeys(("early_stop", "invalid", "silence", "long_note", "repetition"), 0.0)
    assert found == before | doubled | rules and found["contrastive"] == 6 and found["diversity"] == 5
    assert program(dataclasses.replace(plain, rewards=kinds)) == program(plain)


@pytest.mark.parametrize("name", ["diversity", "entropy", "contrastive", "rhythm_discriminative"])
def test_a_term_of_weight_zero_may_be_left_out(name):
    config = AlgorithmConfig(group_size=2)
    on, off = (dataclasses.replace(config, rewards=dataclasses.replace(config.rewards, **{name: w})) for w in (1.0, 0))
    assert program(on) != program(off)


def test_options_that_are_off_add_nothing_to_the_state():
    """States of runs from before the options can be restored."""
    published = {
        *("contrastive", "discriminative", "rhythm_contrastive", "rhythm_discriminative"),
        *("early_stop", "invalid", "silence", "long_note", "repetition", ADVERSARIAL),
    }
    others = ("kl_coef", "entropy_coef", "gate_threshold", *(f"{n}_learning_rate" for n in ("policy", "critic")))
    expected = {f".reward_weights['{name}']" for name in published} | {f".{name}" for name in others}
    found = jax.tree_util.tree_leaves_with_path(hyperparameters(AlgorithmConfig()), is_leaf=lambda x: x is None)
    paths = {jax.tree_util.keystr(path) for path, _ in found}  # Orbax counts None as a leaf
    assert paths == expected | {".discriminator_learning_rate"}


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("algorithm.group_size", ["algorithm.group_size=7"]),
        ("algorithm.group_size", ["algorithm.group_size=0"]),
        ("algorithm.group_size", ["algorithm.advantages=grpo"]),
        ("algorithm.group_size", ["algorithm.rewards.diversity=1"]),
        ("algorithm.advantages", ["algorithm.advantages=ppo"]),
        ("algorithm.anchor", ["algorithm.anchor=mle"]),
        (
            "algorithm.discriminator.conditional",
            ["algorithm.discriminator.conditional=true", "algorithm.discriminator.encoder=frozen"],
        ),
        ("models.discriminator.dim", ["models.discriminator.dim=8", "algorithm.discriminator.encoder=frozen"]),
        (
            "algorithm.rewards.contrastive",
            ["algorithm.discriminator.encoder=frozen", "algorithm.rewards.contrastive=0"],
        ),
        (
            "algorithm.advantages",
            ["algorithm.discriminator.screened=0.5", "algorithm.advantages=rloo", "algorithm.group_size=8"],
        ),
        ("algorithm.discriminator.conditional", ["algorithm.discriminator.repaired=0.5"]),
        (
            "algorithm.advantages",
            ["algorithm.critic_warmup_steps=3", "algorithm.advantages=grpo", "algorithm.group_size=8"],
        ),
        ("algorithm.critic_warmup_steps", ["algorithm.critic_warmup_steps=1000"]),
        ("algorithm.adversarial_weight", ["algorithm.adversarial_target=0.8", "algorithm.adversarial_weight=0"]),
        ("algorithm.discount", ["algorithm.advantages=rloo", "algorithm.group_size=8", "algorithm.discount=0.9"]),
        (
            "algorithm.rewards.contrastive",
            ["algorithm.rewards.diversity=1", "algorithm.group_size=8", "algorithm.rewards.contrastive=0"],
        ),
    ],
)
def test_settings_that_do_not_go_together(path, others):
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        override(Experiment(), others)
