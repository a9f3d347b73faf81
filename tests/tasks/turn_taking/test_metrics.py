"""Metrics of turn-taking on conversations that can be counted by hand."""

import numpy as np
import pytest

from gapt_jax.task import PAD
from gapt_jax.tasks.turn_taking import metrics, timing, tokens
from gapt_jax.tasks.turn_taking.domain import DOMAIN
from gapt_jax.tasks.turn_taking.simulated import Simulated
from gapt_jax.tasks.turn_taking.stretches import heard, shifted, spans, stretches
from gapt_jax.tasks.turn_taking.tokens import BACKCHANNEL, TURN, VOCAL


def drawn(agent, *others):
    """(context, actions) [1, T] of one line a participant: T, B and V begin or hold something, a dot is silence."""
    kinds = {"T": TURN, "B": BACKCHANNEL, "V": VOCAL}
    actions = np.full((1, len(agent)), tokens.REST, np.int32)
    for frame, letter in enumerate(agent):
        if letter != ".":
            goes_on = frame > 0 and agent[frame - 1] == letter
            actions[0, frame] = tokens.TURN_ONSET + 2 * kinds[letter] + goes_on
    speech = np.array([[letter != "." for letter in line] for line in others])
    return tokens.context_of(speech)[None], actions


def test_stretches_are_those_of_tokens():
    _, actions = drawn("TT.BV..TTT", "..........")
    actions[0, 8] = tokens.TURN_ONSET  # begins anew
    found = stretches(np.concatenate([actions, actions[:, ::-1]]))
    for row, part in enumerate((actions[0], actions[0, ::-1])):
        own = found.where(found.row == row)
        assert list(zip(own.start, own.end, own.kind, strict=True)) == [tuple(s) for s in tokens.decode(part)]
    runs = spans(np.array([[1, 1, 0, 1], [0, 0, 0, 0]], bool))
    assert (runs.row.tolist(), runs.start.tolist(), runs.end.tolist()) == ([0, 0], [0, 3], [2, 4])


def test_speech_is_clear_where_nobody_else_speaks():
    context, actions = drawn("..TTTT..B.V.", "TTTT....T...")
    clear, speech = metrics.clear_speech(context, actions)
    assert (clear.tolist(), speech.tolist()) == ([2], [5])
    found = metrics.summarize(context, actions, actions)
    assert found["clear_speech"] == 2 / 5
    assert found["speaking_share"] == 5 / 12 and found["overlap_share"] == 3 / 12 and found["silence_share"] == 5 / 12


def test_nothing_counts_after_the_end():
    context, actions = drawn("..TTTT..B.V.....", "TTTT....T....TTT")
    context[:, 12:] = PAD
    short = metrics.summarize(context[:, :12], actions[:, :12], actions[:, :12])
    long = metrics.summarize(context, actions, actions)
    assert short == pytest.approx(long, nan_ok=True)


@pytest.mark.parametrize(
    ("agent", "expected"),
    [("......TTTT..", (1, 1)), ("......BB....", (1, 1)), (".......T....", (1, 1)), ("........T...", (0, 1)),
     (".....TTTT...", (0, 0)), ("............", (0, 1)), ("......VV....", (0, 1))],
)  # fmt: skip
def test_an_answer_is_prompt_within_two_frames(agent, expected):
    counts = timing.prompt_answers(heard(*drawn(agent, "..TTTT......")))
    assert tuple(int(part[0]) for part in counts) == expected


@pytest.mark.parametrize(
    ("agent", "others", "offsets"),
    [("......TTTT..", "..TTTT......", [0]), ("........TT..", "..TTTT......", [2]),
     ("....TTTT....", "..TTTT......", [-2]),
     ("...TT.......", "..TTTT......", []),  # gives the floor back
     (".TT..TT.....", "TT..........", [-1]),  # the second turn is its own again
     ("TTTT........", "TT..........", [])],
)  # fmt: skip
def test_floor_transfers(agent, others, offsets):
    found = heard(*drawn(agent, others))
    assert timing.transfer_offsets(found).tolist() == offsets
    counts = timing.offset_counts(found)
    assert counts.sum() == len(offsets) and all(counts[timing.MOST_OFFSET + offset] for offset in offsets)


def test_lengths_leave_out_what_the_excerpt_cuts():
    found = heard(*drawn("TT..TTT.BB...TT", "..............."))
    assert timing.turn_lengths(found).tolist() == [3]
    assert timing.pauses(found).tolist() == [2, 1, 3]
    assert timing.length_counts(np.array([1, 2, 2, 600])).sum() == 4
    assert timing.distance(np.array([1, 1]), np.array([2, 2])) == 0 and np.isnan(
        timing.distance(np.zeros(2), np.ones(2))
    )
    assert timing.distance(np.array([1, 0]), np.array([0, 3])) == pytest.approx(1)


def test_interruptions_and_backchannels():
    found = heard(*drawn("..TT..B...T.B.", "TTTTTTTT......"))
    assert timing.interruptions(found) == 1 and timing.backchannels(found) == (1, 2)


def test_chance_is_what_is_left_when_the_agent_is_moved():
    actions = np.arange(8)[None].repeat(2, 0)
    moved = shifted(actions, np.array([8, 4]), 0.25)
    assert moved[0].tolist() == [6, 7, 0, 1, 2, 3, 4, 5] and moved[1].tolist() == [3, 0, 1, 2, 4, 5, 6, 7]
    songs = Simulated(128, counts=(("test", 4),)).evaluation_songs("all", "test", 40)
    found = metrics.summarize(songs.context, songs.actions, songs.actions)
    others = metrics.summarize(songs.context, songs.actions[::-1], songs.actions)
    assert found["clear_speech"] > 1.3 * found["clear_speech_chance"]
    assert found["prompt_answers"] > 1.5 * found["prompt_answers_chance"]
    assert abs(others["clear_speech"] - others["clear_speech_chance"]) < 0.1
    assert found["js_transfer"] == 0 < others["js_transfer"]


def test_every_metric_is_explained():
    songs = Simulated(64, counts=(("test", 1),), minutes=2).evaluation_songs("all", "test", 8)
    found = metrics.summarize(songs.context, songs.actions, songs.actions)
    assert found.keys() <= DOMAIN.metrics.keys()
    for names in (DOMAIN.headline, DOMAIN.table, DOMAIN.compared):
        assert set(names) <= DOMAIN.metrics.keys()
    assert DOMAIN.quality in found and "song" not in str(DOMAIN.metrics).lower()
