"""``gapt jam`` and ``gapt play`` from the command line: what they refuse, and what they write."""

import contextlib
import hashlib
import json
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import mido
import numpy as np
import pytest
import safetensors.numpy
from mido import Message

pytest.importorskip("fastapi", reason="the extra 'live' is not installed")

from gapt_jax import midi
from gapt_jax.commands.main import main
from gapt_jax.errors import UserError
from gapt_jax.export import bundle
from gapt_jax.export.proof import open_bundle
from gapt_jax.export.verify import read_safetensors
from gapt_jax.live import bands, duet, server
from gapt_jax.live.duet import perform
from gapt_jax.live.engine import Controls
from gapt_jax.live.model import of_policy, open_model
from gapt_jax.live.play import play
from gapt_jax.midi import Note
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment.midi import melody_tokens, read_melody
from tests.export.bundles import random_policy, reseal

TUNE = [Note(0, 1, 60), Note(1, 1.5, 64), Note(1.5, 2, 64), Note(2.5, 4, 67)]
pytestmark = pytest.mark.timeout(120)  # who does not refuse would serve for ever
PLANS = ["--lookahead-frames", "8"]  # of the 12 that the small policies plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle, and melodies good and bad beside it."""
    found = tmp_path_factory.mktemp("jam")
    bundle.write(random_policy(), found / "bundle", Console(), with_onnx=False)
    (found / "tune.mid").write_bytes(midi.build(TUNE, [], 120))
    (found / "mute.mid").write_bytes(midi.build([], [], 120))
    (found / "text.mid").write_text("no MIDI")
    (found / "empty").mkdir()
    for name in ("manifest.json", "config.json"):
        (found / name.partition(".")[0]).mkdir()
        (found / name.partition(".")[0] / name).write_text("{")
    return found


class FakeMidi:
    """Ports as mido opens them; `callback` plays a note."""

    def __init__(self):
        self.opened, self.sent, self.closed, self.callback = [], [], 0, None

    def open_input(self, name, virtual=False, callback=None):
        self.callback = callback
        callback(Message("note_on", note=60))  # before anybody listens
        return self._opened(name, virtual)

    def open_output(self, name, virtual=False):
        return self._opened(name, virtual)

    @contextlib.contextmanager
    def _opened(self, name, virtual):
        self.opened.append((name, virtual))
        yield SimpleNamespace(send=self.sent.append)
        self.closed += 1


@pytest.fixture
def fake_midi(monkeypatch):
    found = FakeMidi()
    monkeypatch.setattr(mido, "get_input_names", lambda: ["Keys", "Pads"])
    monkeypatch.setattr(mido, "get_output_names", lambda: ["Synth 20:0"])
    for name in ("open_input", "open_output"):
        monkeypatch.setattr(mido, name, getattr(found, name))
    return found


