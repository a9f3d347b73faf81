"""Songs to look at and to hear on the page: notes as JSON, sound by WebAudio, no network. Pure text."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from gapt_jax.evaluation.results import Study
from gapt_jax.report.samples import Sample, samples
from gapt_jax.tasks.accompaniment.events import chord_events
from gapt_jax.vocabulary import FRAMES_PER_BEAT, Vocabulary

if TYPE_CHECKING:
    from gapt_jax.report.figures import Drawn

BASS, MIDDLE = 48, 60  # MIDI pitches: the root sounds above the first, the other chord tones above the second
BEATS_PER_MINUTE = 100

SCRIPT = """'use strict';
const data = JSON.parse(document.getElementById('songs').textContent);
let audio = null, playing = null;
const hertz = pitch => 440 * 2 ** ((pitch - 69) / 12);

function note(out, shape, pitch, from, until, level) {
  const tone = audio.createOscillator(), volume = audio.createGain(), end = Math.max(until, from + 0.08);
  tone.type = shape; tone.frequency.value = hertz(pitch);
  volume.gain.setValueAtTime(0, from);
  volume.gain.linearRampToValueAtTime(level, from + 0.015);
  volume.gain.setValueAtTime(level, end - 0.04);
  volume.gain.linearRampToValueAtTime(0, end);
  tone.connect(volume).connect(out); tone.start(from); tone.stop(end + 0.02);
}
function show(box, beat) {
  const song = data.songs[box.dataset.song], at = Math.min(beat / song.beats, 1);
  box.querySelector('.cursor').style.left = 100 * (data.left + (data.right - data.left) * at) + '%';
  const place = box.querySelector('input');
  place.value = beat; place.setAttribute('aria-valuetext', 'beat ' + (1 + Math.floor(beat)) + ' of ' + song.beats);
}
function stop() {
  if (!playing) return;
  const { box, out, button } = playing;
  playing.ended = true; playing = null;
  out.gain.value = 0; setTimeout(() => out.disconnect(), 100);
  button.setAttribute('aria-pressed', 'false');
  box.querySelector('[role=status]').textContent = 'Paused.';
}
function play(box, button) {
  stop();
  audio = audio || new AudioContext(); audio.resume();
  const song = data.songs[box.dataset.song], place = box.querySelector('input');
  let first = Number(place.value); if (first >= song.beats - 0.1) first = 0;
  const out = audio.createGain(); out.gain.value = 0.7; out.connect(audio.destination);
  const start = audio.currentTime + 0.08, time = beat => start + Math.max(beat - first, 0) * 60 / data.bpm;
  for (const [beat, length, pitch] of song.melody)
    if (beat + length > first) note(out, 'triangle', pitch, time(beat), time(beat + length), 0.26);
  for (const [beat, length, pitches] of song.systems[button.dataset.system])
    if (beat + length > first)
      for (const pitch of pitches) note(out, 'sine', pitch, time(beat), time(beat + length), 0.11);
  const mine = playing = { box, out, button, ended: false };
  button.setAttribute('aria-pressed', 'true');
  box.querySelector('[role=status]').textContent = 'Playing: ' + button.textContent + '.';
  (function step() {
    if (mine.ended) return;
    const beat = first + Math.max(audio.currentTime - start, 0) * data.bpm / 60;
    show(box, Math.min(beat, song.beats));
    const view = box.querySelector('.scroll'), cursor = box.querySelector('.cursor').offsetLeft;
    if (cursor < view.scrollLeft || cursor > view.scrollLeft + 0.9 * view.clientWidth) view.scrollLeft = cursor - 40;
    if (beat >= song.beats) { stop(); show(box, 0); } else requestAnimationFrame(step);
  })();
}
for (const box of document.querySelectorAll('[data-song]')) {
  box.querySelector('.player').hidden = false;
  show(box, 0);
  for (const button of box.querySelectorAll('button'))
    button.addEventListener('click', () => playing && playing.button === button ? stop() : play(box, button));
  const place = box.querySelector('input');
  place.addEventListener('input', () => {
    const button = playing && playing.box === box ? playing.button : null;
    if (button) stop();
    show(box, Number(place.value));
    if (button) play(box, button);
  });
}
"""
SCRIPT_HASH = "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()


def section(study: Study, rolls: Sequence[Drawn]) -> str:
    """The piano rolls, each with a button per system and a slider for the place."""
    parts = []
    for number, (song, roll) in enumerate(zip(samples(study), rolls, strict=True)):
        buttons = "".join(
            f'<button type="button" aria-pressed="false" data-system="{escape(system)}">'
            f"{escape(study.name(system))}</button>"
            for system in song.actions
        )
        parts.append(
            f'<div data-song="{number}"><h3>{escape(roll.title)}</h3><div class="player" hidden>'
            f'<div class="controls" role="group" aria-label="Play the melody with the chords of">{buttons}</div>'
            f'<div class="controls"><input type="range" min="0" max="{_beats(song)}" step="0.25" value="0" '
            'aria-label="Place in the song, in beats">'
            '<span role="status" class="soft">Press a system to hear it.</span>'
            f'</div></div><figure><div class="scroll" tabindex="0" role="region" '
            f'aria-label="{escape(roll.title)}">'
            f'<div class="roll">{roll.svg}<span class="cursor"></span></div></div>'
            f"<figcaption>{escape(roll.caption)}</figcaption></figure></div>"
        )
    hint = f"{BEATS_PER_MINUTE} beats a minute. Change the system while it plays: the place is kept."
    return f'<p class="soft">One melody, played by each system. {hint}</p>{"".join(parts)}' if parts else ""


def script(study: Study) -> str:
    """The notes and the player; text inside JSON cannot end its element."""
    from gapt_jax.tasks.accompaniment.piano_roll import LEFT, RIGHT, vocabulary_of

    vocabulary = vocabulary_of(study)
    songs = [
        {
            "beats": _beats(song),
            "melody": melody_notes(song.context[: 4 * _beats(song)], vocabulary),
            "systems": {s: chord_notes(c[: 4 * _beats(song)], vocabulary) for s, c in song.actions.items()},
        }
        for song in samples(study)
    ]
    data = {"songs": songs, "bpm": BEATS_PER_MINUTE, "left": LEFT, "right": RIGHT}
    return f'<script type="application/json" id="songs">{_json(data)}</script>\n<script>{SCRIPT}</script>'


def melody_notes(melody: np.ndarray, vocabulary: Vocabulary) -> list[list[float]]:
    """[first beat, beats, MIDI pitch] of the notes of melody [T]."""
    tables = vocabulary.tables
    pitch = np.where(tables.is_note[melody], tables.event[melody], -1)
    begins = np.flatnonzero(np.append(True, (pitch[1:] != pitch[:-1]) | tables.is_onset[melody][1:]))
    ends = np.append(begins[1:], len(melody))
    return [
        [b / FRAMES_PER_BEAT, (e - b) / FRAMES_PER_BEAT, int(pitch[b])]
        for b, e in zip(begins.tolist(), ends.tolist(), strict=True)
        if len(melody) and pitch[b] >= 0
    ]


def chord_notes(chords: np.ndarray, vocabulary: Vocabulary) -> list[list[Any]]:
    """[first beat, beats, MIDI pitches] of the chords of chords [T]: the root in the bass, the rest in the middle."""
    events = chord_events(chords[None], vocabulary.tables)
    found = []
    for frame, length, chord in zip(events.frame.tolist(), events.length.tolist(), events.chord.tolist(), strict=True):
        classes = np.flatnonzero(vocabulary.chord_pitch_classes[chord]).tolist()
        pitches = [BASS + vocabulary.roots[chord], *(MIDDLE + c for c in classes)]
        found.append([frame / FRAMES_PER_BEAT, length / FRAMES_PER_BEAT, pitches])
    return found


def _beats(song: Sample) -> int:
    from gapt_jax.tasks.accompaniment.piano_roll import frames_of

    return frames_of(song) // FRAMES_PER_BEAT


def _json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
