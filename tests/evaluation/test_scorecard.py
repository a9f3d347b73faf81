"""Both figures where training hears some of the test songs too: of all of them, and without these."""

from types import SimpleNamespace

import numpy as np
import pytest

from gapt_jax.evaluation.scorecard import Unseen, _unseen

CONTEXT = np.array([[1, 2], [10, 20], [100, 200]])
DOMAIN = SimpleNamespace(headline=("sum", "of_data", "played_again"))


class Judge:
    def judge(self, context, actions, data):
        return {"sum": float(context.sum()), "of_data": float(data.sum() - actions.sum()), "other": 1.0}, {}


@pytest.mark.parametrize(
    "seen, expected",
    [
        ([False, False, False], Unseen({"sum": 333.0, "of_data": 333.0}, 3)),
        ([False, True, False], Unseen({"sum": 303.0, "of_data": 303.0}, 2)),
        ([True, True, True], Unseen({}, 0)),
    ],
)
def test_the_second_figures_are_those_of_the_songs_that_training_does_not_hear(seen, expected):
    songs = SimpleNamespace(context=CONTEXT, actions=2 * CONTEXT, seen=np.array(seen))
    measured = Judge().judge(CONTEXT, CONTEXT, songs.actions)[0]
    assert _unseen(Judge(), DOMAIN, songs, CONTEXT, measured) == expected


def test_a_task_that_does_not_say_has_none():
    songs = SimpleNamespace(context=CONTEXT, actions=CONTEXT)
    assert _unseen(Judge(), DOMAIN, songs, CONTEXT, {}) is None
