"""``gapt jam`` and ``gapt play``: the policy beside a player."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapt_jax.commands.parsing import add_command
from gapt_jax.commands.serve import add_address, check_server
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import write_atomic
from gapt_jax.runtime.loopback import until_stopped

if TYPE_CHECKING:
    from gapt_jax.live.engine import Controls
    from gapt_jax.live.model import LiveModel
    from gapt_jax.vocabulary import Vocabulary

MOST_FRAMES = 1 << 18  # of songs in a policy's place


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
    play = add_command(commands, "play", _play, "accompany a MIDI file as if it were played live")
    play.add_argument("policy", type=Path, metavar="DIR", help="a run or a bundle")
    play.add_argument("--melody", type=Path, required=True, metavar="FILE.mid", help="what the player plays")
    play.add_argument("--out", type=Path, metavar="FILE.mid", help="default: the melody's name with -accompanied")
    play.add_argument("--realtime", action="store_true", help="wait for each sixteenth note, as a player would")
    for name, kind, text in (
        ("bpm", float, "tempo (default: 120)"),
        ("temperature", float, "0 plays the likeliest (default: 1)"),
        ("seed", int, "of the sampling (default: 0)"),
        ("lookahead-frames", int, "sixteenth notes of a plan (default: 16)"),
        ("commit-frames", int, "of which are final (default: 4)"),
    ):
        play.add_argument(f"--{name}", type=kind, metavar="N", help=text)


def _jam(args: argparse.Namespace, console: Console) -> None:
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


def _play(args: argparse.Namespace, console: Console) -> None:
    controls = controls_of(args, intro_frames=0)
    out = args.out or args.melody.with_name(f"{args.melody.stem}-accompanied.mid")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file in it")
    if out.parent.exists() and not out.parent.is_dir():
        raise UserError(f"--out {out} cannot be written: {out.parent} is a file")
    from gapt_jax.tasks.accompaniment.midi import accompaniment, melody_tokens, read_melody

    notes = read_melody(args.melody)
    from gapt_jax.live.model import open_model
    from gapt_jax.live.play import play
    from gapt_jax.runtime.devices import set_up

    set_up()
    model = open_model(args.policy, console)
    if controls.lookahead_frames > model.most_ahead:
        raise UserError(f"{model.name} plans at most {model.most_ahead} frames: lower --lookahead-frames")
    import numpy as np

    last = max(note.offset for note in notes)
    tokens = melody_tokens(notes, int(4 * last) + 4).tolist()
    console.say("compiling")
    model.warm_up()
    if args.realtime:
        controls = dataclasses.replace(controls, plan_per_tick=model.affordable(15 / controls.bpm))
    with console.progress("playing", len(tokens)) as progress:
        engine, found = play(model, controls, tokens, realtime=args.realtime, report=progress.update)
    chords = np.array(engine.decided[: engine.now], np.int32)
    write_atomic(out, accompaniment(np.array(engine.heard, np.int32), chords, model.vocabulary, controls.bpm))
    console.emit(found | {"model": model.name, "frames": engine.now, "path": out})
    console.say(
        f"{engine.now} frames; a tick took {found['p50_ms']} ms (p50), {found['p95_ms']} ms (p95) of "
        f"{found['budget_ms']} ms; {found['over_budget']} took longer"
    )
    console.say(f"wrote {out}")
    console.say(f"next: gapt jam {args.policy}")
