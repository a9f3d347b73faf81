"""The suite `data` of ``gapt bench``, on the host alone: batches of training songs, and songs read from files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from gapt_jax.benchmark.cases import Size
from gapt_jax.benchmark.measure import Case, Run
from gapt_jax.data_pipeline import grammar, store
from gapt_jax.data_pipeline.importers import abc, abc_writer, midi_song
from gapt_jax.data_pipeline.importers.score import Score, to_song
from gapt_jax.data_pipeline.loader import Corpus, build_vocabulary
from gapt_jax.data_pipeline.songs import parse_song, to_frames, to_record

SONGS = 256  # of the built-in generator


def data_cases(sizes: Sequence[Size]) -> Iterator[Case]:
    """The suite: formats of songs, then the loader at each size."""
    yield from import_cases()
    yield from itertools.chain.from_iterable(map(loader_cases, sizes))


def loader_cases(size: Size) -> Iterator[Case]:
    """A batch of an iteration, cropped and transposed, from the training stream."""
    found = _songs()
    bars = [store.bar_frames(song.meter, song.pickup) for song, _ in found]
    songs = store.of_frames({song.id: frames for song, frames in found}, bars)
    splits = dict.fromkeys(("train", "valid", "test"), songs)
    corpus = Corpus(
        vocabulary=build_vocabulary([songs], 1.0),
        fingerprint="",
        unlisted_chord_share={},
        mixture=(("grammar", 1.0),),
        max_frames=size.frames,
        datasets={"grammar": splits},
    )
    count = size.songs(size.experiment.algorithm.batch_size)
    batches = iter(corpus.training_batches(batch_size=count, seed=0, transpose=True))
    name = size.prefix(size.experiment.algorithm.batch_size)
    yield Case(f"data/{name}/loader", lambda: next(batches), (), count * size.frames, f"{count} × {size.frames} frames")


def import_cases() -> Iterator[Case]:
    """Songs from a file's content to a checked record, by format."""
    songs = _songs()
    frames = sum(len(found) for _, found in songs)
    records = [to_record(song) for song, _ in songs]
    midi_files = [midi_song.write(song) for song, _ in songs]
    book = abc_writer.write(song for song, _ in songs)

    def read_abc() -> Any:
        return [to_song(score, "book") for score in abc.read(book, "book") if isinstance(score, Score)]

    runs: dict[str, Run] = {
        "record": lambda: [parse_song(record) for record in records],
        "midi": lambda: [to_song(midi_song.read(content, "tune"), "set") for content in midi_files],
        "abc": read_abc,
    }
    for name, run in runs.items():
        yield Case(f"data/import/{name}", run, (), frames, f"{len(songs)} songs")


def _songs() -> list[tuple[Any, Any]]:
    """The first songs of the built-in generator, with their frames."""
    return [(song, to_frames(song)) for song in itertools.islice(grammar.generate("grammar"), SONGS)]
