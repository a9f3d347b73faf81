"""The made-up inputs of ../shared/cases/songs that are MusicXML or Hookpad's JSON give their right values."""

from pathlib import Path

import pytest

from gapt_jax import chords
from gapt_jax.data_pipeline import catalogue
from gapt_jax.data_pipeline.songs import Song

CASES = Path(__file__).parents[3] / "shared" / "cases" / "songs"
SCALE = ["C4", "D4", "E4", "F4", "G4", "A4", "B4", "C5"]
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not CASES.is_dir(), reason=f"the inputs are absent: {CASES}"),
]


def quarters(*names: str, start: float = 0) -> list[tuple[float, str]]:
    return [(start + beat, name) for beat, name in enumerate(names)]


@pytest.mark.parametrize(
    ("name", "meter", "total", "melody", "harmony"),
    [
        ("20_chords_stand_in_second_part", (4, 4), 8, quarters(*SCALE), "0-4:C 4-8:G"),
        (
            "21_slashes_are_no_melody",
            (4, 4),
            12,
            quarters(*SCALE[:4]) + quarters(*SCALE[4:], start=8),
            "0-4:C 4-8:G 8-12:C",
        ),
        (
            "22_chords_as_words",
            (4, 4),
            16,
            quarters(*SCALE, *SCALE[:4], "C5"),
            "0-4:C 8-12:G7#5 12-16:C",
        ),
        (
            "24_no_time_three_beats",
            (3, 4),
            9,
            quarters(*SCALE[:3], *SCALE[4:7], "C5"),
            "0-3:C 3-6:G 6-9:C",
        ),
        ("25_tie_without_stop", (4, 4), 8, [(0, "C4"), (1, "D4"), (2, "E4"), (6, "F4")], "0-4:C 4-8:G"),
        (
            "27_measure_repeat_sign",
            (4, 4),
            12,
            quarters(*SCALE[:4], *SCALE[:4], *SCALE[4:]),
            "0-8:C 8-12:G",
        ),
        ("28_backup_one_tick_too_far", (4, 4), 4, [(0, "C4"), (1.333333, "D4"), (2.666667, "E4")], "0-4:C"),
        ("29_free_time_pickup", (4, 4), 12, quarters(*SCALE, *SCALE[4:]), "0-8:C 8-12:G"),
        ("70_tritone_substitution", (4, 4), 4, quarters(*SCALE[:4]), "0-4:Db7"),
        ("73_b9_and_sharp9", (4, 4), 4, quarters(*SCALE[:4]), "0-4:G(0,1,3,4,7,10)"),
    ],
)
def test_right_values(name: str, meter: tuple[int, int], total: float, melody: list, harmony: str) -> None:
    (song,) = catalogue.read(next(CASES.glob(f"{name}.*")))
    assert isinstance(song, Song), song
    names = [(note.onset, f"{chords.ROOT_NAMES[note.pitch % 12]}{note.pitch // 12 - 1}") for note in song.melody]
    assert (song.meter, song.pickup, song.beats_total, names) == (meter, 0, total, melody)
    assert " ".join(f"{event.onset:g}-{event.offset:g}:{event.symbol}" for event in song.chords) == harmony


def test_a_file_without_a_song_is_a_fault() -> None:
    (fault,) = catalogue.check(CASES / "72_no_song_at_all.json").faults
    assert fault["reason"] == "it has no song"
