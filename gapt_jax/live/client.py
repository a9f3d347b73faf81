"""A simulated player: sends random notes through a real socket and measures the answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from gapt_jax.errors import UserError
from gapt_jax.live.model import LiveModel
from gapt_jax.live.server import GRACE, PROTOCOL, SOCKET_BYTES, make_app
from gapt_jax.runtime.web import MAX_CONNECTIONS, bounded

_PATIENCE = 60  # seconds that a session may take beyond its frames
_START_SECONDS = 30


class _Heard:
    """What came from the server, by frame."""

    def __init__(self) -> None:
        self.asked: dict[int, float] = {}  # when the tick of a frame was sent
        self.milliseconds: list[float] = []
        self.settled = 0  # frames before it will not change any more
        self.late = 0

    async def until(self, player: ClientConnection, frame: int) -> None:
        """Listens until the plan of a frame has come. Raises UserError on an error."""
        while True:
            message = await _received(player)
            if message["type"] == "plan":
                base = message["base_frame"]
                self.milliseconds.append(1000 * (time.perf_counter() - self.asked[base]))
                self.settled = max(self.settled, message["commit_until"])
                self.late += message["late"]
                if base >= frame:
                    return


async def measure(
    url: str, *, bpm: float, lookahead: int, ticks: int, model: str | None = None, commit: int = 4, seed: int = 0
) -> dict[str, Any]:
    """Plays `ticks` frames at the server of `url`, as ``gapt jam`` prints it, and says how it went.

    A tick goes out when its frame begins, whether or not the plans before it have come: `coalesced` are those that got
    no plan of their own, `underruns` the frames that began before their chord was final, `late` the plans that said so
    of themselves. The milliseconds are those from a tick to its plan. As on the page the first plan is there before
    the first frame begins. Raises UserError where the server refuses, TimeoutError where it does not answer.
    """
    rng, heard, seconds = random.Random(seed), _Heard(), 15 / bpm
    controls = {"bpm": bpm, "lookahead_frames": lookahead, "commit_frames": min(commit, lookahead), "seed": seed}
    address = "ws" + url.removeprefix("http").removeprefix("ws") + "/v1/live"
    underruns, held = 0, None
    async with (
        asyncio.timeout(ticks * seconds + _PATIENCE),
        connect(address, subprotocols=[PROTOCOL]) as player,  # type: ignore[list-item]
    ):
        await _send(player, {"type": "start"} | controls | ({"model": model} if model else {}))
        while (await _received(player))["type"] != "started":
            pass
        await _tick(player, heard, 0)
        await heard.until(player, 0)
        start = time.perf_counter()
        listening = asyncio.create_task(heard.until(player, ticks - 1)) if ticks > 1 else None
        try:
            for frame in range(1, ticks):
                assert listening
                await asyncio.wait([listening], timeout=max(0.0, start + frame * seconds - time.perf_counter()))
                if listening.done():
                    await listening  # it ends this early only by an error
                underruns += frame >= heard.settled
                events = []
                if rng.random() < 0.5:
                    if held is not None:
                        events.append({"f": frame - 1, "on": False, "p": held})
                    held = rng.randrange(60, 73)
                    events.append({"f": frame - 1, "on": True, "p": held, "v": 80})
                    await _send(player, {"type": "notes", "seq": frame, "events": events})
                await _tick(player, heard, frame)
            if listening:
                await listening
        finally:
            if listening:
                listening.cancel()
        await _send(player, {"type": "stop"})
    p50, p95, p99 = np.percentile(heard.milliseconds, (50, 95, 99)).round(2).tolist()
    return {
        "ticks": ticks,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "late": heard.late,
        "underruns": underruns,
        "coalesced": ticks - len(heard.milliseconds),
    }


async def _tick(player: ClientConnection, heard: _Heard, frame: int) -> None:
    heard.asked[frame] = time.perf_counter()
    await _send(player, {"type": "tick", "seq": frame, "now_frame": frame, "t": frame})


async def _send(player: ClientConnection, message: dict[str, Any]) -> None:
    await player.send(json.dumps(message))


async def _received(player: ClientConnection) -> dict[str, Any]:
    message = json.loads(await player.recv())
    if message["type"] == "error":
        raise UserError(f"the server refused: {message['msg']}")
    return message


@contextlib.contextmanager
def served(models: Sequence[LiveModel]) -> Iterator[str]:
    """A server of models that are warm, in a thread of its own, on a free port of this machine: its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(models)
    refused = app.state.studio.counts.dropped.labels("connections").inc
    server = bounded(app, MAX_CONNECTIONS, grace_s=GRACE, message_bytes=SOCKET_BYTES, refused=refused)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        until = time.monotonic() + _START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > until:
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_START_SECONDS)
        listening.close()
