"""Where the songs of a dataset come from: a song file, a folder of native files, a public archive, the generator."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from gapt_jax.data_pipeline import grammar, hygiene
from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.importers.folder import native_files, read_native, source_files
from gapt_jax.data_pipeline.songs import FILE_ENDINGS, Song, read_songs
from gapt_jax.data_pipeline.upstream import UPSTREAM
from gapt_jax.errors import UserError

FRAMES_VERSION = 3  # raise when frames, an importer or the record changes: prepared datasets are then made anew
BUILT_IN = "grammar"  # the source word for the built-in generator
ALL = "all"  # the dataset of all songs that a folder holds, unless the folder has one of that name


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset's songs. `path` is a song file or a folder of native files; None: the generator, or, where `place`
    is given, the public archive, which may be put there by hand."""

    name: str
    path: Path | None
    place: Path | None = None

    @property
    def fingerprint(self) -> str:
        """12 hex digits of the source: bytes of its files, its pinned revision or the parameters of the generator,
        and how frames are made."""
        digest = hashlib.sha256(f"frames {FRAMES_VERSION} ".encode())
        if self.path is None:
            text = UPSTREAM[self.name].revision if self.place else grammar.fingerprint_text(self.name)
            digest.update(text.encode())
            return digest.hexdigest()[:12]
        is_folder = self.path.is_dir()
        for file in self._files():
            digest.update(f"\n{file.relative_to(self.path)}\n".encode() if is_folder else b"")
            try:
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
            except OSError as error:
                raise UserError(f"{file} cannot be read ({error.strerror}): check the path and its rights") from error
        return digest.hexdigest()[:12]

    def _files(self) -> list[Path]:
        assert self.path is not None
        if not self.path.is_dir():
            return [self.path]
        parts = _parts_of_all(self.path) if self.name == ALL else [self.path]
        return [file for part in parts for file in ([part] if part.name.endswith(FILE_ENDINGS) else source_files(part))]

    def songs(self) -> Iterator[Song | Rejected]:
        """Songs, in the order of the file or of the files' names. Of native files, which say nothing of splits, a
        song that a split held out further has too is left out."""
        if self.path is None:
            yield from grammar.generate(self.name)
        elif self.path.is_dir():
            found = _all_songs(self.path) if self.name == ALL else read_native(self.path, self.name)
            yield from _without_leaks(list(found))
        else:
            yield from read_songs(self.path)

    def __str__(self) -> str:
        return str(self.path or (UPSTREAM[self.name].url if self.place else BUILT_IN))


def _parts_of_all(folder: Path) -> list[Path]:
    """What the dataset `ALL` is made of: the song files, folders of native files and native files in a folder, but for
    the runs that were made there."""
    datasets = [path for name, path in datasets_of(folder).items() if name != "runs"]
    return datasets + [file for file in native_files(folder) if file.parent == folder]


def _all_songs(folder: Path) -> Iterator[Song | Rejected]:
    """Songs of all parts; ids that occur twice are numbered."""
    used: dict[str, int] = {}
    for part in _parts_of_all(folder):
        is_records = part.name.endswith(FILE_ENDINGS)
        for item in read_songs(part) if is_records else read_native(part, ALL if part.is_file() else part.name):
            if isinstance(item, Song):
                used[item.id] = used.get(item.id, 0) + 1
                if used[item.id] > 1:
                    item = dataclasses.replace(item, id=f"{item.id}-{used[item.id]}")
            yield item


def _without_leaks(items: list[Song | Rejected]) -> Iterator[Song | Rejected]:
    elsewhere = hygiene.heard_elsewhere(item for item in items if isinstance(item, Song))
    for item in items:
        other = elsewhere.get(item.id) if isinstance(item, Song) else None
        if isinstance(item, Song) and other is not None:
            reason = f"{item.id} has the melody or the group of {other.id}, which is in the {other.split} split"
            yield Rejected(item.dataset, 1, reason)
        else:
            yield item


def datasets_of(folder: Path) -> dict[str, Path]:
    """Datasets of a songs folder by name: its song files, and its folders that hold native files."""
    found: dict[str, Path] = {}
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.name.startswith(".") and native_files(entry):
            found[entry.name] = entry
    for ending in reversed(FILE_ENDINGS):  # a .jsonl.gz goes before a .jsonl of the same name
        found |= {path.name.removesuffix(ending): path for path in sorted(folder.glob(f"*{ending}"))}
    return dict(sorted(found.items()))


def _list_names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def missing_from(names: Iterable[str], folder: Path) -> list[str]:
    """Of these datasets, those that neither a songs folder nor the generator has."""
    found = datasets_of(folder)
    is_empty = is_without_songs(folder)
    return [n for n in names if n not in found and n not in grammar.DATASETS and (n != ALL or is_empty)]


def is_without_songs(folder: Path) -> bool:
    """Whether there is nothing in a folder that the dataset `ALL` could be made of."""
    return not _parts_of_all(folder)


def names_in(folder: Path) -> str:
    """The datasets of a songs folder, for a message."""
    found = list(datasets_of(folder))
    return ", ".join(found + [ALL] * (ALL not in found and not is_without_songs(folder))) or "none"


def _nearest(name: str, known: Iterable[str]) -> str:
    """The beginning of an advice, where a known name is much like this one."""
    return "".join(f"did you mean '{near}'? Else " for near in difflib.get_close_matches(name, list(known), 1, 0.75))


def _as_songs(name: str) -> str:
    return f"`gapt data prepare {name} --songs FOLDER` (for `gapt run`: --set data.songs=FOLDER)"


def find_source(name: str, source: str | Path) -> Source:
    """Where dataset `name` comes from: the folder's own, else a public archive, else the generator."""
    if str(source) == BUILT_IN:
        if name in grammar.DATASETS:
            return Source(name, None)
        raise UserError(
            f"dataset '{name}' is not built in (built in: {_list_names(grammar.DATASETS)}): "
            f"{_nearest(name, grammar.DATASETS)}name the folder that holds {name}.jsonl.gz, or a folder {name} of ABC, "
            f"MusicXML, MIDI or JSON files: `gapt data prepare {name} --songs FOLDER`, or data.songs of an experiment"
        )
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.exists():
            raise UserError(f"{folder} is a file: name the folder that holds it, as --songs or data.songs")
        raise UserError(
            f"there is no folder {folder} (looked for {name}.jsonl.gz in it): name the folder that holds "
            f"the song files, {_as_songs(name)}"
        )
    found = datasets_of(folder)
    if name in found:
        return Source(name, found[name])
    if name == ALL and _parts_of_all(folder):
        return Source(name, folder)
    if name in UPSTREAM:
        return Source(name, None, folder / name)
    if name in grammar.DATASETS:
        return Source(name, None)
    raise UserError(
        f"there is no {folder / name}.jsonl.gz and no folder {folder / name} with native files (datasets in that "
        f"folder: {names_in(folder)}): {_nearest(name, [*found, *UPSTREAM, *grammar.DATASETS])}choose one of them, "
        f"or name another folder, {_as_songs(name)}"
    )
