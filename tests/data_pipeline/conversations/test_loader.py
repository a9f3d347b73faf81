"""Batches of conversations: every participant is the agent, every place is drawn, no host sees another stream."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gapt_jax.data_pipeline.conversations.loader import Corpus, _Windows, open_corpus
from gapt_jax.errors import UserError
from gapt_jax.task import PAD
from gapt_jax.task import Corpus as Wanted
from gapt_jax.tasks.turn_taking import tokens
from gapt_jax.types import Batch
from tests.data_pipeline.conversations.rttm_files import corpus, rttm, write

T = 16


def opened(folder: Path, data: Path, names: tuple[str, ...] = ("all",), **changes: object) -> Corpus:
    settings = {"mixture": [(name, 1.0) for name in names], "out_of_domain": [], "max_frames": T} | changes
    return open_corpus(
        conversations=folder,
        data_dir=data,
        frame_seconds=tokens.FRAME_SECONDS,
        encode=tokens.encode,
        **settings,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Talks of 100 frames: each agent has six windows of 16."""
    folder = tmp_path_factory.mktemp("talks")
    return opened(corpus(folder / "talks"), folder / "data")


def take(found: Corpus, count: int, batch_size: int = 8, **changes: object) -> list[Batch]:
    settings = {"seed": 3, "augment": True} | changes
    return list(itertools.islice(found.training_batches(batch_size=batch_size, **settings), count))  # type: ignore[arg-type]


def rows(batches: list[Batch], field: str) -> np.ndarray:
    return np.concatenate([getattr(batch, field) for batch in batches])


def same(left: list[Batch], right: list[Batch]) -> bool:
    return all(np.array_equal(rows(left, field), rows(right, field)) for field in ("context", "actions", "index"))


def test_tokens_of_a_file_by_hand(tmp_path: Path) -> None:
    """a says something long, b a word meanwhile and another after it."""
    text = rttm("C1", [("a", 0.2, 1.6), ("b", 1.0, 1.2), ("b", 1.8, 2.0)])
    found = opened(write(corpus(tmp_path / "talks"), test__rttm=text, test__uem="C1 1 0 2.4\n"), tmp_path / "data")
    songs = found.evaluation_songs("all", "test", 9)
    assert sorted(songs.ids) == ["C1/a/0.0", "C1/b/0.0"] and songs.index.tolist() == [0, 1]
    a, b = (songs.ids.index(f"C1/{name}/0.0") for name in "ab")
    rest, turn, hold, word = tokens.REST, tokens.TURN_ONSET, tokens.TURN_HOLD, tokens.BACKCHANNEL_ONSET
    pad = [PAD] * 4
    assert songs.actions[a].tolist() == [rest, turn, *[hold] * 6, *[rest] * 4, *pad]
    assert songs.actions[b].tolist() == [*[rest] * 5, word, *[rest] * 3, word, rest, rest, *pad]
    quiet, one = tokens.CONTEXT, tokens.CONTEXT + 4
    begun, ended = one + tokens.BEGUN, quiet + tokens.ENDED
    assert songs.context[a].tolist() == [*[quiet] * 5, begun, ended, quiet, quiet, begun, ended, quiet, *pad]
    assert songs.context[b].tolist() == [quiet, begun, *[one] * 6, ended, *[quiet] * 3, *pad]


def test_batches_are_those_of_a_task(talks: Corpus) -> None:
    wanted: Wanted = talks  # for mypy
    (batch,) = itertools.islice(wanted.training_batches(batch_size=6, seed=1, augment=False), 1)
    assert batch.context.shape == batch.actions.shape == (6, T) and batch.index.tolist() == list(range(6))
    assert {batch.context.dtype, batch.actions.dtype, batch.index.dtype} == {np.dtype(np.int32)}
    assert (batch.context >= tokens.CONTEXT).all() and (batch.actions < tokens.CONTEXT).all()
    assert len(talks.fingerprint) == 12


def test_the_stream_depends_on_the_seed_and_the_number_alone(talks: Corpus) -> None:
    whole = take(talks, 12)
    assert same(take(talks, 5, start=7), whole[7:]) and same(take(talks, 4, batch_size=24), whole)
    assert not same(take(talks, 12, seed=4), whole)
    parts = [take(talks, 3, rows=part) for part in np.split(np.arange(8), 2)]
    for number, pair in enumerate(zip(*parts, strict=True)):
        for field in ("context", "actions", "index"):
            assert np.array_equal(
                np.concatenate([getattr(part, field) for part in pair]), getattr(whole[number], field)
            )
    (empty,) = take(talks, 1, rows=np.arange(0))
    assert empty.context.shape == empty.actions.shape == (0, T)


