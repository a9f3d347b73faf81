"""What the reward models read, and how excerpts begin."""

import jax
import numpy as np

from gapt_jax.task import PAD
from gapt_jax.tasks.turn_taking import tokens
from gapt_jax.tasks.turn_taking.domain import Conversations, as_begun
from gapt_jax.tasks.turn_taking.reward_models import SILENT, SPEAKING, rhythm, shift_one_part
from gapt_jax.tasks.turn_taking.simulated import Simulated


def test_rhythm_is_who_speaks_when():
    context = np.array([[tokens.CONTEXT, tokens.CONTEXT + 3, tokens.CONTEXT + 4, tokens.CONTEXT + 13, PAD]])
    actions = np.array([[tokens.REST, tokens.TURN_HOLD, tokens.BACKCHANNEL_ONSET, tokens.VOCAL_ONSET, PAD]])
    others, agent = rhythm(context, actions)
    assert others.tolist() == [[SILENT, SILENT, SPEAKING, SPEAKING, PAD]]
    assert agent.tolist() == [[SILENT, SPEAKING, SPEAKING, SILENT, PAD]]


def test_one_part_is_delayed():
    parts = np.arange(1, 33)[None].repeat(20, 0)
    moved = shift_one_part(jax.random.key(0), parts, 100 + parts)
    delays = []
    for other, agent in zip(*map(np.asarray, moved), strict=True):
        changed, kept = (other, agent - 100) if other[-1] != 32 else (agent - 100, other)
        delay = 32 - changed[-1]
        assert 2 <= delay <= 10 and kept.tolist() == parts[0].tolist()
        assert changed.tolist() == np.maximum(parts[0] - delay, 1).tolist()
        delays.append(delay)
    assert len(set(delays)) > 3


def test_what_goes_on_where_an_excerpt_begins_begins_there():
    actions = np.array([[tokens.TURN_HOLD, tokens.TURN_HOLD], [tokens.VOCAL_HOLD, tokens.REST], [tokens.REST, PAD]])
    expected = [[tokens.TURN_ONSET, tokens.TURN_HOLD], [tokens.VOCAL_ONSET, tokens.REST], [tokens.REST, PAD]]
    assert as_begun(actions).tolist() == expected


def test_simulated_conversations_are_a_function_of_their_index():
    corpus = Conversations(Simulated(64, counts=(("train", 2), ("test", 2)), minutes=2))
    options = {"batch_size": 8, "seed": 3, "augment": True}
    first, second = (next(corpus.training_batches(**options, start=start)) for start in (0, 1))
    stream = corpus.training_batches(**options)
    for batch, again in zip((first, second), stream, strict=False):
        jax.tree.map(np.testing.assert_array_equal, batch, again)
    some = next(corpus.training_batches(**options, start=1, rows=np.array([5, 2])))
    np.testing.assert_array_equal(some.actions, second.actions[[5, 2]])
    assert first.context.shape == (8, 64) and second.index.tolist() == list(range(8, 16))
    songs = corpus.evaluation_songs("all", "test", 60)
    assert len(songs.ids) == len(set(songs.ids)) == 2 * 3 * (600 // 64) and songs.context.dtype == np.int32
    assert corpus.fingerprint == Simulated(64, counts=(("train", 2), ("test", 2)), minutes=2).fingerprint
