"""Datasets of native files and of public archives: found, fetched, verified, prepared."""

import dataclasses
import functools
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from gapt_jax.commands.main import main
from gapt_jax.data_pipeline import builders, catalogue, upstream
from gapt_jax.data_pipeline.builders import open_splits, prepare
from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.importers import folder, midi_song
from gapt_jax.data_pipeline.songs import Song, parse_song, to_frames
from gapt_jax.data_pipeline.sources import datasets_of, find_source
from gapt_jax.data_pipeline.upstream import UPSTREAM
from gapt_jax.errors import UserError
from tests.data_pipeline.song_records import make_record, write_songs


def tune(number: int) -> Song:
    melody = [[n / 2, n / 2 + 0.5, 60 + (n * n * (number + 2)) % 23] for n in range(16)]
    return parse_song(make_record(f"set/{number}", melody=melody))


def write_tunes(path: Path, count: int = 20) -> Path:
    path.mkdir(parents=True)
    for number in range(count):
        (path / f"tune{number:02}.mid").write_bytes(midi_song.write(tune(number)))
    return path


def test_a_folder_of_native_files_is_a_dataset(tmp_path):
    write_tunes(tmp_path / "songs" / "airs" / "book one")
    (tmp_path / "songs" / "airs" / "broken.mid").write_bytes(b"MThd")
    (tmp_path / "songs" / "airs" / "readme.txt").write_text("no song")
    (tmp_path / "songs" / "papers").mkdir()
    write_songs(tmp_path / "songs" / "reels.jsonl.gz", [make_record()])
    assert list(datasets_of(tmp_path / "songs")) == ["airs", "reels"]
    prepared = prepare("airs", tmp_path / "songs", tmp_path / "data")
    assert sum(prepared.report["songs"].values()) == 20 and prepared.report["rejected_total"] == 1
    assert prepared.report["rejected"][0] | {"reason": ""} == {"file": "broken.mid", "line": 1, "reason": ""}
    found = {str(i): part.song(n) for part in open_splits(prepared).values() for n, i in enumerate(part.ids)}
    for number in range(20):
        expected = to_frames(tune(number))
        assert (found[f"airs/tune{number:02}"].melody_pitch == expected.melody_pitch).all()


def test_its_fingerprint_is_that_of_the_files_not_of_their_order_or_place(tmp_path):
    one, two = write_tunes(tmp_path / "a" / "airs", 3), write_tunes(tmp_path / "b" / "airs", 0)
    for name in ("tune02.mid", "tune00.mid", "tune01.mid"):
        (two / name).write_bytes((one / name).read_bytes())
    first, second = (find_source("airs", tmp_path / side) for side in "ab")
    assert first.fingerprint == second.fingerprint
    (two / "notes.txt").write_text("not read")
    assert first.fingerprint == second.fingerprint
    (two / "tune01.mid").rename(two / "tune09.mid")
    assert first.fingerprint != second.fingerprint


def test_names_that_occur_twice_are_numbered_and_links_not_followed(tmp_path):
    for side in ("a", "b"):
        write_tunes(tmp_path / "set" / side, 1)
    (tmp_path / "set" / "link").symlink_to(tmp_path / "set" / "a")
    songs = list(folder.read_native(tmp_path / "set", "set"))
    assert [song.id for song in songs] == ["set/tune00", "set/tune00-2"]


def test_songs_that_a_held_out_split_has_are_left_out(tmp_path, monkeypatch):
    write_tunes(tmp_path / "songs" / "airs", 1)
    (tmp_path / "songs" / "airs" / "other.mid").write_bytes((tmp_path / "songs" / "airs" / "tune00.mid").read_bytes())
    songs = list(folder.read_native(tmp_path / "songs" / "airs", "airs"))
    torn = [dataclasses.replace(songs[0], split="test"), dataclasses.replace(songs[1], split="train")]
    monkeypatch.setattr("gapt_jax.data_pipeline.sources.read_native", lambda *_: iter(torn))
    kept, left_out = find_source("airs", tmp_path / "songs").songs()
    assert isinstance(left_out, Rejected) and kept is torn[0] and "in the test split" in left_out.reason


def test_check_reads_native_files_and_names_the_same_melodies(tmp_path, capsys):
    write_tunes(tmp_path / "airs", 3)
    (tmp_path / "airs" / "again.mid").write_bytes((tmp_path / "airs" / "tune00.mid").read_bytes())
    result = catalogue.check(tmp_path / "airs")
    assert result.faults == [] and result.leaks == []
    assert [[identity for _, identity, _ in found.songs] for found in result.duplicates] == [
        ["airs/again", "airs/tune00"]
    ]
    assert catalogue.check(tmp_path / "airs" / "tune00.mid").files[0]["file"] == "tune00.mid"
    assert main(["data", "check", str(tmp_path / "airs")]) is None
    assert "the same melody: airs/again" in capsys.readouterr().out
    (tmp_path / "airs" / "torn.mxl").write_bytes(b"PK")
    with pytest.raises(SystemExit, match="2"):
        main(["data", "check", str(tmp_path / "airs")])
    assert "1 unusable songs" in capsys.readouterr().err


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    """Serves tmp_path/www on loopback."""
    (tmp_path / "www").mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


