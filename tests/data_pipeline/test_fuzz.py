"""Damaged files of every format give songs or reasons: no other error, no hang, no heap of memory, nothing written.

`FUZZ=10000 pytest tests/data_pipeline/test_fuzz.py` tries that many files of each format.
"""

import io
import json
import os
import random
import re
import signal
import zipfile
from pathlib import Path

import pytest

from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.importers import midi_song
from gapt_jax.data_pipeline.importers.folder import read_native
from gapt_jax.data_pipeline.songs import FILE_ENDINGS, Song, parse_song, read_songs
from gapt_jax.errors import UserError
from tests.data_pipeline.agreement import RAW

COUNT = int(os.environ.get("FUZZ", "60"))
SECONDS = 20  # for one file
MEBIBYTES = 1024  # that all files together may add to the memory
NUMBERS = (b"0", b"-1", b"99999999999999999999", b"1e308", b"nan", b"1/0", b"65536", b"", b"\xd9\xa3")

ABC = b"""X:1\nT:A tune\nM:6/8\nL:1/8\nK:Ador\n|:"Am"ABc d2e|"G7/b"(3gfe d>c "C""Em"B2:|[1 A3- A3:|[2 "Dm"A6|]\n"""
XML = b"""<?xml version="1.0" encoding="UTF-8"?><score-partwise><part-list/><part id="P1"><measure number="1">
<attributes><divisions>4</divisions><time><beats>3</beats><beat-type>4</beat-type></time></attributes>
<barline location="left"><repeat direction="forward"/></barline><harmony><root><root-step>C</root-step></root>
<kind>dominant</kind><degree><degree-value>9</degree-value><degree-alter>-1</degree-alter><degree-type>add</degree-type>
</degree></harmony><note><pitch><step>G</step><octave>4</octave></pitch><duration>8</duration></note><note><pitch>
<step>A</step><alter>-1</alter><octave>4</octave></pitch><duration>4</duration><tie type="start"/></note><barline>
<ending number="1" type="stop"/><repeat direction="backward" times="2"/></barline></measure></part></score-partwise>"""
ODD_XML = b"""<?xml version="1.0" encoding="utf-16"?><score-partwise><part><measure><attributes><divisions>3</divisions>
</attributes><direction><direction-type><words>G7(b9)</words></direction-type><offset>1</offset></direction><note><pitch>
<step>C</step><octave>4</octave></pitch><duration>12</duration><tie type="start"/><voice>1</voice></note><backup>
<duration>13</duration></backup><note><rest/><duration>12</duration><voice>2</voice></note></measure><measure>
<attributes><measure-style><measure-repeat type="start">1</measure-repeat></measure-style></attributes></measure>
<measure><attributes><measure-style
 number="1"><measure-repeat type="stop"/><slash type="start"/></measure-style></attributes>
<note><pitch><step>D</step><octave>4</octave></pitch><duration>9</duration><voice>3</voice><staff>2</staff></note></measure></part>
<part><measure><harmony><root><root-step>C</root-step></root><kind>major</kind></harmony></measure></part></score-partwise>"""
TAB = b"""{"keys": [{"beat": 1, "scale": "minor", "tonic": "Eb"}], "meters": [{"beat": 1, "numBeats": 4, "beatUnit": 1
}], "notes": [{"sd": "1", "octave": 0, "beat": 1, "duration": 1, "isRest": false}], "chords": [{"root": 5, "beat": 1,
"duration": 4, "type": 7, "inversion": 1, "applied": 5, "isRest": false, "borrowed": [-1, 1, 3, 5, 6, 8, 10], "adds":
[], "omits": [], "alterations": ["b9", "#9"], "suspensions": [4], "substitutions": ["tri"], "pedal": null}]}"""
JSON = b"""{"a": {"annotations": {"num_beats": 8, "meters": [{"beats_per_bar": 4, "beat_unit": 4}], "melody": [{
"onset": 0, "offset": 1.5, "octave": 0, "pitch_class": 11}], "harmony": [{"onset": 0, "offset": 4,
"root_pitch_class": 7, "root_position_intervals": [4, 3, 3], "inversion": 1}]}}}"""
RECORD = b"""{"id":"a/1","dataset":"a","title":null,"split":"train","group":"g","meter":[4,4],"pickup":0,
"beats_total":8,"melody":[[0,1,60],[1,2.5,62]],"chords":[[0,4,0,[0,4,7],0,"C"],[4,8,7,[0,4,7,10],11,"G7/B"]]}"""


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "META-INF/container.xml", '<container><rootfiles><rootfile full-path="a.xml"/></rootfiles></container>'
        )
        archive.writestr("a.xml", content)
    return out.getvalue()


def bomb() -> bytes:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    return f'<!DOCTYPE s [<!ENTITY e0 "ha">{entities}]><score-partwise>&e9;</score-partwise>'.encode()


