"""Public datasets: where each comes from, pinned, under which licence, and how to tell that it is what it should be."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapt_jax.data_pipeline.importers.folder import source_files
from gapt_jax.errors import UserError

MAX_UNPACKED = 2 << 30  # bytes


@dataclass(frozen=True)
class Upstream:
    """A public dataset. `folder` is where its files lie in the archive; none: what is fetched is the file itself."""

    title: str
    homepage: str
    revision: str  # the commit in `url`, or the SHA-256 of the file
    url: str
    folder: str | None
    files: int  # that an import reads
    licence: str
    citation: str
    is_commercial: bool = True  # whether the licence allows commercial use
    checksums: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of some files, by path in `folder`

    def verify(self, folder: Path) -> None:
        """Raises UserError where a folder does not hold the pinned files."""
        found = source_files(folder)
        if len(found) != self.files:
            raise UserError(f"{folder} has {len(found)} files to import, not the {self.files} of {self.title}")
        for name, expected in self.checksums.items():
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).is_file() else "none"
            if digest != expected:
                raise UserError(f"{folder / name} is not that of {self.title} (SHA-256 {digest}, expected {expected})")

    def by_hand(self, place: Path) -> str:
        """What to do without a network."""
        what = f"unpack it and put its folder {self.folder} there as" if self.folder else "put it, as it is, into"
        return f"fetch {self.url} on another machine, {what} {place}"


def _archive(repository: str, revision: str, folder: str) -> dict[str, Any]:
    home = f"https://github.com/{repository}"
    inside = f"{repository.partition('/')[2]}-{revision}/{folder}"
    return {"homepage": home, "revision": revision, "url": f"{home}/archive/{revision}.zip", "folder": inside}


_HOOKTHEORY = "917b7cd58f5f4e07d6c36acf7bfad958c99ee05472dab3555399141094698e0c"
UPSTREAM = {
    "nottingham": Upstream(
        "the Nottingham Music Database, cleaned",
        **_archive("jukedeck/nottingham-dataset", "bcb2afc67d291acdd689ed0c22ab2a8a480f38a6", "ABC_cleaned"),
        files=14,
        licence="GPL-3.0",
        citation="E. Foxley: Nottingham Music Database; cleaned by Jukedeck",
        checksums={
            "playford.abc": "070877bc37176e0dedbcd038268d6669399201cd7b58d88b4ab36127528f9c76",
            "slip.abc": "da686b3a0de20aab38e64f8c8ec57edace980bab6450a6c388d79a2866e5b16a",
            "xmas.abc": "05ebc4b856c8c5186bb828641e8f88f723c109d47ba7e3f1e5048b536e091249",
        },
    ),
    "pop909": Upstream(
        "POP909",
        **_archive("music-x-lab/POP909-Dataset", "efa0bce09b0b8dc241957412270aba6740bd0bf5", "POP909"),
        files=3 * 909,
        licence="MIT (the dataset; the songs themselves are in copyright)",
        citation="Wang et al.: POP909: A Pop-song Dataset for Music Arrangement Generation, ISMIR 2020",
        checksums={
            "092/092.mid": "d702f20ac6e33d7a5673af9135657b9bcc2805b2b25c6b5b6d556b13fa64a9a7",
            "447/beat_midi.txt": "e83783fa3625c791738c13cc6a76ba647a982082b5945937ca62481359578bcb",
            "806/chord_midi.txt": "411f6a525212aef0b33669418f6e5fd6e265568cc8c4fef35f69d376e3dbb5e3",
        },
    ),
    "openewld": Upstream(
        "OpenEWLD",
        **_archive("00sapo/OpenEWLD", "9bbb6d292c96c9ab2dee64b7ff5cdba60612b7a0", "dataset"),
        files=502,
        licence="stated public domain, by the deaths of the authors (133 of the 502 works are from after 1930 and "
        "may be protected in the USA)",
        citation="Simonetta et al.: Symbolic Music Similarity through a Graph-Based Representation, AM 2018",
    ),
    "hooktheory": Upstream(
        "Hooktheory, as released with SheetSage",
        homepage="https://github.com/chrisdonahue/sheetsage",
        revision=_HOOKTHEORY,
        url="https://nlp.stanford.edu/data/cdonahue/sheetsage/hooktheory/Hooktheory.json.gz",
        folder=None,
        files=1,
        licence="CC BY-NC-SA 3.0",
        citation="Donahue et al.: Melody Transcription via Generative Pre-training, ISMIR 2022",
        is_commercial=False,
        checksums={"Hooktheory.json.gz": _HOOKTHEORY},
    ),
}

_MADE_HERE = ("none needed: songs of this package's generator", "gapt_jax/data_pipeline/grammar.py")
_OTHERS = {  # sets that no importer makes: (licence, homepage)
    **dict.fromkeys(("grammar", "grammar_c", "grammar_modal"), _MADE_HERE),
    "lily_pd": (
        "public domain: sheets published up to 1930, typeset under the Unlicense",
        "https://github.com/neonscribe/lilypond-lead-sheets",
    ),
    "tuneworks": ("GPL-2.0-or-later or CC BY-SA 4.0", "https://github.com/jw35/tunebook-abc"),
    "oldtime": ("CC BY-SA 4.0", "https://github.com/rjl20/abc-tunebook"),
}


def terms(name: str) -> tuple[str, str]:
    """(licence as its source states it, where it is) of a dataset by its name; empty where they are not known."""
    known = UPSTREAM.get(name)
    return (known.licence, known.homepage) if known else _OTHERS.get(name, ("", ""))


def restriction(name: str) -> str | None:
    """The licence of a public dataset where it forbids commercial use, as a sentence; None elsewhere."""
    known = UPSTREAM.get(name)
    if known is None or known.is_commercial:
        return None
    return f"{name}: its licence, {known.licence}, forbids commercial use ({known.homepage})"


def fetch(name: str, dl_manager: Any, place: Path) -> Path:
    """The folder of a public dataset, fetched by a TFDS download manager, unpacked beside what it fetched, verified.

    Raises UserError with what to put at `place` where it cannot be had.
    """
    known = UPSTREAM[name]
    try:
        fetched = Path(dl_manager.download(known.url))
        folder = fetched.parent / f"{name}-{known.revision[:12]}"
        if not folder.is_dir():
            with tempfile.TemporaryDirectory() as temporary:
                shutil.copytree(_unpack(known, fetched, Path(temporary)), folder)
    except Exception as error:  # of the network, the server or the archive: many kinds
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UserError(f"{known.title} could not be fetched ({reason}): {known.by_hand(place)}") from None
    try:
        known.verify(folder)
    except UserError:
        shutil.rmtree(folder)
        raise
    return folder


def _unpack(known: Upstream, fetched: Path, temporary: Path) -> Path:
    """The dataset's folder, in a temporary one."""
    if known.folder is None:
        alone = temporary / "alone"
        alone.mkdir()
        shutil.copyfile(fetched, alone / known.url.rpartition("/")[2])
        return alone
    with zipfile.ZipFile(fetched) as archive:
        members = [member for member in archive.infolist() if member.filename.startswith(f"{known.folder}/")]
        if sum(member.file_size for member in members) > MAX_UNPACKED or not members:
            raise ValueError(f"the archive has no folder {known.folder}, or one of more than {MAX_UNPACKED >> 20} MB")
        archive.extractall(temporary, members)  # never outside the folder, whatever the names
    return temporary / known.folder
