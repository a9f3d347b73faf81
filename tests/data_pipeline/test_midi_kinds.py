"""Ordinary, odd and damaged MIDI files: which parts are taken, what players pass over, and the reasons of the rest."""

import io
import itertools
import struct
from pathlib import Path

import mido
import pytest

from gapt_jax import midi
from gapt_jax.commands.main import main
from gapt_jax.data_pipeline import catalogue
from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.importers import midi_song
from gapt_jax.data_pipeline.importers.folder import read_native
from gapt_jax.data_pipeline.importers.score import to_song
from gapt_jax.data_pipeline.songs import Song, parse_song
from gapt_jax.errors import UserError
from gapt_jax.midi import Harmony, Note
from gapt_jax.tasks.accompaniment.midi import read_tune
from tests.data_pipeline.agreement import DATA
from tests.data_pipeline.song_records import make_record

SCALE = (60, 62, 64, 65, 67, 69, 71, 72)
TUNE = [(n, n + 1, pitch) for n, pitch in enumerate(SCALE)]
CHORDS = [(start, start + 4, pitch) for start, keys in ((0, (48, 52, 55)), (4, (43, 47, 50))) for pitch in keys]
CASES = DATA.parent / "cases" / "songs"


def track(name, notes, channel=0, extra=()):
    """Notes (onset, offset, pitch) in beats; `extra` are messages with their beats."""
    messages = [(beat, 0, message) for beat, message in extra]
    for onset, offset, pitch in notes:
        messages.append((onset, 2, mido.Message("note_on", channel=channel, note=pitch, velocity=80)))
        messages.append((offset, 1, mido.Message("note_off", channel=channel, note=pitch)))
    made, now = mido.MidiTrack([mido.MetaMessage("track_name", name=name)] if name else []), 0
    for beat, _, message in sorted(messages, key=lambda entry: entry[:2]):
        made.append(message.copy(time=round(beat * 480) - now))
        now = round(beat * 480)
    return made


def saved(*tracks, kind=1):
    content = io.BytesIO()
    mido.MidiFile(type=kind, ticks_per_beat=480, tracks=list(tracks)).save(file=content)
    return content.getvalue()


def marked(*texts, kind="marker"):
    return [(beat, mido.MetaMessage(kind, text=text)) for beat, text in texts]


def heard(content):
    """(pitches of the melody, chords as (onset, offset, symbol) to a sixteenth)."""
    song = to_song(midi_song.read(content, "x"), "d")
    chords = [(round(c.onset * 4) / 4, round(c.offset * 4) / 4, c.symbol) for c in song.chords]
    return tuple(note.pitch for note in song.melody), chords


C_G = [(0, 4, "C"), (4, 8, "G")]


def one_track(*tracks):
    """Several tracks merged, each message with its channel."""
    return mido.merge_tracks(tracks)


def rolled(step):
    return [(on + step * n, off, p) for n, (on, off, p) in enumerate(CHORDS[:3])] + [
        (on + step * n, off, p) for n, (on, off, p) in enumerate(CHORDS[3:])
    ]


@pytest.mark.parametrize("name", ["", "Lead vocal of my song"])
def test_type_0_is_read_by_channel(name):
    merged = one_track(track(name, TUNE), track("", CHORDS, 1))
    assert heard(saved(merged, kind=0)) == (SCALE, C_G)
    assert midi.melody_part(midi.parse(saved(merged, kind=0))).label == "its channel 1"


@pytest.mark.parametrize("step", [1 / 480, 15 / 480, 40 / 480, 60 / 480])
def test_rolled_chords_are_chords(step):
    assert heard(saved(track("", TUNE), track("", rolled(step), 1))) == (SCALE, C_G)


def test_played_chords_above_the_melody_are_chords():
    early = [(max(on + (n % 3 - 1) / 50, 0), off - n / 100, p + 24) for n, (on, off, p) in enumerate(CHORDS)]
    pitches, chords = heard(saved(track("", TUNE), track("Piano", early, 1)))
    assert pitches == SCALE and [symbol for *_, symbol in chords] == ["C", "G"]


def test_runs_in_the_part_of_the_chords_are_no_rolls():
    runs = [(4 + n / 8, 4 + (n + 1) / 8, 48 + n) for n in range(8)]
    _, chords = heard(saved(track("melody", TUNE), track("chords", CHORDS[:3] + runs, 1)))
    assert len(chords) == 9


