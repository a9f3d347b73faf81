"""Recordings on their way to players: made outside the event loop, one at a time, so many in hand at most."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi.responses import JSONResponse, Response, StreamingResponse

from gapt_jax.live.recording import Recording, sound_font, to_wav

FILES, SOUNDS = 16, 3  # answers that may wait, be made or be on their way at once
SOUND_SECONDS = 15 * 60  # of the longest recording that is rendered: 160 MB
SEND_SECONDS = 120  # for one answer
RETRY_SECONDS = 10
_CHUNK = 1 << 16  # bytes
_MEDIA = {"json": "application/json", "take": "application/json", "mid": "audio/midi", "wav": "audio/wav"}
_NAMING = ("json", "take")  # forms that name the model
_LOG = logging.getLogger(__name__)


class Downloads:
    """The forms of recordings. Who comes where too many are in hand is told when to come again."""

    def __init__(self, refused: Callable[[], None]) -> None:
        self._refused, self._stop = refused, threading.Event()
        self._files, self._sounds = _Gate("file", FILES), _Gate("sound", SOUNDS)

    async def answer(self, recording: Recording | None, ending: str, *, is_asked: bool, is_blind: bool) -> Response:
        """A recording in the form that the ending names. `is_asked`: HEAD, for which nothing is made; `is_blind`: the
        forms that name the model are not handed out."""
        if recording is None:
            return refusal(404, "that recording is not kept any more")
        if ending in _NAMING and is_blind:
            return refusal(404, "in a study this form, which names the model, is not handed out")
        font = sound_font() if ending == "wav" else None
        if ending not in _MEDIA or (ending == "wav" and font is None):
            return refusal(404, "there is no such form of a recording here")
        if ending == "wav" and recording.seconds > SOUND_SECONDS:
            return refusal(404, f"sound is made of at most {SOUND_SECONDS // 60} minutes: take the MIDI file")
        headers = {"Content-Disposition": f'attachment; filename="gapt-session.{ending}"'}
        if is_asked:
            return Response(media_type=_MEDIA[ending], headers=headers)
        gate = self._sounds if ending == "wav" else self._files
        if not gate.enter():
            self._refused()
            return refusal(503, "too many want recordings at once: come again", {"Retry-After": str(RETRY_SECONDS)})
        make: dict[str, Callable[[], bytes]]
        make = {
            "json": recording.to_json,
            "take": recording.to_take,
            "mid": recording.to_midi,
            "wav": functools.partial(self._sound, recording),
        }
        try:
            content = await gate.made(make[ending])
        except BaseException as error:
            gate.leave()
            if isinstance(error, subprocess.SubprocessError | OSError):
                _LOG.error("FluidSynth failed: %s", error)
                return refusal(500, "FluidSynth could not render this recording: take the MIDI file")
            raise
        return _Sent(content, gate.leave, media_type=_MEDIA[ending], headers=headers)

    def _sound(self, recording: Recording) -> bytes:
        font = sound_font()
        if font is None:
            raise FileNotFoundError("its sound font is gone")
        return to_wav(recording.to_midi(), font, self._stop)

    def close(self) -> None:
        """Ends what is being made."""
        self._stop.set()
        for gate in (self._files, self._sounds):
            gate.close()


class _Gate:
    """So many may be inside; one thread makes what they want."""

    def __init__(self, name: str, most: int) -> None:
        self._most, self._inside = most, 0
        self._maker = ThreadPoolExecutor(1, name)

    def enter(self) -> bool:
        if self._inside >= self._most:
            return False
        self._inside += 1
        return True

    async def made(self, make: Callable[[], bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._maker, make)

    def leave(self) -> None:
        self._inside -= 1

    def close(self) -> None:
        self._maker.shutdown(cancel_futures=True)


class _Sent(StreamingResponse):
    """Bytes that go out as fast as they are read, for `SEND_SECONDS` at most; then `done` is called."""

    def __init__(self, content: bytes, done: Callable[[], None], *, media_type: str, headers: dict[str, str]) -> None:
        length = {"Content-Length": str(len(content))}
        super().__init__(_chunks(content), media_type=media_type, headers=headers | length)
        self._done = done

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEND_SECONDS):
                    await super().__call__(scope, receive, send)
        finally:
            self._done()


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for first in range(0, len(content), _CHUNK):
        yield content[first : first + _CHUNK]


def refusal(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error and its sentence."""
    return JSONResponse({"error": text}, status, headers)
