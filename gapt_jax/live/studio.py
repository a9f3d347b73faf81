"""Models, sessions and recordings of one server. The models compute in one thread; takes of a study are written in
another."""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gapt_jax.live import limits
from gapt_jax.live.downloads import Downloads
from gapt_jax.live.engine import Controls
from gapt_jax.live.model import LiveModel
from gapt_jax.live.recording import Recording
from gapt_jax.live.session import Fault, LiveSession, paced, read_controls
from gapt_jax.live.study import StudyLog, Take, conditions, read_answers, read_participant

RESUME_SECONDS = 30
RECORDINGS = 100  # that are kept; as many takes of a study wait for answers
TRY_SECONDS = 30  # after which takes that could not be written are tried again


class Studio:
    """Models, sessions and recordings of one server."""

    def __init__(self, models: Sequence[LiveModel], sessions: int, study: StudyLog | None) -> None:
        self.models = {model.name: model for model in models}
        self.limit = sessions
        self.study = study
        self.sessions: dict[str, LiveSession] = {}
        self.attached: set[str] = set()  # sessions that a socket plays in
        self.recordings: OrderedDict[str, Recording] = OrderedDict()
        self.takes: OrderedDict[str, Take] = OrderedDict()  # of sessions that are over, without answers
        self.worker = ThreadPoolExecutor(1, "model")
        self.pending: set[asyncio.Task[Any]] = set()  # that write takes
        self.writer = ThreadPoolExecutor(1, "study")
        self.counts = limits.Counts(lambda: len(self.attached), lambda: len(self.study.unsaved) if self.study else 0)
        self.downloads = Downloads(self.counts.dropped.labels("downloads").inc)
        self._slice = asyncio.Lock()
        self._retake, self._retakes = asyncio.Lock(), 0  # one is made; so many wait or are made

    def offered(self, participant: str | None) -> dict[str, LiveModel]:
        """The models by the names that the player sees; letters in a study."""
        if self.study is None:
            return self.models
        return {letter: self.models[name] for letter, name in conditions(self.models, participant or "").items()}

    def described(self) -> list[dict[str, Any]]:
        """What a player may know of the models: in a study their letters and the longest plan that each of them can
        make."""
        if self.study:
            most = min(model.most_ahead for model in self.models.values())
            return [{"name": letter, "lookahead_frames": most} for letter in self.offered(None)]
        return [
            {
                "name": model.name,
                "family": model.system,
                "weights_sha256": model.weights_sha256,
                "lookahead_frames": model.most_ahead,
            }
            for model in self.models.values()
        ]

    def choose(self, name: Any, participant: str | None = None) -> tuple[str, LiveModel]:
        """A model and its name for the player."""
        offered = self.offered(participant)
        if name is None:
            name = next(iter(offered))
        if not isinstance(name, str) or name not in offered:
            raise Fault("unknown_model", f"there is no such model: there are {', '.join(offered)}")
        return name, offered[name]

    async def start(self, message: dict[str, Any]) -> LiveSession:
        """A new session, or the one that a player comes back to."""
        wanted = message.get("session")
        if wanted is not None:
            found = self.sessions.get(wanted) if isinstance(wanted, str) else None
            if found is None or wanted in self.attached:
                raise Fault("no_session", "that session is over")
            found.change("set", read_controls(message, found.controls))
            self.attached.add(wanted)
            return found
        participant = read_participant(message)
        if participant and self.study is None:
            raise Fault("bad_value", "this server keeps no study: start without it")
        name, model = self.choose(message.get("model"), participant)
        controls = paced(message, read_controls(message, Controls()), model)
        if controls.lookahead_frames > model.most_ahead:
            raise Fault("bad_value", f"{name} plans at most {model.most_ahead} frames: lower lookahead_frames")
        self._make_room()
        identity = secrets.token_urlsafe(12)
        self.attached.add(identity)
        try:
            session = await self.compute(LiveSession, identity, model, controls)
            session.model_name = name
            if self.study and participant:
                session.take = self.study.begin(participant, name, model)
            self.sessions[identity] = session
        except BaseException:
            self.attached.discard(identity)
            raise
        return session

    async def compute(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.worker, work, *arguments)

    async def tick(
        self, session: LiveSession, now: int, echo: Any, received: float, is_wanted: Callable[[], bool]
    ) -> list[dict[str, Any]]:
        """The messages of a tick; none where it is not wanted any more. Where many frames have passed, they are
        committed in slices, of all sessions one at a time: a tick of another waits for one slice at most."""
        self._bound_recordings(session.recording)
        while session.is_behind(now):
            async with self._slice:
                if not is_wanted():
                    return []
                await self.compute(session.commit, now)
        if not is_wanted():
            return []
        messages = await self.compute(session.tick, now, echo, received)
        self.counts.ticks.inc()
        return messages

    async def catch_up(self, session: LiveSession) -> None:
        """Work that no plan waits for."""
        await self.compute(session.engine.catch_up)

    async def detach(self, session: LiveSession) -> None:
        """The player went away without a word; for a while it may come back."""
        self.attached.discard(session.identity)
        session.last_used = time.monotonic()
        self.keep(session)
        await self._log(session, is_lost=True)

    async def finish(self, session: LiveSession) -> None:
        self.attached.discard(session.identity)
        self.sessions.pop(session.identity, None)
        self.keep(session)
        await self._log(session, is_lost=False)

    async def _log(self, session: LiveSession, *, is_lost: bool) -> None:
        if session.take:
            await self._whole(self._keep_take(session, session.take, is_lost))

    async def _keep_take(self, session: LiveSession, take: Take, is_lost: bool) -> None:
        await self.compute(functools.partial(take.close, session, is_lost=is_lost))
        self.takes[session.identity] = take
        while len(self.takes) > RECORDINGS or sum(t.size for t in self.takes.values()) > limits.RECORDINGS_SIZE:
            self.takes.popitem(last=False)
        await self._write(take)

    async def _write(self, take: Take) -> bool:
        assert self.study
        return await asyncio.get_running_loop().run_in_executor(self.writer, self.study.save, take)

    async def _whole(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Goes on to the end where the socket that waits for it does not."""
        task = asyncio.create_task(work)
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)
        return await asyncio.shield(task)

    async def retake(self, identity: str, name: str, is_wanted: Callable[[], Awaitable[bool]]) -> str | None:
        """Plays the melody of a recording to another model, not in real time: the identity of the new recording, None
        where it is not wanted any more. One at a time, step by step: a tick of a player waits for one step at most.
        Raises Fault."""
        recording, model = self.recordings.get(identity), self.models.get(name)
        if self.study:
            raise Fault("bad_value", "in a study a take is played once")
        if recording is None:
            raise Fault("no_session", "that recording is not kept any more")
        if model is None:
            raise Fault("unknown_model", f"there is no such model: there are {', '.join(self.models)}")
        if recording.frames > limits.RETAKE_FRAMES:
            raise Fault("too_large", f"another model plays takes of at most {limits.RETAKE_FRAMES} sixteenths")
        if self._retakes >= limits.RETAKES:
            self.counts.dropped.labels("retakes").inc()
            raise Fault("busy", "too many want another model's take at once: come again")
        self._retakes += 1
        try:
            async with self._retake:
                made = await self._retaken(recording, model, is_wanted)
        finally:
            self._retakes -= 1
        if made is None:
            return None
        self._keep(made)
        return made.session

    async def _retaken(
        self, recording: Recording, model: LiveModel, is_wanted: Callable[[], Awaitable[bool]]
    ) -> Recording | None:
        steps, made = recording.retaken(secrets.token_urlsafe(12), model), None
        while await is_wanted():
            async with self._slice:
                after = await self.compute(next, steps, None)
            if after is None:
                return made
            made = after
        return None

    async def answer(self, message: dict[str, Any]) -> str:
        """Writes a participant's answers to the take of a session, which is over with them: its identity."""
        answers, identity = read_answers(message), message.get("session")
        if not isinstance(identity, str) or identity not in self.takes or identity in self.attached:
            raise Fault("no_session", "no take of that session waits for answers")
        self.sessions.pop(identity, None)
        take = self.takes.pop(identity)
        take.answers = answers
        if not await self._whole(self._write(take)):
            take.answers = None
            self.takes[identity] = take
            raise Fault("not_saved", "the answers could not be written: try again, or tell who leads the study")
        return identity

    async def keep_trying(self) -> None:
        """Tries again and again to write the takes that the disk refused."""
        while self.study:
            await asyncio.sleep(TRY_SECONDS)
            await asyncio.get_running_loop().run_in_executor(self.writer, self.study.try_again)

    async def close(self) -> None:
        """Ends the threads; takes whose players are still here are written as lost."""
        self.downloads.close()
        await asyncio.gather(*self.pending, return_exceptions=True)
        self.worker.shutdown(cancel_futures=True)
        self.writer.shutdown()
        if self.study is None:
            return
        for session in self.sessions.values():
            if session.take and not session.take.is_saved:
                session.take.close(session, is_lost=True)
                self.study.save(session.take)
        self.study.close()

    def keep(self, session: LiveSession) -> None:
        self._keep(session.recording)

    def _keep(self, recording: Recording) -> None:
        self.recordings[recording.session] = recording
        self.recordings.move_to_end(recording.session)
        self._bound_recordings(recording)

    def _bound_recordings(self, last: Recording) -> None:
        """Forgets recordings where they are too many or too large together: the oldest retake, which can be made again,
        then the oldest. The last one ends where those of players who are still here leave no room."""
        living = [living.recording for living in self.sessions.values()]
        kept = self.recordings
        size = sum({id(r): r.size for r in (*living, *kept.values())}.values())
        while kept and (len(kept) > RECORDINGS or size > limits.RECORDINGS_SIZE):
            dropped = kept.pop(min(kept, key=lambda identity: (kept[identity] is last, not kept[identity].is_retake)))
            size -= 0 if any(dropped is r for r in living) else dropped.size
            self.counts.dropped.labels("recordings").inc()
        if size > limits.RECORDINGS_SIZE:
            last.limit = last.size

    def _make_room(self) -> None:
        """Forgets players who went away: those who stay away too long, and for a newcomer the first who went."""
        if len(self.attached) >= self.limit:
            self.counts.dropped.labels("players").inc()
            raise Fault("busy", f"all {self.limit} places are taken")
        idle = sorted(self.sessions.keys() - self.attached, key=lambda identity: self.sessions[identity].last_used)
        while idle and (
            len(self.attached) + len(idle) >= self.limit
            or time.monotonic() - self.sessions[idle[0]].last_used > RESUME_SECONDS
        ):
            del self.sessions[idle.pop(0)]