@pytest.mark.parametrize(
    "name",
    ["Melody", "MELODY LINE", "melodie", "Mélodie", "Lead", "Lead Vocal", "Lead Voca", "LeadVox", "Vocals (female)",
     "voice 1", "Sing", "CHANT", "Canto", "Gesang"],
)  # fmt: skip
def test_known_names_of_the_melody(name):
    high = [(onset, offset, pitch + 24) for onset, offset, pitch in TUNE]
    assert heard(saved(track("Flute", high, 2), track(name, TUNE), track("Pad", CHORDS, 1))) == (SCALE, C_G)


@pytest.mark.parametrize(
    "name", ["Backing vocals", "Vocal harmony", "Melodic Tom", "Choir aahs", "countermelody", "Single"]
)
def test_names_that_only_look_like_it(name):
    low = [(onset, offset, pitch - 12) for onset, offset, pitch in TUNE]
    assert heard(saved(track(name, low, 2), track("Sax", TUNE), track("Pad", CHORDS, 1))) == (SCALE, C_G)


def test_the_surer_name_wins():
    high = [(onset, offset, pitch + 12) for onset, offset, pitch in TUNE]
    for better, worse in itertools.pairwise(("Melody", "Lead Vocal", "Vocals", "Lead guitar", "Flute")):
        assert heard(saved(track(worse, high, 2), track(better, TUNE), track("Pad", CHORDS, 1)))[0] == SCALE


@pytest.mark.parametrize(
    "other",
    [[(0, 8, 88)], [(4, 5, 91)], [(n, n + 0.5, 95) for n in range(8)], [(on, off, p + 36) for on, off, p in CHORDS]],
    ids=["held", "fill", "one pitch", "chords"],
)
def test_what_does_not_win_the_melody(other):
    assert heard(saved(track("", other, 3), track("", TUNE), track("", CHORDS, 1)))[0] == SCALE


def test_the_pedal_holds_chords_and_leaves_the_melody():
    def pedal(channel, *moves):
        return [
            (beat, mido.Message("control_change", channel=channel, control=64, value=value)) for beat, value in moves
        ]

    short = [(on, on + 0.2, p) for on, _, p in CHORDS]
    down = pedal(1, (0, 127), (4.1, 0), (4.15, 100), (7.5, 0))
    content = saved(
        track("melody", [(on, on + 0.5, p) for on, _, p in TUNE], extra=pedal(0, (0, 127))), track("", short, 1, down)
    )
    assert heard(content)[1] == [(0, 4, "C"), (4, 7.5, "G")]
    assert midi_song.read(content, "x").notes[0] == (0, 0.5, 60)
    never_lifted = saved(track("melody", TUNE), track("", short, 1, pedal(1, (0, 127))))
    assert heard(never_lifted)[1] == [(0, 4, "C"), (4, 4.25, "G")]  # the track ends there


@pytest.mark.parametrize("kind", ["marker", "text", "lyrics", "cue_marker"])
def test_chord_names_in_any_track(kind):
    names = marked((0, "C"), (4, "G7"), kind=kind)
    expected = [(0, 4, "C"), (4, 8, "G7")]
    assert heard(saved(track("c", [], extra=names), track("melody", TUNE))) == (SCALE, expected)
    assert heard(saved(track("melody", TUNE, extra=names))) == (SCALE, expected)
    assert heard(saved(track("c", [], extra=names), track("melody", TUNE), track("", CHORDS, 1)))[1] == expected


def test_chord_names_among_other_markers_and_silence():
    names = marked((0, "Intro"), (1, "Am"), (3, "N.C."), (4, "Verse"), (5, "F/A"))
    assert heard(saved(track("", [], extra=names), track("melody", TUNE)))[1] == [(1, 3, "Am"), (5, 8, "F/A")]


@pytest.mark.parametrize(
    "texts", [((0, "A"), (2, "A"), (4, "B"), (6, "C")), ((0, "I"), (1, "Am"), (2, "the"), (3, "one"), (4, "C"))]
)
def test_rehearsal_marks_and_words_are_no_chords(texts):
    content = saved(track("", [], extra=marked(*texts)), track("melody", TUNE), track("", CHORDS, 1))
    assert heard(content)[1] == C_G
    assert not midi_song.read(saved(track("", [], extra=marked(*texts)), track("melody", TUNE)), "x").chords


def test_a_track_of_a_guitar_with_a_channel_for_each_string():
    strings = [track("" if n else "Guitar", CHORDS[n::3], n + 2) for n in range(3)]
    assert heard(saved(track("Sax", TUNE), one_track(*strings))) == (SCALE, C_G)