# RIFF MIDI of type 0: a foreign chunk, a tempo, a metre, a marker, the pedal, running status, a roll, a sysex, drums.
TRACK = bytes.fromhex(
    "00ff510307a120 00ff580403021808 00ff06024337 00b0407f 00903c50 0f4050 0f4350 8140803c40 004040 004340 00b04000"
    "00f0037e7ff7 00914850 83604800 00994050 108940 00 00ff2f00"
)
RIFF = b"RIFF\x70\0\0\0RMIDdata\x64\0\0\0MThd\0\0\0\6\0\0\0\1\1\xe0XFIH\0\0\0\4abcdMTrk\0\0\0" + bytes([len(TRACK)])
SEEDS = {
    "abc": [ABC],
    "mid": [midi_song.write(parse_song(json.loads(RECORD))), RIFF + TRACK],
    "musicxml": [XML, ODD_XML, bomb()],
    "mxl": [zipped(XML), zipped(ODD_XML), zipped(b" " * (64 << 20)), zipped(bomb())],
    "json": [JSON, TAB],
    "jsonl": [RECORD.replace(b"\n", b"")],
    "pop909": [b""],
}
REAL = {"abc": "*/*.abc", "mxl": "openewld/*.mxl", "json": "hooktheory_json/*.json"}


def mutated(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """One to three kinds of damage."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place, size = rng.randrange(len(content) + 1), rng.choice((1, 1, 2, 8, 64, 1024))
        match rng.randrange(8):
            case 0:
                content = content[:place]
            case 1 if content:
                flipped = bytearray(content)
                for _ in range(rng.randint(1, 20)):
                    flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
                content = bytes(flipped)
            case 2:
                numbers = [match.span() for match in re.finditer(rb"\d+", content)]
                start, end = rng.choice(numbers) if numbers else (place, place)
                content = content[:start] + rng.choice(NUMBERS) + content[end:]
            case 3:
                content = content[:place] + content[place + size :]
            case 4:
                content = content[:place] + content[place : place + size] * rng.choice((2, 3, 200)) + content[place:]
            case 5:
                other = rng.choice(others)
                content = content[:place] + other[rng.randrange(len(other) + 1) :]
            case 6:
                content = content.decode("latin-1").encode(rng.choice(("utf-16", "utf-8", "utf-7")))
            case 7:
                content = content[:place] + rng.randbytes(size) + content[place:]
    return content


def damaged(rng: random.Random, kind: str, seeds: list[bytes]) -> bytes:
    content = rng.choice(seeds)
    if kind == "mxl" and rng.random() < 0.7:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                inner = next(name for name in archive.namelist() if not name.startswith("META-INF"))
                content = archive.open(inner).read(1 << 20)
            return zipped(mutated(rng, content, [content]))
        except (zipfile.BadZipFile, StopIteration):
            pass
    return mutated(rng, content, seeds)


def write_damaged(rng: random.Random, kind: str, seeds: list[bytes], folder: Path) -> Path:
    if kind != "pop909":
        path = folder / f"tune.{kind}"
        path.write_bytes(damaged(rng, kind, seeds))
        return path
    song = folder / "001"
    song.mkdir(exist_ok=True)
    parts = {
        "001.mid": SEEDS["mid"][0].replace(b"melody", b"MELODY"),
        "beat_midi.txt": b"",
        "chord_midi.txt": b"0 2 C:maj/3\n2 4 N\n",
    }
    parts["beat_midi.txt"] = b"".join(b"%.1f 1.0 %d.0\n" % (n / 2, n % 4 == 0) for n in range(12))
    name = rng.choice(list(parts))
    parts[name] = mutated(rng, parts[name], list(parts.values()))
    for part, content in parts.items():
        (song / part).write_bytes(content)
    return song


def memory(field: str) -> float:
    """MiB of this process: now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def expire(*_: object) -> None:
    raise TimeoutError(f"a file took longer than {SECONDS} s")


@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_files(kind, tmp_path):
    seeds = SEEDS[kind] + [path.read_bytes() for path in sorted(RAW.glob(REAL[kind]))] if kind in REAL else SEEDS[kind]
    rng = random.Random(kind)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = memory("VmRSS")
    outcomes = {Song: 0, Rejected: 0}
    signal.signal(signal.SIGALRM, expire)
    try:
        for _ in range(COUNT):
            path = write_damaged(rng, kind, seeds, tmp_path)
            listing = sorted(str(found) for found in tmp_path.rglob("*"))
            signal.alarm(SECONDS)
            try:
                for item in read_songs(path) if path.name.endswith(FILE_ENDINGS) else read_native(path, "set"):
                    outcomes[type(item)] += 1
                    assert not isinstance(item, Rejected) or (item.reason and "\n" not in item.reason), item
            except UserError:  # a song file as a whole
                outcomes[Rejected] += 1
            signal.alarm(0)
            assert sorted(str(found) for found in tmp_path.rglob("*")) == listing
    finally:
        signal.alarm(0)
    grown = memory("VmHWM") - before
    print(f"{kind}: {outcomes[Song]} songs, {outcomes[Rejected]} rejected, {grown:.0f} MiB more")
    assert outcomes[Rejected] > 0 and grown < MEBIBYTES
