"""Discriminator loss, reward forms, gate and replay (docs/method.md §5.4, §7)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gapt_jax.algorithm.adversary import (
    ACCURACIES,
    LEAST_WEIGHT,
    LOSSES,
    MOST_WEIGHT,
    REWARD_FORMS,
    Replay,
    accepted,
    discriminator_accuracy,
    discriminator_gate,
    discriminator_input,
    discriminator_loss,
    next_weight,
    relativistic_accuracy,
    relativistic_loss,
    repaired,
    shown,
    shown_tokens,
)
from gapt_jax.config import AlgorithmConfig, ConfigError, DiscriminatorConfig
from gapt_jax.models.networks import pair
from gapt_jax.overrides import override
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.vocabulary import BOS, EOS, PAD

# z = -2, 0, 2: D = 1 / (1 + e^-z) = .119203, .5, .880797
FORMS = {
    "neg_log_one_minus": ((0.126928, 0.693147, 2.126928), (0, np.inf)),  # log(1 + e^z)
    "log": ((-2.126928, -0.693147, -0.126928), (-np.inf, 0)),
    "logit": ((-2.0, 0.0, 2.0), (-np.inf, np.inf)),
    "probability": ((0.119203, 0.5, 0.880797), (0, 1)),
    "sigmoid_shaped": ((-0.761594, 0.0, 0.761594), (-1, 1)),  # 2 D - 1
    "clipped": ((0.126928, 0.693147, 2.0), (0, 2)),
}
CONFIG = DiscriminatorConfig()


@pytest.mark.parametrize("form", FORMS)
def test_reward_forms(form):
    values, (low, high) = FORMS[form]
    np.testing.assert_allclose(REWARD_FORMS[form](jnp.array([-2.0, 0.0, 2.0])), values, atol=1e-6)
    far = np.asarray(REWARD_FORMS[form](jnp.linspace(-200, 200, 401)))
    assert np.all(np.isfinite(far)) and np.all((far >= low) & (far <= high)) and np.all(np.diff(far) >= 0)
    for bound, reached in ((low, far[0]), (high, far[-1])):  # the range is as tight as stated
        assert abs(reached - bound) < 1e-6 if np.isfinite(bound) else abs(reached) >= 199


def test_every_reward_form_can_be_configured():
    assert set(FORMS) == set(REWARD_FORMS)
    for form in REWARD_FORMS:
        override(Experiment(), [f"algorithm.discriminator.reward_form={form}"])


def test_float32_reward_where_bfloat16_jumped_to_27():
    # docs/method.md §9.1: a logit gap of 7 gives 27.6 in bfloat16; -log(1 - D) = log(1 + e^7) = 7.000911
    assert float(REWARD_FORMS["neg_log_one_minus"](jnp.float32(7))) == pytest.approx(7.000911, rel=1e-6)


def test_input_hides_the_end():
    chords = jnp.array([[300, EOS, 301, PAD]])
    assert discriminator_input(chords).tolist() == [[BOS, 300, PAD, 301, PAD]]


def loss(real, generated, smoothing, is_song=None):
    counted = jnp.ones_like(real) if is_song is None else is_song
    return float(discriminator_loss(real, generated, counted, smoothing).value())


def test_rows_that_fill_up_do_not_count_in_the_loss():
    real, generated = jnp.array([2.0, 5.0]), jnp.array([-2.0, 7.0])
    assert loss(real, generated, 0.0, jnp.array([1.0, 0.0])) == pytest.approx(0.126928, rel=1e-5)


def test_smoothed_loss_is_the_two_class_cross_entropy_with_targets_095_005():
    real, generated = jnp.array([2.0, -1.0, 0.3]), jnp.array([1.5, -3.0, 0.0])
    logits = jnp.stack([jnp.zeros(6), jnp.concatenate([real, generated])], axis=1)  # class 0 = generated, 1 = data
    targets = jnp.array([[0.05, 0.95]] * 3 + [[0.95, 0.05]] * 3)
    expected = optax.softmax_cross_entropy(logits, targets).mean()
    assert loss(real, generated, 0.1) == pytest.approx(float(expected), rel=1e-6)
    # by hand, z = 0 on both sides: log 2 whatever the smoothing; z = 2 and -2: .95 log(1 + e^-2) + .05 log(1 + e^2)
    assert loss(jnp.zeros(2), jnp.zeros(2), 0.1) == pytest.approx(np.log(2), rel=1e-6)
    by_hand = 0.95 * 0.126928 + 0.05 * 2.126928
    assert loss(jnp.array([2.0]), jnp.array([-2.0]), 0.1) == pytest.approx(by_hand, rel=1e-5)
    assert loss(jnp.array([2.0]), jnp.array([-2.0]), 0.0) == pytest.approx(0.126928, rel=1e-5)


def test_accuracy():
    assert float(discriminator_accuracy(jnp.array([1.0, -1.0]), jnp.array([-1.0, -2.0]), jnp.ones(2))) == 0.75


def test_relativistic_loss_and_accuracy_compare_the_two_of_a_pair():
    real, generated = jnp.array([3.0, 0.0]), jnp.array([1.0, 2.0])  # margins 2 and -2
    by_hand = {
        0.0: (0.126928 + 2.126928) / 2,
        0.1: (0.95 * 0.126928 + 0.05 * 2.126928 + 0.95 * 2.126928 + 0.05 * 0.126928) / 2,
    }
    for smoothing, expected in by_hand.items():
        value = relativistic_loss(real, generated, jnp.ones(2), smoothing).value()
        assert float(value) == pytest.approx(expected, rel=1e-5)
        shifted = relativistic_loss(real + 50, generated + 50, jnp.ones(2), smoothing).value()
        assert float(shifted) == pytest.approx(expected, rel=1e-5)  # only differences count
    assert float(relativistic_loss(real, generated, jnp.array([1.0, 0]), 0.0).value()) == pytest.approx(
        0.126928, rel=1e-5
    )
    assert float(relativistic_accuracy(real, generated, jnp.ones(2))) == 0.5
    assert float(relativistic_accuracy(real + 50, generated, jnp.ones(2))) == 1.0
    assert set(LOSSES) == set(ACCURACIES)


def test_what_the_discriminator_sees():
    melody, chords = jnp.array([[140, 141, PAD]]), jnp.array([[300, 301, PAD]])
    np.testing.assert_array_equal(shown(CONFIG, melody, chords), chords)
    np.testing.assert_array_equal(shown_tokens(CONFIG, chords), discriminator_input(chords))
    both = DiscriminatorConfig(conditional=True)
    np.testing.assert_array_equal(shown(both, melody, chords), [[140, 141, PAD, 300, 301, PAD]])
    np.testing.assert_array_equal(shown_tokens(both, shown(both, melody, chords)), pair(melody, chords))


@pytest.mark.parametrize(
    "settings",
    [
        ("only_valid=true", "reward_form=log"),  # 0 would be the best that can be paid
        ("loss=relativistic",),
        ("loss=relativistic", "reward_form=logit"),  # a threshold for logits without a zero
        ("gate=sometimes",),
        ("loss=hinge",),
    ],
)
def test_settings_that_do_not_go_together(settings):
    with pytest.raises(ConfigError, match=r"algorithm\.discriminator"):
        override(Experiment(), [f"algorithm.discriminator.{setting}" for setting in settings])


def openings(rewards, config=CONFIG):
    """Steps (from 1) at which the gate is open if step n earns rewards[n - 1]."""
    gate = jax.jit(lambda recent, step: discriminator_gate(recent, step, jnp.float32(config.gate_threshold), config))
    recent, opened = np.full(config.gate_window, np.nan, np.float32), []
    for step, reward in enumerate(rewards, start=1):
        if gate(recent, step):
            opened.append(step)
        recent = np.append(np.float32(reward), recent[:-1])
    return opened


def test_published_gate_opens_40_times_if_never_fooled():
    assert openings([1.0] * 1000) == [1, *range(5, 200, 5)]  # a mean of 1.0 is not above the threshold
    assert len(openings([0.5] * 1000)) == 40


def test_gate_opens_whenever_the_last_three_steps_fooled_it():
    # means before steps 301.. : (1 + 1 + 1.3) / 3 = 1.1 while the one high reward is within the last 3 completed steps
    rewards = [1.0] * 1000
    rewards[299] = 1.3
    assert [n for n in openings(rewards) if n > 199] == [301, 302, 303]
    # it also works in phase 1, from the first completed steps on: step 1 is scheduled, 2 and 3 see high means
    assert openings([2.0, 2.0, -9.0, 0, 0, 0]) == [1, 2, 3, 5]


def test_other_gates():
    fooled = [2.0] * 12  # above the threshold all along
    gates = {
        gate: openings(fooled, DiscriminatorConfig(gate=gate, gate_warmup_steps=8, gate_period=4))
        for gate in ("two_phase", "frozen", "fixed_period", "every_step")
    }
    assert gates == {
        "two_phase": [*range(1, 13)],
        "frozen": [*range(1, 8)],  # as published in phase 1, then never
        "fixed_period": [1, 4, 8, 12],
        "every_step": [*range(1, 13)],
    }
    never = [0.0] * 12
    frozen = DiscriminatorConfig(gate="frozen", gate_warmup_steps=8, gate_period=4)
    assert openings(never, frozen) == [1, 4]
    assert openings(never, DiscriminatorConfig(gate="every_step")) == [*range(1, 13)]


def test_gate_with_an_incomplete_window():
    threshold = jnp.float32(1.0)
    is_open = lambda recent, step: bool(discriminator_gate(jnp.array(recent), jnp.int32(step), threshold, CONFIG))  # noqa: E731
    nan = np.nan
    assert not is_open([nan, nan, nan], 2) and is_open([nan, nan, nan], 1)
    assert is_open([1.5, nan, nan], 2) and not is_open([1.0, nan, nan], 2)
    assert is_open([1.5, 0.6, nan], 2) and not is_open([1.5, 0.4, nan], 2)  # means 1.05 and .95
    assert not is_open([1.0, 1.0, 1.0], 777) and is_open([1.001, 1.0, 1.0], 777)
    assert not is_open([0.0, 0.0, 0.0], 200) and is_open([0.0, 0.0, 0.0], 195)


def test_replay_keeps_the_newest_first():
    replay = Replay(jnp.zeros((2, 1, 2), jnp.int32), jnp.zeros((2, 1, 2), jnp.int32), jnp.int32(0))
    for n in (1, 2, 3):
        replay = replay.push(jnp.full((1, 2), n), jnp.full((1, 2), -n))
        assert int(replay.filled) == min(n, 2)
    assert replay.generated[:, 0, 0].tolist() == [3, 2] and replay.real[:, 0, 0].tolist() == [-3, -2]


@pytest.mark.parametrize("filled", [1, 2, 3])
def test_replay_order_covers_the_filled_rows_before_any_other(filled):
    slots, rows = 3, 4
    replay = Replay(jnp.zeros((slots, rows, 1), jnp.int32), jnp.zeros((slots, rows, 1), jnp.int32), jnp.int32(filled))
    orders = np.asarray(jax.vmap(replay.draw_order)(jax.random.split(jax.random.key(0), 50)))
    for order in orders:
        assert sorted(order[: filled * rows]) == list(range(filled * rows))
    assert len({tuple(order) for order in orders}) > 40  # random


def test_lambda_grows_where_the_discriminator_is_better_than_its_target():
    config = AlgorithmConfig(adversarial_target=0.75, adversarial_target_rate=0.4)
    accuracies, weights = jnp.array([1.0, 0.75, 0.5]), jnp.full(3, 2.0)
    expected = [2 * np.exp(0.1), 2, 2 * np.exp(-0.1)]
    np.testing.assert_allclose(next_weight(weights, accuracies, config), expected, rtol=1e-6)
    far = next_weight(jnp.array([9.9, 0.0101]), jnp.array([1.0, 0.0]), config)
    np.testing.assert_allclose(far, [MOST_WEIGHT, LEAST_WEIGHT])


def test_repaired_negatives_are_data_whose_parts_do_not_belong_together():
    context = np.array([[5, 5, 5, 5], [6, 6, 6, PAD], [7, 7, PAD, PAD]])
    actions = 10 * context
    real, generated = np.concatenate([context, actions], axis=1), np.full((3, 8), 99)
    shown_real, shown_false = map(np.asarray, repaired(jax.random.key(0), real, generated, 1.0))
    partners = []
    for row, (true, false) in enumerate(zip(shown_real, shown_false, strict=True)):
        partner = int(false[4]) // 10 - 5
        partners.append(partner)
        length = 4 - max(row, partner)  # both end with the shorter part
        np.testing.assert_array_equal(
            false, [5 + row] * length + [PAD] * (4 - length) + [50 + 10 * partner] * length + [PAD] * (4 - length)
        )
        np.testing.assert_array_equal(
            true, [5 + row] * length + [PAD] * (4 - length) + [50 + 10 * row] * length + [PAD] * (4 - length)
        )
    assert sorted(partners) == [0, 1, 2] and all(row != partner for row, partner in enumerate(partners))
    for left, right in zip(repaired(jax.random.key(0), real, generated, 0.0), (real, generated), strict=True):
        np.testing.assert_array_equal(left, right)
    many = np.tile(real, (200, 1)), np.full((600, 8), 99)
    _, half = repaired(jax.random.key(1), *many, 0.5)
    assert 0.4 < np.mean(np.asarray(half)[:, 0] == 99) < 0.6


def test_screening_drops_the_songs_of_least_realism():
    realism, is_song = jnp.array([3.0, -1, 2, -5, 0]), jnp.array([1.0, 1, 1, 0, 1])  # four songs
    for share, expected in ((0.0, [1, 1, 1, 0, 1]), (0.5, [1, 0, 1, 0, 0]), (0.49, [1, 0, 1, 0, 1])):
        np.testing.assert_array_equal(accepted(realism, is_song, share), expected)
    np.testing.assert_array_equal(accepted(jnp.zeros(4), jnp.ones(4), 0.5), [0, 0, 1, 1])
