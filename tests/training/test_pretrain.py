"""Supervised losses by hand, negatives, members and resumption (docs/method.md §3)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax import masked, models
from gapt_jax.config import FitConfig, ModelsConfig, OptimizerConfig, RuntimeConfig, TransformerConfig
from gapt_jax.runtime.checkpoint import checkpoints
from gapt_jax.runtime.console import Console
from gapt_jax.training import pretrain
from gapt_jax.types import Batch
from gapt_jax.vocabulary import BOS, CHORD_HOLD, EOS, NOTE_ONSET, PAD, SILENCE, Vocabulary

VOCABULARY = Vocabulary.from_qualities([(0, 4, 7)])
TABLES, V = VOCABULARY.tables, VOCABULARY.size
FRAMES = 8
ONSET, HOLD = 4, 5


def songs(rows: int, seed: int = 0, shortest: int = 3) -> Batch:
    rng = np.random.default_rng(seed)
    melody = rng.integers(NOTE_ONSET, NOTE_ONSET + 128, (rows, FRAMES))
    chords = rng.integers(CHORD_HOLD, V, (rows, FRAMES))
    ended = np.arange(FRAMES) >= rng.integers(shortest, FRAMES + 1, (rows, 1))
    melody[ended] = chords[ended] = PAD
    return Batch(*(x.astype(np.int32) for x in (melody, chords, np.arange(rows))))


class Spy:
    """Stands for every network: keeps what it is given, answers what it is told to."""

    def __init__(self, answer):
        self.answer, self.inputs = answer, None
        self.policy = self.anchor = self

    def reward(self, kind):
        return self

    def __call__(self, params, *tokens_and_key):
        self.inputs = [np.asarray(x) for x in tokens_and_key[:-1]]
        return self.answer(*self.inputs)


KEY = jax.random.key(0)


def test_a_uniform_model_loses_log_v():
    targets = jnp.array([[5, 6, PAD], [7, EOS, PAD]])
    loss, metrics = pretrain.next_token_loss(jnp.zeros((2, 3, V)), targets)
    assert float(loss.value()) == pytest.approx(np.log(V), rel=1e-6)
    assert float(metrics["accuracy"].value()) == 0.0


def test_next_token_loss_by_hand():
    # probabilities of the targets: 1/2, 1/4 and, PAD, one that does not count; mean of log 2 and log 4
    logits = jnp.log(jnp.array([[[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [1e-9, 0.5, 0.5]]]))
    loss, metrics = pretrain.next_token_loss(logits, jnp.array([[1, 2, PAD]]))
    assert float(loss.value()) == pytest.approx(1.5 * np.log(2), rel=1e-6)
    assert float(metrics["accuracy"].value()) == 0.5
    # over tokens, not over songs: one song of 3 targets at log 2 and one of 1 at log 4
    p = jnp.log(jnp.array([[[0.2, 0.5, 0.3]] * 3, [[0.25, 0.25, 0.5]] * 3]))
    loss, _ = pretrain.next_token_loss(p, jnp.array([[1, 1, 1], [1, PAD, PAD]]))
    assert float(loss.value()) == pytest.approx((3 * np.log(2) + np.log(4)) / 4, rel=1e-6)


def test_policy_learns_both_parts_and_the_end():
    melody, chords = jnp.array([[140, 141, PAD]]), jnp.array([[265, 266, PAD]])
    stream = [BOS, 265, 140, 266, 141, EOS, PAD, PAD]
    spy = Spy(lambda tokens: 50.0 * jax.nn.one_hot(jnp.array([stream[1:]]), V))
    loss, metrics = pretrain.policy_loss(spy)(None, Batch(melody, chords, jnp.arange(1)), KEY, None)
    assert spy.inputs[0].tolist() == [stream[:-1]]
    assert float(loss.value()) == pytest.approx(0.0, abs=1e-6) and float(metrics["accuracy"].value()) == 1.0
    # each of the five targets counts one fifth: spoil the last, EOS
    spy.answer = lambda tokens: (50.0 * jax.nn.one_hot(jnp.array([stream[1:]]), V)).at[0, 4].set(0.0)
    loss, _ = pretrain.policy_loss(spy)(None, Batch(melody, chords, jnp.arange(1)), KEY, None)
    assert float(loss.value()) == pytest.approx(np.log(V) / 5, rel=1e-5)


def test_a_full_song_ends_with_eos_too():
    full = Batch(jnp.array([[140, 141]]), jnp.array([[265, 266]]), jnp.arange(1))
    spy = Spy(lambda tokens: 50.0 * jax.nn.one_hot(jnp.array([[265, 140, 266, 141, EOS]]), V))
    loss, _ = pretrain.policy_loss(spy)(None, full, KEY, None)
    assert float(loss.value()) == pytest.approx(0.0, abs=1e-6)


def test_anchor_learns_the_chords_given_the_whole_melody():
    melody, chords = jnp.array([[140, 141, PAD]]), jnp.array([[265, 266, PAD]])
    spy = Spy(lambda source, target: 50.0 * jax.nn.one_hot(jnp.array([[265, 266, EOS, PAD]]), V))
    loss, metrics = pretrain.anchor_loss(spy)(None, Batch(melody, chords, jnp.arange(1)), KEY, None)
    assert spy.inputs[0].tolist() == [[BOS, 140, 141, EOS, PAD]]
    assert spy.inputs[1].tolist() == [[BOS, 265, 266, EOS]]
    assert float(loss.value()) == pytest.approx(0.0, abs=1e-6) and float(metrics["accuracy"].value()) == 1.0


def test_contrastive_loss_by_hand():
    # similarities [[2, 0], [2 * .6, 2 * .8]]: rows -log softmax 2 in (2, 0), 1.6 in (1.2, 1.6);
    # columns 2 in (2, 1.2), 1.6 in (0, 1.6)
    embeddings = jnp.eye(2), jnp.array([[1.0, 0.0], [0.6, 0.8]])
    spy = Spy(lambda melody, chords: (embeddings[1], embeddings[0], jnp.float32(2.0)))
    loss, metrics = pretrain.contrastive_loss(spy, "contrastive", TABLES)(None, songs(2), KEY, None)
    minus_log = lambda a, b: np.log1p(np.exp(b - a))  # noqa: E731
    expected = (minus_log(2, 0) + minus_log(1.6, 1.2) + minus_log(2, 1.2) + minus_log(1.6, 0)) / 4
    assert float(loss.value()) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["accuracy"].value()) == 1.0
    assert [x.shape for x in spy.inputs] == [(2, FRAMES + 2)] * 2


@pytest.mark.parametrize("size", [2, 3, 4, 7, 16, 50])
def test_a_derangement_has_no_fixed_point(size):
    keys = jax.random.split(KEY, 200)
    drawn = np.asarray(jax.jit(jax.vmap(pretrain.derangement, (0, None)), static_argnums=1)(keys, size))
    assert np.all(np.sort(drawn, axis=1) == np.arange(size))
    assert np.all(drawn != np.arange(size))
    partners = [set(drawn[:, row]) for row in range(min(size, 7))]
    assert all(len(seen) == size - 1 for seen in partners) if size <= 16 else True  # every other row occurs


def delayed(part: list[int], delay: int) -> list[int]:
    """The shift of docs/method.md §3.6, token by token, at the part's own length."""
    length, first = len([x for x in part if x != PAD]), part[0]
    gap = [SILENCE] * delay if first == SILENCE else [ONSET] + [HOLD] * (delay - 1)
    body = list(part[:length])
    if first == ONSET:
        body[0] = HOLD  # HOLD through the old onset position
    return (gap + body)[:length] + [PAD] * (len(part) - length)