@pytest.mark.parametrize(("meter", "pickup"), [([4, 4], 1), ([3, 4], 2), ([6, 8], 0.5), ([4, 4], 1.25), ([4, 4], 0)])
def test_a_pickup_comes_back(meter, pickup):
    song = parse_song(make_record(meter=meter, pickup=pickup, beats=12))
    again = to_song(midi_song.read(midi_song.write(song), "x"), "d")
    assert (again.pickup, again.meter) == (pickup, tuple(meter))


def signature(beat, count, unit):
    return beat, mido.MetaMessage("time_signature", numerator=count, denominator=unit)


def test_metres():
    def of(*signatures, notes=TUNE):
        score = midi_song.read(saved(track("melody", notes, extra=signatures), track("", CHORDS, 1)), "x")
        return score.meter, score.pickup

    late = [(on + 8, off + 8, pitch) for on, off, pitch in TUNE]
    assert of(signature(0, 3, 4)) == ((3, 4), 0) and of() == ((4, 4), 0)
    assert of(signature(0, 4, 4), signature(1, 4, 4)) == ((4, 4), 1)  # cut short
    assert of(signature(0, 3, 4), signature(6, 4, 4)) == ((3, 4), 0)
    assert of(signature(0, 4, 4), signature(4, 3, 4), notes=late) == ((3, 4), 1)  # lines at 1, 4, 7
    for count, unit in ((99, 4), (4, 64)):
        with pytest.raises(ValueError, match=f"its time signature is {count}/{unit}"):
            of(signature(0, count, unit))


def chunk(name, body, size=None):
    return name + struct.pack(">I", len(body) if size is None else size) + body


HEADER = chunk(b"MThd", struct.pack(">HHH", 1, 2, 480))
END = b"\x00\xff\x2f\x00"


def body(notes, *, running=False):
    """Notes of one beat each, one after the other, on channel 1."""
    parts = []
    for n, (_, _, pitch) in enumerate(notes):
        on, off = b"" if running and n else b"\x90", b"" if running else b"\x90"
        parts.append(b"\x00" + on + bytes([pitch, 80]) + b"\x83\x60" + off + bytes([pitch, 0]))
    return b"".join(parts)


PLAIN = body(TUNE)
CHORD_BODY = b"".join(
    b"".join(b"\x00\x91" + bytes([p, 80]) for p in keys) + b"\x8f\x00\x91" + bytes([keys[0], 0])
    + b"".join(b"\x00\x91" + bytes([p, 0]) for p in keys[1:])
    for keys in ((48, 52, 55), (43, 47, 50))
)  # fmt: skip
BOTH = HEADER + chunk(b"MTrk", PLAIN + END) + chunk(b"MTrk", CHORD_BODY + END)
TAIL = chunk(b"MTrk", CHORD_BODY + END)


def melody_chunk(before=b"", *, events=PLAIN, end=END, size=None):
    return chunk(b"MTrk", before + events + end, size)


