"""A session as it was: replayable JSON, MIDI and, where FluidSynth is installed, sound."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gapt_jax.errors import UserError
from gapt_jax.live.engine import Controls, Engine, Event, chord_entries
from gapt_jax.live.model import LiveModel
from gapt_jax.runtime.midi import accompaniment
from gapt_jax.vocabulary import SILENCE

SCHEMA = "gapt-live-session/1"
SOUND_FONTS = ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "/usr/share/sounds/sf2/TimGM6mb.sf2")
_RENDER_SECONDS = 120
_GAIN = 1.0  # FluidSynth's own, 0.2, leaves peaks at -32 dB


class Recording:
    """What the engine was given, in order; enough to play the session again.

    It holds the engine's tokens but not the engine: recordings stay when sessions, and the network's memory, are gone.
    """

    def __init__(self, session: str, engine: Engine) -> None:
        self.session = session
        self._first = self._last = engine.controls
        self._model = engine.model
        self._notes, self._decided = engine.notes, engine.decided  # lists that go on growing
        self.entries: list[dict[str, Any]] = []

    def add(self, kind: str, **what: Any) -> None:
        """One step: ``tick``, ``set``, ``model`` or ``reset``, at the frame that it found the engine at."""
        self.entries.append({"type": kind, **what})
        if kind == "set":
            self._last = Controls(**what["controls"])

    def to_dict(self) -> dict[str, Any]:
        """The replayable session."""
        chords = self._decided[: len(self._notes)]
        return {
            "schema": SCHEMA,
            "session": self.session,
            "model": self._model.name,
            "weights_sha256": self._model.weights_sha256,
            "vocabulary_hash": self._model.vocabulary.hash,
            "intro_by": _intro_by(self._model),
            "controls": dataclasses.asdict(self._first),
            "entries": self.entries,
            "chords": chords,
            "symbols": [entry["sym"] for entry in chord_entries(0, chords, SILENCE, self._model.vocabulary)],
            "melody": self._notes,
        }

    def to_midi(self) -> bytes:
        """The tracks ``melody`` and ``chords``; chords of the intro are silent, as they were."""
        notes = np.array(self._notes, np.int32)
        chords = np.array(self._decided[: len(notes)], np.int32)
        chords[: self._last.intro_frames] = SILENCE
        return accompaniment(notes, chords, self._model.vocabulary, self._last.bpm)


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
        match entry["type"]:
            case "tick":
                engine.hear(Event(*event) for event in entry["events"])
                engine.tick(entry["now_frame"])
            case "set":
                engine.controls = dataclasses.replace(engine.controls, **entry["controls"])
            case "model":
                engine.use(models[entry["weights_sha256"]])
    return engine


def _intro_by(model: LiveModel) -> str:
    return "anchor" if model.intro else "policy"


def sound_font() -> Path | None:
    """The sound font that WAV files are rendered with, where FluidSynth is installed."""
    found = [Path(path) for path in SOUND_FONTS if Path(path).is_file()]
    return found[0] if found and shutil.which("fluidsynth") else None


def to_wav(midi: bytes, font: Path) -> bytes:
    """MIDI rendered by FluidSynth."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder) / "session.mid", Path(folder) / "session.wav"
        score.write_bytes(midi)
        options = ["-ni", "-q", "-g", str(_GAIN), "-r", "44100", "-F", str(sound)]
        command = ["fluidsynth", *options, str(font), str(score)]
        subprocess.run(command, check=True, capture_output=True, timeout=_RENDER_SECONDS)
        return sound.read_bytes()
