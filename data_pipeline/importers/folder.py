"""Songs of native files: one file of any supported format, or all of them below a folder."""

from __future__ import annotations

import codecs
import dataclasses
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.importers import abc, hooktheory, midi_song, musicxml, pop909
from gapt_jax.data_pipeline.importers.score import Score, to_song
from gapt_jax.data_pipeline.songs import BadSong, Song

ENDINGS = (".abc", ".mid", ".midi", ".mxl", ".musicxml", ".xml", ".json", ".json.gz")
MAX_BYTES = 16 << 20  # of a file; JSON is read clip by clip and may be longer
MAX_JSON = 2 << 30  # characters
_POP909 = ("beat_midi.txt", "chord_midi.txt")
_CHUNK = 1 << 16  # characters
Remark = Callable[[str, str], None]  # takes the name of a file and what is to be said of it


def native_files(path: Path) -> list[Path]:
    """Files to import below a folder, or the file itself, in the order of their paths.

    A folder of POP909, with its texts beside its MIDI file, stands for its one song.
    """
    if path.is_file():
        return [path] if path.name.lower().endswith(ENDINGS) else []
    if _is_pop909(path):
        return [path]
    found: list[Path] = []
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name):
        if not entry.name.startswith(".") and not entry.is_symlink():
            found += native_files(entry) if entry.is_file() or entry.is_dir() else []
    return found


def source_files(path: Path) -> list[Path]:
    """Of `native_files`, every file that is read."""
    return [part for found in native_files(path) for part in (_pop909_files(found) if found.is_dir() else [found])]


def read_native(path: Path, dataset: str, remark: Remark | None = None) -> Iterator[Song | Rejected]:
    """Songs of `native_files`; what cannot be used is a `Rejected`, the others go on. Names that occur twice are
    numbered. `remark` is told which parts were taken of a file that leaves a choice."""
    root = path if path.is_dir() else path.parent
    used: dict[str, int] = {}
    for file in native_files(path):
        name = str(file.relative_to(root)) if file != root else file.name
        for item in _scores(file):
            if isinstance(item, Rejected):
                yield dataclasses.replace(item, file=name)
                continue
            used[item.name] = used.get(item.name, 0) + 1
            unique = item.name if used[item.name] == 1 else f"{item.name}-{used[item.name]}"
            try:
                song = to_song(dataclasses.replace(item, name=unique), dataset)
                if remark and item.source:
                    remark(name, item.source)
                yield song
            except BadSong as error:
                yield Rejected(name, item.line, str(error))


def _is_pop909(folder: Path) -> bool:
    return all((folder / text).is_file() for text in _POP909) and (folder / f"{folder.name}.mid").is_file()


def _pop909_files(folder: Path) -> list[Path]:
    return [folder / f"{folder.name}.mid", *(folder / text for text in _POP909)]


def _scores(path: Path) -> Iterator[Score | Rejected]:
    """Of one file; a fault of the file as a whole is a `Rejected` on its first line."""
    try:
        yield from _read(path)
    except BadSong as error:
        yield Rejected(path.name, 1, str(error))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Rejected(path.name, 1, f"it is a damaged or truncated gzip file ({error})")
    except OSError as error:
        yield Rejected(path.name, 1, f"it cannot be read ({error.strerror or error})")


def _read(path: Path) -> Iterator[Score | Rejected]:
    stem, ending = path.stem, path.suffix.lower()
    if path.is_file() and not path.stat().st_size:
        raise BadSong("it is empty")
    if path.is_dir():
        midi_file, beats, chords = _pop909_files(path)
        yield pop909.read(_bytes(midi_file), _text(beats), _text(chords), path.name)
    elif ending == ".abc":
        yield from abc.read(_text(path), stem)
    elif ending in (".mid", ".midi"):
        yield midi_song.read(_bytes(path), stem)
    elif ending in (".mxl", ".musicxml", ".xml"):
        yield musicxml.read(_bytes(path), stem)
    else:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if ending == ".gz"
            else path.open("r", encoding="utf-8-sig") as stream
        ):
            yield from hooktheory.read(_chunks(stream), stem.removesuffix(".json"))


def _bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadSong(f"it has more than {MAX_BYTES >> 20} MB")
    return content


def _text(path: Path) -> str:
    """UTF-8, UTF-16 by its byte order mark, or what older programs wrote: Latin-1."""
    content = _bytes(path)
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError:
            raise BadSong("it is damaged UTF-16 text: save it as UTF-8") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _chunks(stream: IO[str]) -> Iterator[str]:
    total = 0
    try:
        while chunk := stream.read(_CHUNK):
            total += len(chunk)
            if total > MAX_JSON:
                raise BadSong("it has more than 2 GiB of text")
            yield chunk
    except UnicodeDecodeError:
        raise BadSong("it is not UTF-8 text") from None