def archived(tmp_path: Path, server: str, monkeypatch, **changes) -> None:
    """Nottingham's place taken by an archive of three tunes."""
    with zipfile.ZipFile(tmp_path / "www" / "tunes.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"repo-1/abc/tune{number}.mid", midi_song.write(tune(number)))
        archive.writestr("repo-1/abc/readme.txt", "hello")
    known = UPSTREAM["nottingham"]
    pinned = {
        "url": f"{server}/tunes.zip",
        "folder": "repo-1/abc",
        "files": 3,
        "checksums": {},
        "revision": "1",
    } | changes
    monkeypatch.setitem(UPSTREAM, "nottingham", dataclasses.replace(known, **pinned))


def test_a_public_archive_is_fetched_verified_and_prepared(tmp_path, server, monkeypatch):
    archived(tmp_path, server, monkeypatch)
    (tmp_path / "songs").mkdir()
    prepared = prepare("nottingham", tmp_path / "songs", tmp_path / "data", download=True)
    assert sum(prepared.report["songs"].values()) == 3 and prepared.report["licence"] == "GPL-3.0"
    assert (prepared.path / "nottingham" / "1.0.0").is_dir()
    (tmp_path / "www" / "tunes.zip").unlink()
    assert (
        prepare("nottingham", tmp_path / "songs", tmp_path / "data", download=True).fingerprint == prepared.fingerprint
    )


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"files": 4}, "has 3 files to import, not the 4"),
        ({"checksums": {"tune0.mid": "0" * 64}}, "is not that of"),
        ({"checksums": {"tune7.mid": "0" * 64}}, "SHA-256 none"),
    ],
)
def test_what_is_not_as_pinned_is_refused(tmp_path, server, monkeypatch, changes, reason):
    archived(tmp_path, server, monkeypatch, **changes)
    (tmp_path / "songs").mkdir()
    with pytest.raises(UserError, match=reason):
        prepare("nottingham", tmp_path / "songs", tmp_path / "data", download=True)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["downloads"]


def test_without_a_network_the_message_says_what_to_put_where(tmp_path, server, monkeypatch):
    archived(tmp_path, server, monkeypatch, url=f"{server}/absent.zip")
    (tmp_path / "songs").mkdir()
    with pytest.raises(UserError) as error:
        prepare("nottingham", tmp_path / "songs", tmp_path / "data", download=True)
    place = tmp_path / "songs" / "nottingham"
    for words in ("could not be fetched", f"fetch {server}/absent.zip", "its folder repo-1/abc", str(place)):
        assert words in str(error.value)
    write_tunes(place, 3)
    assert (
        sum(prepare("nottingham", tmp_path / "songs", tmp_path / "data", download=True).report["songs"].values()) == 3
    )


def test_a_file_that_is_no_archive(tmp_path, server, monkeypatch):
    (tmp_path / "www" / "clips.json.gz").write_bytes(b"not gzip")
    digest = "3d0d4be8a5c6a1ec9fbd6ff1ea2e5cdbb9a8e0e7"
    known = dataclasses.replace(
        UPSTREAM["hooktheory"], url=f"{server}/clips.json.gz", checksums={"clips.json.gz": digest}
    )
    monkeypatch.setitem(UPSTREAM, "hooktheory", known)
    (tmp_path / "songs").mkdir()
    with pytest.raises(UserError, match="is not that of Hooktheory"):
        prepare("hooktheory", tmp_path / "songs", tmp_path / "data", download=True)


def test_tfds_builds_from_its_manual_folder(tmp_path):
    write_tunes(tmp_path / "manual" / "openewld", 6)
    builder = tfds.builder("openewld", data_dir=tmp_path / "tfds")
    assert isinstance(builder, builders.Openewld)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "manual"))
    assert sum(split.num_examples for split in builder.info.splits.values()) == 6
    assert "public domain" in builder.info.redistribution_info.license and "Simonetta" in builder.info.citation
    example = builder.as_data_source("train")[0]
    assert example["melody_pitch"].shape == example["chord_root"].shape
    assert builder.info.file_format.value == "array_record"


def test_tfds_builds_the_grammar(tmp_path):
    assert tfds.builder_cls("grammar") is builders.Grammar and tfds.builder_cls("songs") is builders.Songs


def test_licences_that_forbid_commercial_use_are_said(tmp_path, capsys):
    assert upstream.restriction("pop909") is None and upstream.restriction("mine") is None
    write_songs(
        tmp_path / "hooktheory.jsonl.gz", [make_record("a"), make_record("b", "valid"), make_record("c", "test")]
    )
    assert not main(["data", "prepare", "hooktheory", "--songs", str(tmp_path), "--data-dir", str(tmp_path / "d")])
    said = capsys.readouterr().out
    assert "CC BY-NC-SA 3.0, forbids commercial use" in said and "the same melody in several splits" in said
