"""Songs in a policy's place: they are played as they are, whatever the player does, and can be switched to."""

import dataclasses
import itertools
import json

import pytest

from gapt_jax.commands.live import song_model
from gapt_jax.data_pipeline import grammar
from gapt_jax.data_pipeline.songs import to_frames, to_record
from gapt_jax.data_pipeline.store import chord_tokens
from gapt_jax.errors import UserError
from gapt_jax.live.engine import Controls, Engine
from gapt_jax.live.notes import Event
from gapt_jax.live.recording import Recording, replay
from tests.export.bundles import VOCABULARY
from tests.live.scratch import planned_from_scratch

CONTROLS = Controls(lookahead_frames=8, commit_frames=3, intro_frames=0)


@pytest.fixture(scope="module")
def songs():
    return list(itertools.islice(grammar.generate("grammar"), 2))


@pytest.fixture(scope="module")
def file(songs, tmp_path_factory):
    path = tmp_path_factory.mktemp("songs") / "two.jsonl"
    path.write_text("".join(json.dumps(to_record(song)) + "\n" for song in songs))
    return path


def test_songs_are_played_one_after_the_other(songs, file):
    engine = Engine(song_model(file, VOCABULARY), CONTROLS)
    expected = [token for song in songs for token in chord_tokens(to_frames(song), VOCABULARY).tolist()]
    for now in range(len(expected) + 9):
        plan = engine.tick(now)
        assert plan == planned_from_scratch(engine) and len(plan.actions) == 8
        engine.hear([Event(now, True, 60 + now % 7)])
    assert engine.decided[: len(expected) + 8] == expected + expected[:8]  # and then again


def test_a_policy_and_songs_take_turns(file, make_model):
    songs, policy = song_model(file, VOCABULARY), make_model()
    engine = Engine(policy, CONTROLS)
    recording = Recording("one", engine)
    for now in range(6 * policy.frames):
        if now % policy.frames == policy.frames - 1:
            other = songs if engine.model is policy else policy
            engine.use(other)
            recording.add("model", weights_sha256=other.weights_sha256)
        recording.add("tick", now_frame=now, events=[])
        assert engine.tick(now) == planned_from_scratch(engine)
        if engine.model is policy:
            assert engine.now - engine._older.base <= policy.window
    found = replay(recording.to_dict(), {model.weights_sha256: model for model in (songs, policy)})
    assert found.decided == engine.decided


def test_files_without_songs_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(UserError, match="no song that could be played"):
        song_model(tmp_path / "empty.jsonl", VOCABULARY)


def test_a_song_model_is_named_by_its_file(file):
    model = song_model(file, VOCABULARY)
    assert (model.name, model.system) == ("two.jsonl", "data") and model.affordable(15 / 200) == 32
    assert song_model(file, dataclasses.replace(VOCABULARY)).weights_sha256 == model.weights_sha256
