"""How policies accompany five tunes in the public domain that none of them has heard (docs/jam/tunes.abc).

python docs/jam_figures.py DIR... [--out FILE.json]   (runs or bundles; without --out nothing is written)

Each plays each tune through the live engine as `gapt play` does: at temperature 1 with the seeds 0, 1, 2, and once at
temperature 0. The first row is what the tune book itself has for chords.
"""

import argparse
from pathlib import Path

import numpy as np

from gapt_jax.data_pipeline import catalogue, store
from gapt_jax.data_pipeline.songs import Song, to_frames
from gapt_jax.live import release
from gapt_jax.live.model import open_models
from gapt_jax.live.release import Tune
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import git_revision, strict_json, write_atomic
from gapt_jax.vocabulary import Vocabulary

BOOK = Path(__file__).with_name("jam") / "tunes.abc"
COLUMNS = ("note_in_chord", "note_in_chord_chance", "changes_on_beat", "longest_chord_bars", "fewest_chords")


def songs_of(book: Path) -> list[Song]:
    """The tunes of a book. Raises ValueError where one cannot be read."""
    found = list(catalogue.read(book))
    if faults := [item for item in found if not isinstance(item, Song)]:
        raise ValueError(f"{book}, line {faults[0].line}: {faults[0].reason}")
    return found


def tune_of(song: Song) -> Tune:
    pickup, bar = store.bar_frames(song.meter, song.pickup)
    melody = release.from_bar_line(store.melody_tokens(to_frames(song)), pickup, bar)
    return Tune(song.title or song.id, melody, round(bar))


def chords_of(song: Song, vocabulary: Vocabulary) -> np.ndarray:
    """[T] int32 chord tokens of a song, from where its `tune_of` begins."""
    chords = store.chord_tokens(to_frames(song), vocabulary)
    return release.from_bar_line(chords, *store.bar_frames(song.meter, song.pickup))


def as_written(songs: list[Song], vocabulary: Vocabulary) -> dict:
    """`release.summary` of the chords in the book; those that the vocabulary lacks become their nearest."""
    found = [release.measure(tune_of(song), chords_of(song, vocabulary), vocabulary.tables) for song in songs]
    return release.summary(found, found)


def main() -> None:
    parser = argparse.ArgumentParser(description="The figures by which policies are released as bands.")
    parser.add_argument("policies", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    console, songs = Console(), songs_of(BOOK)
    tunes, models = [tune_of(song) for song in songs], open_models(args.policies, console)
    systems = {"tune book": as_written(songs, models[0].vocabulary)}
    known = {}
    for model in models:
        console.say(f"{model.name} plays {len(tunes)} tunes")
        systems[model.name] = release.of_policy(model, tunes)
        known[model.name] = {"system": model.system, "weights_sha256": model.weights_sha256}
    rows = [(name, *(found[column] for column in COLUMNS)) for name, found in systems.items()]
    console.table("Five tunes, three seeds", ["policy", *COLUMNS], rows)
    for name, found in systems.items():
        for demand, is_met in found.get("criteria", {}).items():
            console.say(f"{name}: {demand}: {'yes' if is_met else 'no'}")
    if args.out:
        facts = {"git_revision": git_revision(), "seeds": release.SEEDS, "policies": known}
        write_atomic(args.out, strict_json(facts | {"systems": systems}, indent=1) + "\n")
        console.say(f"wrote {args.out}")


if __name__ == "__main__":
    main()
