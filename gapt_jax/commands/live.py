"""``gapt jam`` and ``gapt play``: the policy beside a player."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapt_jax.commands.parsing import Parser, add_command
from gapt_jax.commands.serve import add_address, check_server
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import write_atomic
from gapt_jax.runtime.loopback import until_stopped

if TYPE_CHECKING:
    from gapt_jax.live.engine import Controls, Engine
    from gapt_jax.live.model import LiveModel
    from gapt_jax.vocabulary import Vocabulary

MOST_FRAMES = 1 << 18  # of songs in a policy's place
_CONTROLS = (
    ("bpm", float, "tempo (default: 120)"),
    ("temperature", float, "0 plays the likeliest (default: 1)"),
    ("seed", int, "of the sampling (default: 0)"),
    ("lookahead-frames", int, "sixteenth notes of a plan (default: 16)"),
    ("commit-frames", int, "of which are final (default: 4)"),
)
_INTRO = ("intro-frames", int, "sixteenth notes in which it only listens (default: 16)")


def add_parser(commands: Any) -> None:
    """Adds ``jam`` and ``play`` to the parser of ``gapt``."""
    jam = add_command(commands, "jam", _jam, "play with policies in the browser")
    jam.add_argument(
        "policies",
        type=Path,
        nargs="*",
        metavar="DIR",
        help="runs or bundles; the page lets you choose (default: those installed with the package)",
    )
    jam.add_argument(
        "--songs",
        type=Path,
        metavar="PATH",
        help="song files; one more model plays them as they are",
    )
    add_address(jam, 8080)
    jam.add_argument("--sessions", type=int, default=64, metavar="N", help="players at a time (default: 64)")
    jam.add_argument(
        "--study", type=Path, metavar="FOLDER", help="hide the models' names; log takes and answers of who agrees"
    )
    jam.add_argument("--midi-in", metavar="NAME", help="play without a browser, at MIDI ports; 'virtual' opens one")
    jam.add_argument("--midi-out", metavar="NAME", help="where the chords go, on channel 2")
    jam.add_argument("--out", type=Path, metavar="FILE.mid", help="the take at MIDI ports (default: jam-TIME.mid)")
    jam.add_argument("--tempo", dest="bpm", type=float, metavar="N", help="the same as --bpm")
    _add_controls(jam, (*_CONTROLS, _INTRO), "at MIDI ports: ")
    play = add_command(commands, "play", _play, "accompany a MIDI file as if it were played live")
    play.add_argument("policy", type=Path, metavar="DIR", help="a run or a bundle")
    play.add_argument("--melody", type=Path, required=True, metavar="FILE.mid", help="what the player plays")
    play.add_argument("--out", type=Path, metavar="FILE.mid", help="default: the melody's name with -accompanied")
    play.add_argument("--realtime", action="store_true", help="wait for each sixteenth note, as a player would")
    _add_controls(play, _CONTROLS)


def _add_controls(parser: Parser, controls: Sequence[tuple[str, type, str]], where: str = "") -> None:
    for name, kind, text in controls:
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=where + text)


def _jam(args: argparse.Namespace, console: Console) -> None:
    if args.midi_in or args.midi_out:
        _jam_at_ports(args, console)
        return
    for name in ("out", *(name.replace("-", "_") for name, _, _ in (*_CONTROLS, _INTRO))):
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} goes with --midi-in and --midi-out: the page has its own")
    check_server(args, "live play")
    with until_stopped(console):
        from gapt_jax.runtime.devices import set_up

        set_up()
        from gapt_jax.live import bands
        from gapt_jax.live.server import run

        places = {"host": args.host, "port": args.port, "sessions": args.sessions}
        songs = args.songs and functools.partial(song_model, args.songs)
        found = {} if args.policies else bands.installed()
        policies, names = args.policies or list(found.values()), list(found)
        run(policies, console, **places, names=names, songs=songs, study=args.study)


def _jam_at_ports(args: argparse.Namespace, console: Console) -> None:
    if not (args.midi_in and args.midi_out):
        raise UserError("--midi-in and --midi-out go together: name both ports, or neither and play in the browser")
    if args.songs or args.study or len(args.policies) > 1:
        raise UserError("one policy plays at MIDI ports: several, --songs and --study go with the page")
    if any(getattr(args, name) != args.parser.get_default(name) for name in ("host", "port", "sessions")):
        raise UserError("--host, --port and --sessions go with the page: MIDI ports have no server")
    controls = controls_of(args)
    from gapt_jax.live.model import LEAST_PLANNED

    if controls.lookahead_frames < LEAST_PLANNED:  # the chord of a frame would be planned when it has begun
        raise UserError(f"at MIDI ports a plan has {LEAST_PLANNED} frames or more: raise --lookahead-frames")
    out = _checked(args.out or Path(time.strftime("jam-%Y%m%d-%H%M%S.mid")))
    from gapt_jax.live import bands
    from gapt_jax.live.duet import Duet, perform
    from gapt_jax.live.engine import Engine
    from gapt_jax.live.play import taken
    from gapt_jax.live.ports import opened
    from gapt_jax.runtime.devices import set_up

    policy = args.policies[0] if args.policies else next(iter(bands.installed().values()))
    with opened(args.midi_in, args.midi_out) as (incoming, send):
        set_up()
        model, controls = _ready(policy, controls, console, realtime=True)
        duet = Duet(Engine(model, controls))
        incoming()  # what was played meanwhile counts for nothing
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the take as Ctrl-C does
        console.say(f"playing with {model.name} at {controls.bpm:g} BPM: your first note begins, Ctrl-C ends")
        milliseconds = perform(duet, incoming, send)
    if not duet.engine.now:
        console.say("nothing was played: no take is written")
        return
    found = taken(milliseconds, 15 / controls.bpm) | {"late": duet.late}
    _write_take(out, duet.engine, found, console, duet.velocities)


def _ready(policy: Path, controls: Controls, console: Console, *, realtime: bool) -> tuple[LiveModel, Controls]:
    """A policy with all compiled, and the controls under which this machine keeps up with it. Raises UserError."""
    from gapt_jax.live.model import open_model

    model = open_model(policy, console)
    if controls.lookahead_frames > model.most_ahead:
        raise UserError(f"{model.name} plans at most {model.most_ahead} frames: lower --lookahead-frames")
    console.say("compiling")
    model.warm_up()
    if realtime:
        controls = dataclasses.replace(controls, plan_per_tick=model.affordable(15 / controls.bpm))
    return model, controls


def _write_take(
    out: Path, engine: Engine, found: dict[str, Any], console: Console, velocities: Mapping[int, int] | None = None
) -> None:
    """Writes what both have played, no chords in the intro, and tells of the ticks: `found`."""
    import numpy as np

    from gapt_jax.tasks.accompaniment.midi import accompaniment
    from gapt_jax.vocabulary import SILENCE

    notes, frames = np.array(engine.heard, np.int32), len(engine.heard)
    chords = np.array(engine.decided[:frames], np.int32)
    chords[: engine.controls.intro_frames] = SILENCE
    content = accompaniment(notes, chords, engine.model.vocabulary, engine.controls.bpm, velocities=velocities)
    write_atomic(out, content)
    console.emit(found | {"model": engine.model.name, "frames": frames, "path": out})
    console.say(
        f"{frames} frames; a tick took {found['p50_ms']} ms (p50), {found['p95_ms']} ms (p95) of "
        f"{found['budget_ms']} ms; {found['over_budget']} took longer"
    )
    console.say(f"wrote {out}")


def song_model(path: Path, vocabulary: Vocabulary) -> LiveModel:
    """The songs of a file or folder in a policy's place; chords that the vocabulary lacks become their nearest."""
    import numpy as np

    from gapt_jax.data_pipeline import catalogue
    from gapt_jax.data_pipeline.songs import Song, to_frames
    from gapt_jax.data_pipeline.store import chord_tokens, melody_tokens
    from gapt_jax.live import songs

    found, count = [], 0
    for song in catalogue.read(path):
        if isinstance(song, Song) and count < MOST_FRAMES:
            found.append(to_frames(song))
            count += len(found[-1])
    if not found:
        raise UserError(f"{path} has no song that could be played: 'gapt data check {path}' says why")
    chords = np.concatenate([chord_tokens(frames, vocabulary) for frames in found])
    melody = np.concatenate([melody_tokens(frames) for frames in found])
    return songs.song_model(path.resolve().name, chords, melody, vocabulary)


