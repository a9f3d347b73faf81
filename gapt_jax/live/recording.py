"""A session as it was: replayable JSON, MIDI and, where FluidSynth is installed, sound."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gapt_jax.errors import UserError
from gapt_jax.live.engine import Controls, Engine
from gapt_jax.live.limits import RECORDING_SIZE
from gapt_jax.live.loudness import level
from gapt_jax.live.model import LiveModel
from gapt_jax.live.notes import VELOCITY, Event, chord_entries, chord_runs, note_runs
from gapt_jax.live.timing import timing_of
from gapt_jax.tasks.accompaniment.midi import accompaniment
from gapt_jax.vocabulary import FRAMES_PER_BEAT, SILENCE

SCHEMA = "gapt-live-session/1"
SOUND_FONTS = ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "/usr/share/sounds/sf2/TimGM6mb.sf2")
_RENDER_SECONDS, _POLL_SECONDS = 120, 0.02
_PIECE = 1000  # entries
_GAIN = 1.0  # FluidSynth's own, 0.2, would leave more of its noise; the loudness is set afterwards


class Recording:
    """What the engine was given, in order; enough to play the session again.

    It holds the engine's tokens but not the engine: recordings stay when sessions, and the network's memory, are gone.
    Its `size` counts steps, events and frames. The step that would pass `limit` ends it: it then holds what was played
    until there, and replays as far.
    """

    def __init__(self, session: str, engine: Engine) -> None:
        self.session = session
        self._first = self._last = engine.controls
        self._model = engine.model
        self._notes, self._decided = engine.heard, engine.decided  # lists that go on growing
        self.entries: list[dict[str, Any]] = []
        self.seconds = 0.0  # how long it sounds
        self.size, self.limit = 0, RECORDING_SIZE
        self.is_full = False
        self.is_retake = False  # which can be made again

    @property
    def frames(self) -> int:
        """Frames that have passed in it."""
        return len(self._notes)

    def add(self, kind: str, **what: Any) -> None:
        """One step: ``tick``, ``commit``, ``set`` or ``model``, before the engine takes it."""
        if self.is_full:
            return
        frames = max(0, what.get("now_frame", 0) - len(self._notes))
        size = 1 + len(what.get("events", ())) + frames
        if self.size + size > self.limit:
            self.is_full = True
            self._notes = list(self._notes)
            self._decided = self._decided[: len(self._notes)]
            return
        self.size += size
        self.seconds += frames * 15 / self._last.bpm
        self.entries.append({"type": kind, **what})
        if kind == "set":
            self._last = Controls(**what["controls"])

    def to_dict(self) -> dict[str, Any]:
        """The replayable session."""
        melody = list(self._notes)
        chords = self._decided[: len(melody)]
        return {
            "schema": SCHEMA,
            "session": self.session,
            "model": self._model.name,
            "weights_sha256": self._model.weights_sha256,
            "vocabulary_hash": self._model.vocabulary.hash,
            "intro_by": _intro_by(self._model),
            "controls": dataclasses.asdict(self._first),
            "truncated": self.is_full,
            "entries": list(self.entries),
            "chords": chords,
            "symbols": [entry["sym"] for entry in chord_entries(0, chords, SILENCE, self._model.vocabulary)],
            "melody": melody,
        }

    def to_json(self) -> bytes:
        """`to_dict` as JSON, made in pieces: the interpreter makes one piece without a look at other threads."""
        return _as_json(self.to_dict())

    def to_take(self) -> bytes:
        """What the page shows and plays of it, as JSON (docs/live-protocol.md)."""
        timing, vocabulary = timing_of(self._first, self.entries[:]), self._model.vocabulary
        notes, chords = self._sounded(timing.silent)
        runs = chord_runs(chord_entries(0, chords, SILENCE, vocabulary))
        take = {
            "session": self.session,
            "model": self._model.name,
            "frames": len(notes),
            "intro_frames": timing.silent,
            "tempos": [{"f": round(beat * FRAMES_PER_BEAT), "bpm": 60 / pace} for beat, pace in timing.tempos],
            "meters": [{"f": round(beat * FRAMES_PER_BEAT), "beats": beats} for beat, (beats, _) in timing.meters],
            "chords": [run._asdict() for run in runs],
            "notes": [
                {"p": run.pitch, "on": run.start, "off": run.end, "v": timing.velocities.get(run.start, VELOCITY)}
                for run in note_runs(notes)
            ],
        }
        return _as_json(take)

    def to_midi(self) -> bytes:
        """The tracks ``melody`` and ``chords`` as they were heard: tempos, metres, how hard the keys were struck, and
        no chords in the intro."""
        timing = timing_of(self._first, self.entries[:])
        notes, chords = self._sounded(timing.silent)
        return accompaniment(
            np.array(notes, np.int32),
            np.array(chords, np.int32),
            self._model.vocabulary,
            tempos=timing.tempos,
            meters=timing.meters,
            velocities=timing.velocities,
        )

    def _sounded(self, silent: int) -> tuple[list[int], list[int]]:
        """Tokens (of notes, of chords) as they were heard: no chords in the first `silent` frames."""
        notes = list(self._notes)
        quiet = min(silent, len(notes))
        return notes, [SILENCE] * quiet + self._decided[quiet : len(notes)]

    def retaken(self, session: str, model: LiveModel) -> Iterator[Recording]:
        """The same melody with another model from the begin, under the same controls: the recording of it as it grows,
        step by step. Changes of the model are left out. With the same model the chords are the same bit for bit."""
        engine = Engine(model, self._first)
        made = Recording(session, engine)
        made.is_retake = True
        for entry in self.entries[:]:
            if entry["type"] != "model":
                made.add(entry["type"], **{name: value for name, value in entry.items() if name != "type"})
                _take_step(engine, entry)
            yield made


def _as_json(values: dict[str, Any]) -> bytes:
    return f"{{{','.join(f'{json.dumps(name)}:{_in_pieces(value)}' for name, value in values.items())}}}".encode()


def _in_pieces(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    pieces = (json.dumps(value[first : first + _PIECE])[1:-1] for first in range(0, len(value), _PIECE))
    return f"[{','.join(pieces)}]"


def replay(record: dict[str, Any], models: dict[str, LiveModel]) -> Engine:
    """Plays a recorded session again: the engine at its end. Raises UserError where a model is not the recorded one."""
    if record.get("schema") != SCHEMA:
        raise UserError(f"this is no recording of the schema {SCHEMA}")
    model = models.get(record["weights_sha256"])
    if model is None:
        raise UserError(f"it was played with other weights ({record['weights_sha256'][:12]}): give that bundle or run")
    if _intro_by(model) != record["intro_by"]:
        raise UserError(f"its first beats were played by the {record['intro_by']}: give the run, not the bundle of it")
    engine = Engine(model, Controls(**record["controls"]))
    for entry in record["entries"]:
        if entry["type"] == "model":
            engine.use(models[entry["weights_sha256"]])
        else:
            _take_step(engine, entry)
    return engine


def _take_step(engine: Engine, entry: dict[str, Any]) -> None:
    """Gives the engine one ``tick``, ``commit`` or ``set`` of a recording."""
    match entry["type"]:
        case "tick" | "commit" as step:
            engine.hear(Event(*event) for event in entry["events"])
            getattr(engine, step)(entry["now_frame"])
        case "set":
            engine.controls = dataclasses.replace(engine.controls, **entry["controls"])


def _intro_by(model: LiveModel) -> str:
    return "anchor" if model.intro else "policy"


def sound_font() -> Path | None:
    """The sound font that WAV files are rendered with, where FluidSynth is installed."""
    found = [Path(path) for path in SOUND_FONTS if Path(path).is_file()]
    return found[0] if found and shutil.which("fluidsynth") else None


def to_wav(midi: bytes, font: Path, stop: threading.Event) -> bytes:
    """MIDI rendered by FluidSynth, then at the loudness of `loudness.level`. Raises SubprocessError where it fails,
    takes too long, or `stop` is set."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound, levelled = (Path(folder) / f"session.{end}" for end in ("mid", "wav", "levelled.wav"))
        score.write_bytes(midi)
        options = ["-ni", "-q", "-g", str(_GAIN), "-r", "44100", "-F", str(sound)]
        command = ["fluidsynth", *options, str(font), str(score)]
        until = time.monotonic() + _RENDER_SECONDS
        nothing = subprocess.DEVNULL
        with subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing) as process:
            while process.poll() is None:
                if stop.wait(_POLL_SECONDS) or time.monotonic() > until:
                    process.kill()
                    process.wait()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        try:
            level(sound, levelled)
        except (wave.Error, EOFError) as error:
            raise subprocess.SubprocessError(f"{command[0]} wrote no sound: {error}") from error
        return levelled.read_bytes()