READABLE = {
    "plain": BOTH,
    "running status": HEADER + melody_chunk(events=body(TUNE, running=True)) + TAIL,
    "key of 18 sharps": HEADER + melody_chunk(b"\x00\xff\x59\x02\x12\x00") + TAIL,
    "key without bytes": HEADER + melody_chunk(b"\x00\xff\x59\x00") + TAIL,
    "tempo of two bytes": HEADER + melody_chunk(b"\x00\xff\x51\x02\x07\xa1") + TAIL,
    "tempo 0": HEADER + melody_chunk(b"\x00\xff\x51\x03\x00\x00\x00") + TAIL,
    "metre of one byte": HEADER + melody_chunk(b"\x00\xff\x58\x01\x04") + TAIL,
    "metre 0/4": HEADER + melody_chunk(b"\x00\xff\x58\x04\x00\x02\x18\x08") + TAIL,
    "odd meta event": HEADER + melody_chunk(b"\x00\xff\x7e\x03abc\x00\xff\x54\x01\x00\x00\xff\x00\x05abcde") + TAIL,
    "running status after sysex": HEADER
    + melody_chunk(b"\x00\x90\x3c\x00\x00\xf0\x05\x7e\x7f\x09\x01\xf7", events=PLAIN[:1] + PLAIN[2:]) + TAIL,
    "running status after a meta event": HEADER
    + melody_chunk(b"\x00\x90\x3c\x00\x00\xff\x01\x02hi", events=PLAIN[:1] + PLAIN[2:]) + TAIL,
    "system messages": HEADER + melody_chunk(b"\x00\xf8\x00\xf2\x01\x01\x00\xf7\x01\x00\x00\xfe") + TAIL,
    "foreign chunk first": HEADER + chunk(b"XFIH", b"abcd") + melody_chunk() + TAIL,
    "foreign chunk between": HEADER + melody_chunk() + chunk(b"XFKM", b"MTrk" * 3) + TAIL,
    "junk at the end": BOTH + b"\x1a\x00junk",
    "RIFF": b"RIFF" + struct.pack("<I", len(BOTH) + 12) + b"RMIDdata" + struct.pack("<I", len(BOTH)) + BOTH,
    "RIFF with a list": b"RIFF\x00\x00\x00\x00RMIDdata" + struct.pack("<I", len(BOTH)) + BOTH + b"LIST\x04\0\0\0INFO",
    "MacBinary": bytes(128) + BOTH,
    "longer header": chunk(b"MThd", struct.pack(">HHHI", 1, 2, 480, 7)) + BOTH[len(HEADER) :],
    "fewer tracks counted": BOTH.replace(HEADER, chunk(b"MThd", struct.pack(">HHH", 1, 1, 480))),
    "more tracks counted": BOTH.replace(HEADER, chunk(b"MThd", struct.pack(">HHH", 1, 9, 480))),
    "no end of track": HEADER + melody_chunk(end=b"") + TAIL,
    "length too short": HEADER + melody_chunk(size=7) + TAIL,
    "length 0": HEADER + melody_chunk(size=0) + TAIL,
    "length too long": HEADER + melody_chunk(size=1 << 30) + TAIL,
    "length with the next track": HEADER + melody_chunk(size=len(PLAIN) + 40) + TAIL,
    "data beyond 127": HEADER + melody_chunk(events=PLAIN.replace(b"\x90\x3c\x50", b"\x90\x3c\xd0", 1)) + TAIL,
}  # fmt: skip


@pytest.mark.parametrize("content", READABLE.values(), ids=READABLE.keys())
def test_what_players_read(content):
    assert heard(content) == (SCALE, C_G)