def controls_of(args: argparse.Namespace, **defaults: int) -> Controls:
    """The controls that the arguments set, else these defaults, else those of `Controls`. Raises UserError."""
    from gapt_jax.live.engine import RANGES, Controls

    given = {name: getattr(args, name) for name in RANGES if getattr(args, name, None) is not None}
    for name, value in given.items():
        low, high = RANGES[name]
        if not low <= value <= high:
            raise UserError(f"--{name.replace('_', '-')} must be in {low:g}..{high:g}, not {value:g}")
    controls = Controls(**defaults | given)
    if controls.commit_frames > controls.lookahead_frames:
        raise UserError("--commit-frames must not be above --lookahead-frames")
    return controls


def _checked(out: Path) -> Path:
    """A file that can be written later. Raises UserError."""
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file in it")
    if out.parent.exists() and not out.parent.is_dir():
        raise UserError(f"--out {out} cannot be written: {out.parent} is a file")
    return out


def _play(args: argparse.Namespace, console: Console) -> None:
    controls = controls_of(args, intro_frames=0)
    out = _checked(args.out or args.melody.with_name(f"{args.melody.stem}-accompanied.mid"))
    from gapt_jax.tasks.accompaniment.midi import melody_tokens, read_melody

    notes = read_melody(args.melody)
    from gapt_jax.live.play import play
    from gapt_jax.runtime.devices import set_up

    set_up()
    last = max(note.offset for note in notes)
    tokens = melody_tokens(notes, int(4 * last) + 4).tolist()
    model, controls = _ready(args.policy, controls, console, realtime=args.realtime)
    with console.progress("playing", len(tokens)) as progress:
        engine, found = play(model, controls, tokens, realtime=args.realtime, report=progress.update)
    _write_take(out, engine, found, console)
    console.say(f"next: gapt jam {args.policy}")
