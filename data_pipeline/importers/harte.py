"""Chord labels in Harte's syntax (``Bb:min7/b3``, ``N``), as annotations of recordings write them."""

from __future__ import annotations

import mir_eval.chord

from gapt_jax.chords import MAX_SYMBOL, Chord, fold


def parse(label: str) -> Chord | None:
    """The chord of a label, None where nothing is played (``N``) or nothing is known (``X``).

    Raises ValueError on a label that is not understood.
    """
    try:
        if len(label) > MAX_SYMBOL:
            raise ValueError
        root, quality, degrees, bass = mir_eval.chord.split(label, reduce_extended_chords=True)
        if root in ("N", "X"):
            return None
        tones = {step for step, played in enumerate(mir_eval.chord.quality_to_bitmap(quality)) if played}
        degree_sets: tuple[set[int], set[int]] = set(), set()  # added, left out
        for degree in degrees:
            degree_sets[degree.startswith("*")].add(mir_eval.chord.scale_degree_to_semitone(degree.strip("*")) % 12)
        pitch_class = mir_eval.chord.pitch_class_to_semitone(root) % 12
        above = mir_eval.chord.scale_degree_to_semitone(bass) % 12
    except (ValueError, mir_eval.chord.InvalidChordException):
        raise ValueError(f"{label[:MAX_SYMBOL]!r} is no chord label") from None
    intervals = fold((tones | degree_sets[0]) - degree_sets[1])
    return Chord(pitch_class, intervals, (pitch_class + above) % 12)