def test_delays_by_hand():
    assert delayed([4, 5, 5, 3, 4, 5], 2) == [4, 5, 5, 5, 5, 3]
    assert delayed([5, 5, 4, 3, PAD], 1) == [4, 5, 5, 4, PAD]
    assert delayed([3, 4, 5, PAD, PAD], 3) == [3, 3, 3, PAD, PAD]
    assert delayed([4, 4, 5], 1) == [4, 5, 4]


def test_one_part_is_shifted_and_stays_well_formed():
    rows = 400
    openings = [
        [4, 5, 5, 3, 4, 5, 5, 5],
        [5, 5, 4, 3, 4, 5, 3, 4],
        [3, 4, 5, 4, 5, 3, 4, PAD],
        [4, 4, 3, PAD] + [PAD] * 4,
    ]
    melody = np.array([openings[n % 4] for n in range(rows)])
    chords = np.array([openings[(n // 4) % 4] for n in range(rows)])
    moved = [np.asarray(x).tolist() for x in pretrain.shift_one_part(KEY, jnp.asarray(melody), jnp.asarray(chords))]
    seen = dict.fromkeys([(part, delay) for part in ("melody", "chords") for delay in (1, 2, 3)], 0)
    for m, c, new_m, new_c in zip(melody.tolist(), chords.tolist(), *moved, strict=True):
        outcomes = {("melody", d): (delayed(m, d), c) for d in (1, 2, 3)}
        outcomes |= {("chords", d): (m, delayed(c, d)) for d in (1, 2, 3)}
        fitting = [name for name, outcome in outcomes.items() if outcome == (new_m, new_c)]
        assert fitting, (m, c, new_m, new_c)
        if len(fitting) == 1:
            seen[fitting[0]] += 1
    assert min(seen.values()) > 20  # all six happen


def classes(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[rows, melody or chords] lengths of genuine and false pairs: entries that are not PAD, of each part."""
    lengths = np.stack(
        [(half != PAD).sum(axis=1) for half in (tokens[:, : FRAMES + 2], tokens[:, FRAMES + 3 :])], axis=1
    )
    return np.split(lengths, 2)


@pytest.mark.parametrize("kind", ["discriminative", "rhythm_discriminative"])
def test_length_tells_nothing_about_the_class(kind):
    batch = songs(32)
    spy = Spy(lambda tokens: jnp.zeros(len(tokens)))
    for seed in range(5):
        loss, _ = pretrain.discriminative_loss(spy, kind, TABLES)(None, batch, jax.random.key(seed), None)
        assert float(loss.value()) == pytest.approx(np.log(2), rel=1e-6)
        genuine, false = classes(spy.inputs[0])
        np.testing.assert_array_equal(genuine, false)
        np.testing.assert_array_equal(genuine[:, 0], genuine[:, 1])
        assert spy.inputs[0].shape == (64, 2 * FRAMES + 5)
        assert np.all(spy.inputs[0][:, FRAMES + 2] == BOS)
    assert len(np.unique(genuine)) > 2  # the songs differ in length


def test_genuine_pairs_are_genuine_and_false_ones_are_not():
    batch = songs(32, shortest=FRAMES)
    spy = Spy(lambda tokens: jnp.where(jnp.arange(len(tokens)) < 32, 1.0, -3.0))
    loss, metrics = pretrain.discriminative_loss(spy, "discriminative", TABLES)(None, batch, KEY, None)
    # log(1 + e^-1) = .313262 on genuine ones, log(1 + e^-3) = .048587 on false ones
    assert float(loss.value()) == pytest.approx((0.313262 + 0.048587) / 2, rel=1e-5)
    assert float(metrics["accuracy"].value()) == 1.0
    melody, chords = spy.inputs[0][:, 1 : FRAMES + 1], spy.inputs[0][:, FRAMES + 4 : 2 * FRAMES + 4]
    np.testing.assert_array_equal(melody[:32], batch.context)
    np.testing.assert_array_equal(chords[:32], batch.actions)
    np.testing.assert_array_equal(chords[32:], batch.actions)
    assert not np.any(np.all(melody[32:] == batch.context, axis=1))
    assert {tuple(x) for x in melody[32:]} == {tuple(x) for x in batch.context}


def test_half_of_the_false_rhythms_are_shifts():
    rng = np.random.default_rng(0)
    rows = 256
    batch = Batch(
        *(rng.integers(low, low + 24, (rows, FRAMES)).astype(np.int32) for low in (NOTE_ONSET - 12, 260)),
        jnp.arange(rows),
    )
    spy = Spy(lambda tokens: jnp.zeros(len(tokens)))
    pretrain.discriminative_loss(spy, "rhythm_discriminative", TABLES)(None, batch, KEY, None)
    tokens = spy.inputs[0]
    assert tokens.max() <= HOLD
    melody, chords = tokens[:, 1 : FRAMES + 1], tokens[:, FRAMES + 4 : 2 * FRAMES + 4]
    rhythm = TABLES.rhythm[batch.context].tolist(), TABLES.rhythm[batch.actions].tolist()
    shifts = 0
    for m, c, false_m, false_c in zip(*rhythm, melody[rows:].tolist(), chords[rows:].tolist(), strict=True):
        outcomes = [(delayed(m, d), c) for d in (1, 2, 3)] + [(m, delayed(c, d)) for d in (1, 2, 3)]
        shifts += (false_m, false_c) in outcomes
        assert (false_m, false_c) in outcomes or false_c == c
    assert abs(shifts - rows / 2) < 4 * np.sqrt(rows / 4)  # 4 standard deviations of a fair coin


def tiny(dropout: float = 0.1) -> models.Models:
    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2, dropout=dropout)
    return models.build(ModelsConfig(stack, stack, stack, stack), V)


NETWORKS = tiny()
FAST = FitConfig(steps=40, batch_size=4, optimizer=OptimizerConfig(learning_rate=1e-2))
POLICY = pretrain.Fit(pretrain.policy_loss(NETWORKS), FAST)


def fit(stage, state, numbers):
    losses = []
    for number in numbers:
        state, metrics = pretrain.fit_step(stage, state, songs(stage.rows, seed=number))
        losses.append(float(metrics["loss"]))
    return state, losses


def assert_same(a, b):
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def test_a_few_steps_lower_the_loss():
    state = pretrain.init_fit(POLICY, NETWORKS.policy.init, 0)
    before = float(pretrain.validate(POLICY, state.params, songs(4))["valid/loss"])
    state, losses = fit(POLICY, state, [0] * 40)
    after = float(pretrain.validate(POLICY, state.params, songs(4))["valid/loss"])
    assert before == pytest.approx(np.log(V), abs=1.0)
    assert after < 0.6 * before and losses[-1] < 0.7 * losses[0]
    assert int(state.step) == int(state.optimizer.updates) == 40


def test_a_resumed_fit_is_bit_equal(tmp_path):
    fresh = lambda seed=3: pretrain.init_fit(POLICY, NETWORKS.policy.init, seed)  # noqa: E731
    whole, whole_losses = fit(POLICY, fresh(), range(6))
    state, first = fit(POLICY, fresh(), range(3))
    with checkpoints(tmp_path, RuntimeConfig(keep_checkpoints=1), Console()) as saved:
        saved.save(3, state, {})
        fit(POLICY, state, [3])  # donates what is being saved
    with checkpoints(tmp_path, RuntimeConfig(keep_checkpoints=1), Console()) as saved:
        _, restored = saved.restore(fresh(seed=4), {})
    resumed, rest = fit(POLICY, restored, range(3, 6))
    assert first + rest == whole_losses
    assert_same(whole, resumed)


def noisy_regression(params, batch, key, dropout_keys):
    """A loss that compiles fast and uses all that a stage gives it: songs, draws and dropout."""
    noise = jax.random.normal(key, batch.index.shape) + jax.vmap(jax.random.bernoulli)(dropout_keys)
    error = batch.context / 100 @ params["weights"] - noise
    every = jnp.ones_like(error)
    return masked.ratio(jnp.square(error), every), {"accuracy": masked.ratio((error > 0).astype(jnp.float32), every)}


def initial_weights(key):
    return {"weights": jax.random.normal(key, (FRAMES,))}


MEMBERS = {n: pretrain.Fit(noisy_regression, FAST, n) for n in (1, 2)}


def test_members_differ_and_do_not_disturb_each_other():
    """Member 0 of two is the only member of one, if it sees the same songs."""
    two, one = (pretrain.init_fit(MEMBERS[n], initial_weights, 0) for n in (2, 1))
    assert_same(jax.tree.map(lambda x: x[:1], two.params), one.params)
    assert MEMBERS[2].rows == 8
    for number in range(3):
        rows = songs(8, seed=number)
        two, _ = pretrain.fit_step(MEMBERS[2], two, rows)
        one, _ = pretrain.fit_step(MEMBERS[1], one, jax.tree.map(lambda x: x[:4], rows))
    both = np.asarray(two.params["weights"])
    np.testing.assert_allclose(both[:1], one.params["weights"], atol=1e-6)
    assert np.all(both[0] != both[1])
    assert two.optimizer.updates.tolist() == [3, 3] and int(two.step) == 3


def test_members_draw_different_negatives_and_dropout():
    """Two members with equal weights and equal songs part at the first step."""
    state = pretrain.init_fit(MEMBERS[2], initial_weights, 0)
    equal = {"weights": jnp.broadcast_to(state.params["weights"][0], (2, FRAMES)) + 0.0}
    rows = jax.tree.map(lambda x: np.concatenate([x[:4], x[:4]]), songs(8))
    state, _ = pretrain.fit_step(MEMBERS[2], dataclasses.replace(state, params=equal), rows)
    moments = jax.tree.leaves(state.optimizer.moments)
    assert any(np.any(np.asarray(x)[0] != np.asarray(x)[1]) for x in moments)


def test_a_member_that_fails_does_not_stop_the_other():
    state = pretrain.init_fit(MEMBERS[2], initial_weights, 0)
    before = {"weights": state.params["weights"].at[1].set(jnp.nan)}
    state, metrics = pretrain.fit_step(
        MEMBERS[2], dataclasses.replace(state, params=jax.tree.map(jnp.copy, before)), songs(8)
    )
    assert float(metrics["skipped"]) == 0.5
    assert state.optimizer.updates.tolist() == [1, 0]
    after = np.asarray(state.params["weights"])
    assert np.all(np.isfinite(after[0])) and np.all(after[0] != before["weights"][0]) and np.all(np.isnan(after[1]))


def test_validation_draws_the_same_negatives_and_no_dropout():
    stage = pretrain.Fit(pretrain.discriminative_loss(NETWORKS, "rhythm_discriminative", TABLES), FAST)
    params = NETWORKS.rhythm_discriminative.init(KEY)
    first, second = (pretrain.validate(stage, params, songs(8)) for _ in range(2))
    assert first == second and set(first) == {"valid/loss", "valid/accuracy"}
