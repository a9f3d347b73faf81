"""``gapt listen``: an agent takes part in a recorded conversation."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapt_jax.commands.live import controls_of
from gapt_jax.commands.parsing import add_command
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import write_atomic

if TYPE_CHECKING:
    from gapt_jax.data_pipeline.conversations.conversation import Conversation


def add_parser(commands: Any) -> None:
    """Adds ``listen`` to the parser of ``gapt``."""
    listen = add_command(commands, "listen", _listen, "let an agent take part in a recorded conversation")
    listen.add_argument("run", type=Path, metavar="RUN", help="a run of turn-taking")
    listen.add_argument("--rttm", type=Path, required=True, metavar="FILE", help="who speaks when: .rttm or .rttm.gz")
    listen.add_argument("--recording", metavar="NAME", help="of those in the file (default: the first)")
    listen.add_argument("--instead-of", metavar="SPEAKER", help="whose place the agent takes (default: it joins)")
    listen.add_argument("--realtime", action="store_true", help="wait for each frame of 200 ms, as speech would")
    listen.add_argument("--seconds", type=float, metavar="N", help="how long at most (default: all of it)")
    listen.add_argument("--out", type=Path, metavar="FILE.rttm", help="what the agent says (default: NAME-agent.rttm)")
    for name, kind, text in (
        ("temperature", float, "0 plays the likeliest (default: 1)"),
        ("seed", int, "of the sampling (default: 0)"),
        ("lookahead-frames", int, "frames of a plan (default: 1)"),
        ("commit-frames", int, "of which are final (default: 1, the frame that begins)"),
    ):
        listen.add_argument(f"--{name}", type=kind, metavar="N", help=text)


def _listen(args: argparse.Namespace, console: Console) -> None:
    controls = controls_of(args, intro_frames=0, lookahead_frames=1, commit_frames=1)
    if args.seconds is not None and not args.seconds > 0:
        raise UserError(f"--seconds must be above 0, not {args.seconds:g}")
    recorded = _recording(args.rttm, args.recording, console)
    import numpy as np

    from gapt_jax.tasks.turn_taking import tokens

    context = tokens.context_of(_others(recorded, args.instead_of))
    if args.seconds is not None:
        context = context[: max(1, round(args.seconds / tokens.FRAME_SECONDS))]
    out = args.out or Path(f"{recorded.id}-agent.rttm")
    if out.is_dir() or (out.parent.exists() and not out.parent.is_dir()):
        raise UserError(f"--out {out} cannot be written: name a file in a folder")
    from gapt_jax.live.listen import listen, open_agent, rttm
    from gapt_jax.runtime.devices import set_up

    set_up()
    model = open_agent(args.run, console)
    if controls.lookahead_frames > model.most_ahead:
        raise UserError(f"{model.name} plans at most {model.most_ahead} frames: lower --lookahead-frames")
    console.say("compiling")
    model.warm_up()
    if args.realtime:
        controls = dataclasses.replace(controls, plan_per_tick=model.affordable(tokens.FRAME_SECONDS))
    with console.progress("listening", len(context)) as progress:
        engine, found = listen(model, controls, context.tolist(), realtime=args.realtime, report=progress.update)
    actions = np.array(engine.decided[: engine.now])
    write_atomic(out, rttm(recorded.id, actions))
    share = float(tokens.speaks(actions).mean())
    console.emit(found | {"model": model.name, "frames": engine.now, "speaks": round(share, 4), "path": out})
    console.say(
        f"{engine.now} frames of {recorded.id}; the agent speaks {share:.0%} of the time; a frame took "
        f"{found['p50_ms']} ms (p50), {found['p95_ms']} ms (p95) of {found['budget_ms']:g} ms; "
        f"{found['over_budget']} took longer"
    )
    console.say(f"wrote {out}")
    console.say(f"next: gapt report {args.run}")


def _recording(path: Path, name: str | None, console: Console) -> Conversation:
    """One conversation of an RTTM file. Raises UserError."""
    from gapt_jax.data_pipeline.conversations import folder

    if not path.is_file():
        raise UserError(f"there is no file {path}: name an RTTM file")
    found = folder.read(path)
    for fault in found.faults.kept[:3]:
        console.warn(f"{fault.file}:{fault.line}: {fault.reason}")
    known = {conversation.id: conversation for conversation in found.conversations}
    if not known:
        raise UserError(f"{path} has no conversation: 'gapt data check {path}' says why")
    if name is not None and name not in known:
        raise UserError(f"{path} has no recording '{name}': choose one of {', '.join(list(known)[:10])}")
    return known[name] if name is not None else next(iter(known.values()))


def _others(recorded: Conversation, instead_of: str | None) -> Any:
    """The speech of those whom the agent hears, [S, T] bool."""
    from gapt_jax.tasks.turn_taking import tokens

    speech, _ = recorded.frames(tokens.FRAME_SECONDS)
    if instead_of is None:
        return speech
    if instead_of not in recorded.speakers:
        raise UserError(f"'{instead_of}' does not speak in {recorded.id}: {', '.join(recorded.speakers)} do")
    return speech[[speaker != instead_of for speaker in recorded.speakers]]
