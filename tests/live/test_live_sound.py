"""A session as a WAV file: what FluidSynth makes of it, listened to by numbers, and what is said without FluidSynth."""

import io
import subprocess
import threading
import wave

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'live' is not installed")
from starlette.testclient import TestClient

from gapt_jax.live import downloads, recording
from gapt_jax.live.loudness import LOUDNESS, PEAK, true_peak
from gapt_jax.live.loudness import loudness as level
from gapt_jax.live.server import make_app
from tests.live.test_server import Player, connected

pytestmark = pytest.mark.timeout(180)
needs_fluidsynth = pytest.mark.skipif(
    recording.sound_font() is None,
    reason="no FluidSynth with a sound font: apt-get install fluidsynth timgm6mb-soundfont",
)
SILENT, SOUNDING = 32, 32  # frames


@pytest.fixture(scope="module")
def client(make_model):
    with TestClient(make_app([make_model()])) as found:
        yield found


@pytest.fixture(scope="module")
def session(client):
    """The address of a recording: silence of both, then chords alone, then a melody above them."""
    with connected(client) as socket:
        player = Player(socket).start(intro_frames=SILENT, bpm=120)
        for now in range(SILENT + 2 * SOUNDING + 1):
            player.tick(now, [(now - 1, True, 72 + now % 5)] if now > SILENT + SOUNDING else ())
        player.send(type="stop")
        player.send(type="ping")
        player.take("pong")
    return f"/api/sessions/{player.started['session']}"


@needs_fluidsynth
def test_silence_is_silent_and_chords_and_melody_are_heard(client, session):
    record = client.get(f"{session}.json").json()
    answer = client.get(f"{session}.wav")
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
    assert "gapt-session.wav" in answer.headers["content-disposition"]
    with wave.open(io.BytesIO(answer.content)) as sound:
        rate, channels = sound.getframerate(), sound.getnchannels()
        assert (rate, channels, sound.getsampwidth()) == (44100, 2, 2)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").reshape(-1, channels) / 2**15
    seconds = (SILENT + 2 * SOUNDING) / 8  # at 120 BPM
    assert seconds - 1 <= len(samples) / rate <= seconds + 10  # the last notes die away

    def loudness(first, last):
        return np.sqrt(np.mean(samples[int(first / 8 * rate) : int(last / 8 * rate)] ** 2))

    assert any(record["symbols"][SILENT : SILENT + SOUNDING])
    silence, chords = loudness(0, SILENT - 1), loudness(SILENT, SILENT + SOUNDING)
    melody = loudness(SILENT + SOUNDING, SILENT + 2 * SOUNDING)
    assert silence < 1e-4 and chords > 5e-3 and melody > 1e-2
    assert level(samples, rate) == pytest.approx(LOUDNESS, abs=0.1) or true_peak(samples, rate) > PEAK - 0.1
    assert true_peak(samples, rate) < PEAK + 0.05


@needs_fluidsynth
def test_the_page_asks_whether_there_is_sound_and_none_is_made(client, session, monkeypatch):
    monkeypatch.delattr(downloads, "to_wav")
    answer = client.head(f"{session}.wav")
    assert answer.status_code == 200 and answer.content == b""


def test_without_fluidsynth_the_answer_is_404_and_a_sentence(client, session, monkeypatch):
    monkeypatch.setattr(downloads, "sound_font", lambda: None)
    answer = client.get(f"{session}.wav")
    assert answer.status_code == 404
    assert answer.json() == {"error": "there is no such form of a recording here"}
    assert client.head(f"{session}.wav").status_code == 404
    assert client.get(f"{session}.mid").status_code == 200


@pytest.mark.parametrize("absent", ["program", "font"])
def test_program_and_font_are_both_needed(absent, tmp_path, monkeypatch):
    font = tmp_path / "some.sf2"
    font.write_bytes(b"")
    monkeypatch.setattr(recording, "SOUND_FONTS", (str(font),))
    monkeypatch.setattr(recording.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert recording.sound_font() == font
    if absent == "program":
        monkeypatch.setattr(recording.shutil, "which", lambda name: None)
    else:
        font.unlink()
    assert recording.sound_font() is None


@needs_fluidsynth
def test_rendering_takes_no_input_and_leaves_nothing_behind(client, session, tmp_path, monkeypatch):
    monkeypatch.setattr(recording.tempfile, "tempdir", str(tmp_path))
    real, seen = subprocess.Popen, []
    monkeypatch.setattr(recording.subprocess, "Popen", lambda *a, **k: seen.append(k["stdin"]) or real(*a, **k))
    midi, font = client.get(f"{session}.mid").content, recording.sound_font()
    assert recording.to_wav(midi, font, threading.Event())[:4] == b"RIFF"
    assert seen == [subprocess.DEVNULL] and list(tmp_path.iterdir()) == []