def _counting(speech: np.ndarray, vocal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the frame, and of the agent."""
    frames = np.broadcast_to(np.arange(speech.shape[1]) % 200 + 1, speech.shape)
    return frames, np.broadcast_to(np.arange(len(speech))[:, None] + 1, speech.shape)


def test_an_epoch_has_the_windows_of_every_agent_and_all_places_are_drawn(tmp_path: Path) -> None:
    found = opened(corpus(tmp_path / "talks"), tmp_path / "data")
    counted = Corpus(found.fingerprint, found.mixture, T, 0.2, _counting, found.datasets)
    agents, windows = 4, 7  # ceil(100 / 16)
    for batch in take(counted, 3, batch_size=agents * windows):  # each batch is an epoch
        firsts = sorted((batch.context[:, 0] - 1).tolist())
        shares = [number // agents for number in range(agents * windows)]
        places = 100 - T + 1
        assert all(
            k * places // windows <= p <= (k + 1) * places // windows for k, p in zip(shares, firsts, strict=True)
        )
        assert Counter(batch.actions[:, 0].tolist()) == {1: 2 * windows, 2: 2 * windows}
    drawn, rng = _Windows.of(counted.split("all", "train"), T), np.random.default_rng(0)
    counts = Counter(int(drawn(number % len(drawn), rng)[0, 0]) - 1 for number in range(300 * len(drawn)))
    expected = 300 * len(drawn) / (100 - T + 1)
    assert sorted(counts) == list(range(100 - T + 1))
    assert 0.6 * expected < min(counts.values()) and max(counts.values()) < 1.4 * expected


def test_a_short_conversation_is_padded_in_both_parts(tmp_path: Path) -> None:
    found = opened(corpus(tmp_path / "talks", seconds=4), tmp_path / "data", max_frames=32)
    (batch,) = take(found, 1)
    for part in (batch.context, batch.actions):
        assert part.shape == (8, 32) and (part[:, 20:] == PAD).all() and (part[:, :20] != PAD).all()


def test_evaluation_takes_a_window_of_each_agent_then_another(talks: Corpus) -> None:
    counted = Corpus(talks.fingerprint, talks.mixture, T, 0.2, _counting, talks.datasets)
    songs = counted.evaluation_songs("all", "train", 100)
    assert len(songs.ids) == len(set(songs.ids)) == 4 * 6 and not (songs.context == PAD).any()
    agents = [identity.rpartition("/")[0] for identity in songs.ids]
    assert all(len(set(agents[n : n + 4])) == 4 for n in range(0, 24, 4))
    even = [84 * k // 5 for k in range(6)]  # from the first frame to the last, no two overlap
    for agent in set(agents):
        firsts = [songs.context[n, 0] - 1 for n, name in enumerate(agents) if name == agent]
        assert sorted(firsts) == even and sorted(firsts) != firsts
    few = counted.evaluation_songs("all", "train", 5)
    assert few.ids == songs.ids[:5] and np.array_equal(few.context, songs.context[:5])


def test_other_conversations_change_no_window(talks: Corpus, tmp_path: Path) -> None:
    folder = write(corpus(tmp_path / "talks"), test__more__rttm=rttm("D1", [("a", 0, 9), ("b", 9, 20)]))
    more = opened(folder, tmp_path / "data").evaluation_songs("all", "test", 100)
    alone = talks.evaluation_songs("all", "test", 100)
    kept = [n for n, identity in enumerate(more.ids) if identity.startswith("C1/")]
    assert tuple(more.ids[n] for n in kept) == alone.ids and np.array_equal(more.actions[kept], alone.actions)
    assert len(more.ids) == 2 * len(kept)


def test_a_mixture_and_all_splits_of_a_set_outside_it(tmp_path: Path) -> None:
    for name in ("low", "high"):
        corpus(tmp_path / "talks" / name)
    write(tmp_path / "talks" / "other", r__rttm=rttm("r", [("a", 0, 9), ("b", 9, 20)]))
    mixed = opened(
        tmp_path / "talks", tmp_path / "data", mixture=[("low", 0.75), ("high", 0.25)], out_of_domain=["other"]
    )
    assert len(mixed.evaluation_songs("other", "all", 100).ids) == 2 * 6
    assert len(take(mixed, 1, batch_size=40)[0].index) == 40
    for call, words in (
        (lambda: mixed.evaluation_songs("other", "test", 0), "has no conversations in split"),
        (lambda: mixed.evaluation_songs("lower", "test", 5), r"'lower' is not open \(open: low, high, other\)"),
        (lambda: mixed.evaluation_songs("low", "tests", 5), "there is no split 'tests'"),
        (lambda: opened(tmp_path / "talks", tmp_path / "data", ("low", "low")), "names a dataset twice"),
        (lambda: opened(tmp_path / "talks", tmp_path / "data", ("other",)), "has no conversations in split"),
    ):
        with pytest.raises(UserError, match=words):
            call()