def refusal(capsys, *arguments):
    """The sentence of a command that refuses."""
    with pytest.raises(SystemExit) as end:
        main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert end.value.code == 2, err
    assert re.fullmatch(r"error: [^\n]+\n", err), err
    assert "Traceback" not in out + err
    return err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no policies are installed with this version: name a run or a bundle, as in 'gapt jam RUN'"),
        (["absent"], "absent"),
        (["empty"], "neither a bundle nor a run"),
        (["tune.mid"], "neither a bundle nor a run"),
        (["manifest"], "manifest"),
        (["config"], "config"),
        (["bundle", "--port", "65536"], "--port must be in 0..65535"),
        (["bundle", "--port", "-1"], "--port must be in 0..65535"),
        (["bundle", "--port", "http"], "--port"),
        (["bundle", "--sessions", "0"], "--sessions must be at least 1"),
        (["bundle", "bundle"], "two folders are called bundle"),
        (["bundle", "--port", "0", "--host", "256.0.0.1"], "choose another"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_jam_refuses_in_one_sentence(arguments, words, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(bands, "FOLDER", folder)  # as if none had come with the package
    assert words in refusal(capsys, "jam", *arguments)


def test_jam_tells_of_two_folders_of_one_name(folder, tmp_path, capsys):
    shutil.copytree(folder / "bundle", tmp_path / "bundle")
    assert "two folders are called bundle" in refusal(capsys, "jam", folder / "bundle", tmp_path / "bundle")


def test_jam_tells_of_a_taken_port(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "choose another --port" in refusal(capsys, "jam", folder / "bundle", "--port", port)


@pytest.mark.parametrize("made", [list(bands.FOLDERS), ["supervised"]], ids=["all", "one"])
def test_jam_without_arguments_plays_the_installed_policies(made, folder, tmp_path, monkeypatch):
    for name in made:
        shutil.copytree(folder / "bundle", tmp_path / "bands" / bands.FOLDERS[name])
    monkeypatch.setattr(bands, "FOLDER", tmp_path / "bands")
    served = []
    monkeypatch.setattr(server, "serve", lambda own, *_, **__: served.append(own))
    monkeypatch.setattr(server, "OwnHost", lambda app, *_: app)
    main(["jam", "--port", "0"])
    (app,) = served
    assert [model["name"] for model in app.state.studio.described()] == made


def test_an_old_bundle_plays(folder, tmp_path):
    """What was compiled may be older than JAX promises to read, and may be unreadable: playing builds the network."""
    old = Path(shutil.copytree(folder / "bundle", tmp_path / "old"))
    for path in (old / "fn").iterdir():
        path.write_bytes(b"of another age")
    reseal(old, expires="2020-01-01")
    with pytest.raises(UserError, match="expired on 2020-01-01: rebuild them with 'gapt export refresh"):
        open_bundle(old)
    controls = Controls(lookahead_frames=8, intro_frames=0)
    tokens = melody_tokens(TUNE, 100).tolist()
    models = open_model(old, Console()), of_policy(random_policy(), "as it was trained")
    found, expected = (play(model, controls, tokens, realtime=False)[0].decided[: len(tokens)] for model in models)
    assert found == expected and len(set(found)) > 3
    assert models[0].weights_sha256 == json.loads((old / "manifest.json").read_text())["weights_sha256"]


def test_a_bundle_whose_weights_are_not_its_network_does_not_play(folder, tmp_path):
    other = Path(shutil.copytree(folder / "bundle", tmp_path / "other"))
    settings = json.loads((other / "config.json").read_text())
    settings["policy"]["depth"] = 1
    (other / "config.json").write_text(json.dumps(settings))
    reseal(other)
    with pytest.raises(UserError, match="does not hold the network of"):
        open_model(other, Console())


def test_a_bundle_whose_weights_are_not_finite_does_not_play(folder, tmp_path):
    other = Path(shutil.copytree(folder / "bundle", tmp_path / "other"))
    weights = read_safetensors(other / "params.safetensors")
    name = next(iter(weights))
    weights[name] = np.full_like(weights[name], np.nan)
    (other / "params.safetensors").write_bytes(safetensors.numpy.save(weights))
    digest = hashlib.sha256((other / "params.safetensors").read_bytes()).hexdigest()
    reseal(other, weights_sha256=digest)
    with pytest.raises(UserError, match="not finite"):
        open_model(other, Console())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--midi-in", "x"], "--midi-in and --midi-out go together"),
        (["--midi-out", "x"], "--midi-in and --midi-out go together"),
        (["--midi-in", "x", "--midi-out", "y", "--songs", "z"], "one policy plays at MIDI ports"),
        (["other", "--midi-in", "x", "--midi-out", "y"], "one policy plays at MIDI ports"),
        (["--midi-in", "x", "--midi-out", "y", "--port", "9"], "--host, --port and --sessions go with the page"),
        (["--tempo", "100"], "--bpm goes with --midi-in and --midi-out"),
        (["--out", "x.mid"], "--out goes with --midi-in and --midi-out"),
        (["--midi-in", "x", "--midi-out", "y", "--tempo", "500"], "--bpm must be in 30..240"),
        (["--midi-in", "x", "--midi-out", "absent"], "no MIDI output 'absent' (there is: 'Synth 20:0')"),
        (["--midi-in", "x", "--midi-out", "synth"], "no MIDI input 'x' (there is: 'Keys', 'Pads')"),
        (["--midi-in", "virtual", "--midi-out", "synth", *PLANS[:1], "16"], "plans at most 12 frames"),
        (["--midi-in", "x", "--midi-out", "y", *PLANS[:1], "1", "--commit-frames", "1"], "2 frames or more"),
        (["--midi-in", "x", "--midi-out", "y", "--out", "bundle"], "--out bundle is a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_jam_at_ports_refuses_in_one_sentence(arguments, words, folder, fake_midi, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert words in refusal(capsys, "jam", "bundle", *arguments)


@pytest.fixture
def own_signals():
    kept = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), kept, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_jam_at_ports_writes_the_take(ending, own_signals, folder, fake_midi, tmp_path, capsys, monkeypatch):
    """Keys that go down while it compiles count for nothing; the signal comes after 16 frames of 62.5 ms."""
    out = tmp_path / "take.mid"

    def perform_(duet, incoming, send):
        assert incoming() == []
        fake_midi.callback(Message("note_on", note=64, velocity=90))
        passed = [time.monotonic()]
        end = passed[0] + 1.1

        def sleep(seconds):
            passed[0] += seconds
            if passed[0] > end:
                signal.raise_signal(ending)

        return perform(duet, incoming, send, clock=lambda: passed[0], sleep=sleep)

    monkeypatch.setattr(duet, "perform", perform_)
    ports = ("--midi-in", "virtual", "--midi-out", "Synth")
    options = (*PLANS, "--intro-frames", "0", "--tempo", "240", "--out", out, "--json")
    main(list(map(str, ("jam", folder / "bundle", *ports, *options))))
    printed, err = capsys.readouterr()
    found = json.loads(printed)
    assert found["path"] == str(out) and found["frames"] >= 12 and found["budget_ms"] == 62.5
    assert "your first note begins, Ctrl-C ends" in err and fake_midi.opened == [("Synth 20:0", False), ("gapt", True)]
    tracks = {track.name: track for track in midi.parse(out.read_bytes()).tracks}
    (note,) = tracks["melody"].notes
    assert (note.onset, note.pitch) == (0, 64) and tracks["chords"].notes
    ends = [message.control for message in fake_midi.sent if message.type == "control_change"]
    assert ends == [123] and fake_midi.closed == 2


def test_jam_at_ports_without_a_note_writes_nothing(own_signals, folder, fake_midi, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(duet, "perform", lambda *_: [])
    main(["jam", str(folder / "bundle"), "--midi-in", "Keys", "--midi-out", "Synth", *PLANS])
    assert "nothing was played" in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--melody"),
        (["--melody", "absent.mid"], "absent.mid is not there"),
        (["--melody", "empty"], "empty is not there"),
        (["--melody", "text.mid"], "text.mid cannot be used"),
        (["--melody", "mute.mid"], "mute.mid cannot be used"),
        (["--melody", "tune.mid", "--bpm", "29"], "--bpm must be in 30..240, not 29"),
        (["--melody", "tune.mid", "--bpm", "241"], "--bpm must be in 30..240, not 241"),
        (["--melody", "tune.mid", "--bpm", "nan"], "--bpm must be in 30..240"),
        (["--melody", "tune.mid", "--temperature", "-0.1"], "--temperature must be in 0..2"),
        (["--melody", "tune.mid", "--temperature", "inf"], "--temperature must be in 0..2"),
        (["--melody", "tune.mid", "--seed", "-1"], "--seed must be in 0.."),
        (["--melody", "tune.mid", "--lookahead-frames", "0"], "--lookahead-frames must be in 1..32"),
        (["--melody", "tune.mid", "--lookahead-frames", "33"], "--lookahead-frames must be in 1..32"),
        (["--melody", "tune.mid", "--commit-frames", "33"], "--commit-frames must be in 0..32"),
        (["--melody", "tune.mid", "--lookahead-frames", "2", "--commit-frames", "3"], "not be above"),
        (["--melody", "tune.mid", "--lookahead-frames", "2"], "not be above"),  # than the default
        (["--melody", "tune.mid"], "plans at most 12 frames: lower --lookahead-frames"),
        (["--melody", "tune.mid", *PLANS, "--out", "empty"], "empty is a folder"),
        (["--melody", "tune.mid", *PLANS, "--out", "text.mid/out.mid"], "text.mid is a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_play_refuses_in_one_sentence(arguments, words, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert words in refusal(capsys, "play", "bundle", *arguments)
    assert sorted(folder.iterdir()) == before


def test_play_writes_melody_and_chords(folder, capsys):
    main(["play", str(folder / "bundle"), "--melody", str(folder / "tune.mid"), *PLANS, "--json"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    fields = {"p50_ms", "p95_ms", "p99_ms", "budget_ms", "over_budget", "model", "frames", "path"}
    assert set(found) == fields and "next: gapt jam" in err
    assert found["model"] == "bundle" and found["frames"] == 16 and found["budget_ms"] == 125
    written = folder / "tune-accompanied.mid"
    assert found["path"] == str(written)
    tokens = melody_tokens(TUNE, 100).tolist()
    assert melody_tokens(read_melody(written), 100).tolist() == tokens
    tracks = {track.name: track for track in midi.parse(written.read_bytes()).tracks}
    assert {"melody", "chords"} <= set(tracks)
    first = written.read_bytes()
    main(["play", str(folder / "bundle"), "--melody", str(folder / "tune.mid"), *PLANS])
    assert written.read_bytes() == first
    written.unlink()


def test_play_in_real_time_takes_as_long_as_the_melody(folder, tmp_path, capsys):
    out = tmp_path / "out.mid"
    arguments = ["--melody", folder / "tune.mid", "--bpm", 240, "--realtime", "--out", out, *PLANS, "--json"]
    began = time.monotonic()
    main(list(map(str, ["play", folder / "bundle", *arguments])))
    assert time.monotonic() - began >= 16 / 16  # frames of 1/16 s
    found = json.loads(capsys.readouterr().out)
    assert found["budget_ms"] == 62.5 and found["path"] == str(out) and out.is_file()
