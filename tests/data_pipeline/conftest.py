"""Small songs, song folders and the built-in corpus, opened once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from gapt_jax.data_pipeline.loader import Corpus, open_corpus
from tests.data_pipeline.song_records import REAL_SONGS, write_songs


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def built_in(data_dir: Path) -> Corpus:
    """The built-in songs with 32-beat crops."""
    return open_corpus(
        songs="grammar",
        mixture=[("grammar", 1.0)],
        out_of_domain=["grammar_modal"],
        max_frames=128,
        chord_coverage=0.999,
        data_dir=data_dir,
    )


@pytest.fixture(scope="session")
def real_songs() -> Path:
    return REAL_SONGS


@pytest.fixture
def song_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with one song file for each keyword argument."""

    def make(**datasets: Iterable[Any]) -> Path:
        for name, records in datasets.items():
            write_songs(tmp_path / "songs" / f"{name}.jsonl.gz", records)
        return tmp_path / "songs"

    return make
