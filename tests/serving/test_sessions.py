"""Sessions: places are taken before anything is waited for, every end ends, a start begins anew."""

import asyncio
import collections

import numpy as np
import pytest

from gapt_jax.export.bundle import _melodies
from gapt_jax.serving import sessions
from gapt_jax.serving.player import Player
from gapt_jax.serving.protocol import Refusal
from tests.export.bundles import FRAMES
from tests.serving.wire import INFER, frame, tensor

MELODY = _melodies(FRAMES)[0]
START, END = {"sequence_start": True}, {"sequence_end": True}


def gathered(player, limit, bodies):
    """The statuses of requests that come at the same moment, and how many sessions there are afterwards."""

    async def all_at_once():
        service = sessions.Service([player], limit)

        async def one(body):
            try:
                await service.infer(player, body, b"")
                return 200
            except Refusal as refusal:
                return refusal.status

        found = await asyncio.gather(*map(one, bodies))
        count = service.registry.get_sample_value("gapt_sessions")
        service.close()
        return collections.Counter(found), count

    return asyncio.run(all_at_once())


@pytest.fixture(scope="module")
def player(bundle_folder):
    found = Player(bundle_folder)
    found.warm_up()
    return found


def test_parallel_starts_keep_the_limit(player):
    assert gathered(player, 4, [frame(f"s{n}", [], **START) for n in range(60)]) == ({200: 4, 503: 56}, 4)


def test_parallel_starts_of_one_name_begin_one_session(player):
    assert gathered(player, 4, [frame("a", [], **START)] * 10) == ({200: 1, 409: 9}, 1)


def test_parallel_frames_of_one_session_are_refused(player):
    async def play():
        service = sessions.Service([player], 4)
        await service.infer(player, frame("a", [], **START), b"")
        frames = [service.infer(player, frame("a", [3]), b"") for _ in range(5)]
        found = await asyncio.gather(*frames, return_exceptions=True)
        service.close()
        return [isinstance(answer, Refusal) for answer in found]

    assert asyncio.run(play()) == [False, True, True, True, True]


def test_a_full_queue_takes_no_place(player, monkeypatch):
    monkeypatch.setattr(sessions, "WAITING", 2)
    assert gathered(player, 9, [frame(f"s{n}", [], **START) for n in range(6)]) == ({200: 2, 503: 4}, 2)


def test_a_start_that_is_given_up_leaves_no_place(player):
    async def give_up():
        service = sessions.Service([player], 4)
        tasks = [asyncio.create_task(service.infer(player, frame(f"s{n}", [3], **START), b"")) for n in range(4)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        count = service.registry.get_sample_value("gapt_sessions")
        service.close()
        return count

    assert asyncio.run(give_up()) == 0


def test_a_session_that_is_ended_while_it_computes_is_over(player):
    end = frame("a", [3], **END)
    assert gathered(player, 4, [frame("a", [], **START), end]) == ({200: 1, 409: 1}, 0)
    assert gathered(player, 4, [frame("a", [], **START), end, frame("a", [], **START)]) == ({200: 2, 409: 1}, 1)


BAD = [
    frame("a", [3] * (FRAMES + 1)),
    frame("a", [1]),
    frame("a", [3], temperature="hot"),
    frame("a", [3]) | {"outputs": [{"name": "x"}]},
    frame("a", [3]) | {"inputs": []},
    frame("a", [3]) | {"inputs": [tensor("melody", [[3]], data=[3])]},
    frame("a", [3]) | {"inputs": [tensor("note", [[3], [3]], data=[3, 3])]},
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_what_is_refused_leaves_or_ends_a_session_as_it_says(client, body):
    def post(body, **parameters):
        return client.post(INFER, json=body | {"parameters": body["parameters"] | parameters}).status_code

    assert post(body, **START) in (400, 409)
    assert post(frame("a", [3])) == 404  # a refused start begins none
    assert post(frame("a", []), **START) == 200
    assert post(body, **START) in (400, 409) and post(body) in (400, 409)
    assert post(frame("a", [3])) == 200  # nor does it end the one before
    assert post(body, **END) in (400, 409)
    assert post(frame("a", [3])) == 404  # but a refused end ends


def test_a_start_begins_a_running_session_anew(client):
    def chord(notes, **parameters):
        answer = client.post(INFER, json=frame("again", notes, seed=4, **parameters))
        assert answer.status_code == 200, answer.text
        return answer.json()["outputs"][0]["data"]

    first = [chord([], **START), *(chord([note]) for note in MELODY[:6])]
    again = [chord([], **START), *(chord([note]) for note in MELODY[:6])]
    assert first == again
    chord([], **END)


def test_the_last_note_is_heard_where_the_session_ends(client):
    def post(notes, **parameters):
        return client.post(INFER, json=frame("last", notes, **parameters))

    assert post(MELODY[:-1], **START).status_code == 200
    assert post(MELODY[-1:]).status_code == 409
    answer = post(MELODY[-1:], **END)
    assert answer.status_code == 200 and answer.json()["outputs"][0]["shape"] == [1, 0]
    assert post(MELODY, **START, **END).status_code == 200
    assert post(np.append(MELODY, 3), **START, **END).status_code == 409
    assert post([3]).status_code == 404
