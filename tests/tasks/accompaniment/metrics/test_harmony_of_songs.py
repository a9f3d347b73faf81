"""Data's own note-in-chord on real songs, beside what the data's README measured on their notes."""

from pathlib import Path

import numpy as np
import pytest

from gapt_jax.data_pipeline.loader import open_corpus
from gapt_jax.tasks.accompaniment import harmony

SONGS = Path(__file__).resolve().parents[4].parent / "shared" / "data" / "songs"
PUBLISHED = {  # README: (in chord, chance)
    "openewld": (0.779, 0.25),
    "nottingham": (0.790, 0.22),
    "pop909": (0.725, 0.22),
    "tuneworks": (0.698, 0.21),
    "oldtime": (0.745, 0.21),
    "lily_pd": (0.743, 0.29),
    "hooktheory": (0.723, 0.23),
}
MAX_FRAMES = {"hooktheory": 256}  # clips of at most 64 beats


@pytest.mark.real_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_note_in_chord_of_data_is_that_of_its_readme(name, tmp_path):
    """The README counts time, foreign basses too, on exact onsets; we count sixteenth frames of crops (here whole
    songs), no foreign basses, chords of the vocabulary. With every chord in the vocabulary what is left is the grid
    and the bass: 0.02."""
    corpus = open_corpus(
        songs=str(SONGS), mixture=[(name, 1.0)], out_of_domain=[], chord_coverage=1.0, data_dir=tmp_path,
        max_frames=MAX_FRAMES.get(name, 4096),
    )  # fmt: skip
    songs = corpus.evaluation_songs(name, "all", 100_000)
    tables = corpus.vocabulary.tables
    in_chord, chance = PUBLISHED[name]
    assert harmony.note_in_chord(songs.context, songs.actions, tables).pooled == pytest.approx(in_chord, abs=0.02)
    assert harmony.chance_level(songs.context, songs.actions, tables) == pytest.approx(chance, abs=0.02)
    assert np.mean(harmony.silent_share(songs.context, songs.actions, tables)) < 0.03