REFUSED = {
    "it is empty": b"",
    "it does not begin as one": b"hello, world",
    "it ends in its header": HEADER[:10],
    "it has no tracks": HEADER,
    "it ends in mid-track": BOTH[: len(HEADER) + 40],
    "its track 1 is damaged: it begins with data of no event": HEADER + chunk(b"MTrk", b"\x00\x3c\x50" + END),
    "its track 2 is damaged: a number in it has no end": HEADER + melody_chunk() + chunk(b"MTrk", b"\xff" * 20 + END),
    "film frames": BOTH.replace(b"\x01\xe0", b"\xe7\x28", 1),
    "no ticks per beat": BOTH.replace(b"\x01\xe0", b"\x00\x00", 1),
    "it is type 2: its tracks are separate patterns": saved(track("a", TUNE), track("b", CHORDS), kind=2),
    "its notes are drums (channel 10)": saved(track("", TUNE, 9)),
    "the notes of its track Melody are drums (channel 10)": saved(track("Melody", TUNE, 9), track("Pad", CHORDS, 1)),
    "its time signature is 99/4": saved(track("melody", TUNE, extra=[signature(0, 99, 4)]), track("", CHORDS, 1)),
    "its track 1 has more than 50000 notes": HEADER + melody_chunk(events=b"\x00\x90\x3c\x50\x01\x3c\x00" * 50_001),
    "it is longer than 20000 beats": saved(track("melody", [(0, 20_001, 60)])),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_reasons_are_the_same_everywhere(reason, tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(REFUSED[reason])
    (fault,) = catalogue.check(path).faults
    assert reason in fault["reason"] and "()" not in fault["reason"]
    with pytest.raises(UserError) as converted:
        catalogue.convert(path, tmp_path / "out.jsonl")
    with pytest.raises(UserError) as sampled:
        read_tune(path)
    assert str(converted.value) == str(sampled.value) == f"{path} cannot be used: {fault['reason']}"


def test_a_pattern_alone_is_a_song():
    assert midi.melody_of(midi.parse(saved(track("a", TUNE), kind=2)))[0] == (0, 1, 60)


def test_names_in_utf_8():
    content = saved(track("MELODYxx", TUNE), track("", CHORDS, 1)).replace(b"MELODYxx", b"M\xc3\xa9lodie")
    assert midi.melody_part(midi.parse(content)).label == 'its track "Mélodie"'


def test_convert_says_which_parts_were_taken(tmp_path, capsys):
    (tmp_path / "a.mid").write_bytes(saved(track("Lead", TUNE), track("", CHORDS, 1)))
    main(["data", "convert", str(tmp_path / "a.mid"), "--out", str(tmp_path / "a.jsonl")])
    said = capsys.readouterr().out
    assert 'a.mid: the melody is that of its track "Lead", the chords are those of its track 2' in said


def test_a_tune_begins_in_its_first_bar_with_a_note(tmp_path):
    tempo = [(beat, mido.MetaMessage("set_tempo", tempo=pace)) for beat, pace in ((0, 500_000), (14, 600_000))]
    time = [signature(0, 3, 4), signature(6, 2, 4)]
    notes = [(on + 11, off + 11, pitch) for on, off, pitch in TUNE]
    (tmp_path / "a.mid").write_bytes(saved(track("", notes, extra=[*tempo, *time])))
    tune = read_tune(tmp_path / "a.mid")
    assert tune.skipped == 4 and tune.notes[0] == (1, 2, 60) and tune.source == "its track 1"
    assert tune.meters == [(0, (2, 4))] and tune.tempos == [(0, 0.5), (4, 0.6)]


def test_written_tempos_and_metres_come_back():
    tempos, meters = [(0.0, 0.5), (3.0, 0.75)], [(0.0, (3, 4)), (6.0, (4, 4))]
    file = midi.parse(midi.build([Note(0, 1, 60)], [Harmony(0, 1, midi.recognise([48]))], tempos=tempos, meters=meters))
    assert file.tempos == tempos and file.meters == meters


CG_CASE = (SCALE, ["C", "G"])
EXPECTED = {
    "40_type0_two_channels": CG_CASE,
    "41_played_not_quantised": (SCALE, ["C", "G/B"]),
    "42_rolled_chords": CG_CASE,
    "44_lead_vocal_below_strings": CG_CASE,
    "45_track_melody_line": CG_CASE,
    "56_chord_names_as_markers": (SCALE, ["C", "G7"]),
    "60_pedal_holds_the_chord": (SCALE, ["C"]),
}
REASONS = {
    "48_truncated": "it ends in mid-track",
    "49_empty": "it is empty",
    "54_drums_only": "all its notes are drums (channel 10)",
    "55_melody_on_drum_channel": "the notes of its track Melody are drums (channel 10)",
    "58_type2_patterns": "it is type 2",
    "59_metre_99": "its time signature is 99/4",
}
MELODIES = {
    "46_key_signature_18_sharps": SCALE,
    "51_running_status_after_sysex": SCALE[:2],
    "52_foreign_chunk": SCALE,
    "53_riff_midi": SCALE,
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", sorted([*EXPECTED, *REASONS, *MELODIES]))
def test_reported_files(name):
    path = CASES / f"{name}.mid"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    if name in MELODIES:
        assert tuple(note.pitch for note in read_tune(path).notes) == MELODIES[name]
        return
    (item,) = read_native(path, "d")
    if name in REASONS:
        assert isinstance(item, Rejected) and REASONS[name] in item.reason
        return
    assert isinstance(item, Song)
    pitches, symbols = EXPECTED[name]
    assert tuple(note.pitch for note in item.melody) == pitches and [c.symbol for c in item.chords] == symbols
    if name == "60_pedal_holds_the_chord":
        assert item.chords[0].offset == pytest.approx(4, abs=0.01)


@pytest.mark.real_data
def test_reported_files_of_sample():
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is absent")
    late = read_tune(CASES / "57_four_empty_bars_first.mid")
    assert late.skipped == 4 and late.notes[0] == (0, 1, 60)
    waltz = read_tune(CASES / "62_waltz_at_90.mid")
    assert waltz.meters == [(0, (3, 4))] and waltz.tempos == [(0, 0.666667)]
    assert read_tune(CASES / "63_sixteen_bars.mid").notes[-1].offset == 64


@pytest.mark.real_data
def test_the_reported_pickup(tmp_path: Path):
    path = CASES / "31_pickup_lost_by_midi.musicxml"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    catalogue.convert(path, tmp_path / "mid")
    (song,) = read_native(tmp_path / "mid", "d")
    assert isinstance(song, Song) and (song.pickup, song.beats_total) == (1, 9)
