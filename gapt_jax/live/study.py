"""The log of a user study: what participants who agreed have played and answered, in a folder that
``gapt study analyse`` reads (docs/study.md). Knows no network."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import hashlib
import io
import json
import logging
import re
import string
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapt_jax.errors import UserError
from gapt_jax.live.session import Fault
from gapt_jax.runtime.files import strict_json, write_atomic

if TYPE_CHECKING:
    from gapt_jax.live.engine import Planned
    from gapt_jax.live.model import LiveModel
    from gapt_jax.live.session import LiveSession

SCHEMA = "gapt-study-take/1"
LETTERS = string.ascii_uppercase
LOW, HIGH = 1, 5
QUESTIONS = {  # the aspects of arXiv 2511.17879, section 4.3; the words are ours
    "adaptation_quality": {
        "text": "How well did the band adapt to what you played?",
        "low": "not at all",
        "high": "very well",
    },
    "adaptation_speed": {"text": "How fast did the band adapt?", "low": "very slowly", "high": "at once"},
    "control_agency": {
        "text": "How much control did you feel over the music?",
        "low": "none",
        "high": "a great deal",
    },
}
MOST_TAKES = 999  # of one participant
MOST_UNSAVED = 100  # takes that wait for a disk that fails
_COLUMNS = ("participant", "system", "question", "score", "order", "repeat")
_CODE = re.compile(r"[A-Za-z0-9_-]{1,32}")
_LOG = logging.getLogger(__name__)

Answers = dict[str, int | None]


def conditions(models: Iterable[str], participant: str) -> dict[str, str]:
    """Letter to name of a model: an order drawn from the participant's code, whatever order the names come in."""
    drawn = sorted(models, key=lambda name: hashlib.sha256(f"{participant}\0{name}".encode()).digest())
    return dict(zip(LETTERS, drawn, strict=False))


def read_participant(message: dict[str, Any]) -> str | None:
    """The code of a participant who agreed to be recorded, in lower case; None without consent. Raises Fault."""
    if "study" not in message:
        return None
    study = message["study"]
    code = study.get("participant") if isinstance(study, dict) else None
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise Fault("bad_value", "a participant code has 1 to 32 characters, of letters, digits, - and _")
    return code.lower()


def read_answers(message: dict[str, Any]) -> Answers:
    """The answer to each question, None where it was skipped. Raises Fault."""
    answers = message.get("answers")
    if not isinstance(answers, dict) or answers.keys() != QUESTIONS.keys():
        raise Fault("bad_value", f"answers must be one each to {', '.join(QUESTIONS)}")
    for value in answers.values():
        if value is not None and (type(value) is not int or not LOW <= value <= HIGH):
            raise Fault("bad_value", f"an answer is a whole number in {LOW}..{HIGH}, or null where it was skipped")
    return {question: answers[question] for question in QUESTIONS}


@dataclasses.dataclass
class Take:
    """What one participant plays from start to stop. `saw`, `forget` and `close` belong into the model's thread."""

    participant: str
    order: int  # among the participant's takes, from 1
    condition: str
    model: LiveModel
    started: str = dataclasses.field(default_factory=lambda: _now())
    answers: Answers | None = None
    is_saved: bool = False
    resets: int = 0
    size: int = 0  # of its recording
    content: dict[str, Any] = dataclasses.field(default_factory=dict)
    _plans: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    _began: float = dataclasses.field(default_factory=time.monotonic)

    def saw(self, plan: Planned, message: dict[str, Any], received: float) -> None:
        """Keeps a plan as it is shown; `received` is when its tick came, in monotonic seconds."""
        names = ("rev", "base_frame", "commit_until", "compute_ms", "queue_ms", "slack_ms", "late")
        tick_ms = round(1000 * (received - self._began), 1)
        self._plans.append({"tick_ms": tick_ms, **{name: message[name] for name in names}, "chords": plan.actions})
        self.is_saved = False

    def forget(self) -> None:
        """The session begins again."""
        self._plans = []
        self.resets += 1

    def close(self, session: LiveSession, *, is_lost: bool) -> None:
        """Takes down what the session is now. It may go on when its player comes back: lists are copied."""
        recording, self.size = session.recording.to_dict(), session.recording.size
        self.content = {
            "schema": SCHEMA,
            "participant": self.participant,
            "condition": self.condition,
            "model": self.model.name,
            "system": self.model.system,
            "weights_sha256": self.model.weights_sha256,
            "order": self.order,
            "started": self.started,
            "ended": _now(),
            "lost": is_lost,
            "resets": self.resets,
            "coalesced": session.coalesced,
            "controls": recording["controls"],
            "plans": list(self._plans),
            "recording": recording,
        }


class StudyLog:
    """The folder of one study: a file per take, and ``ratings.csv`` made of all of them."""

    def __init__(self, folder: Path) -> None:
        """Opens the folder or makes it; raises UserError where it cannot hold this study."""
        self.folder, self.ratings, self._takes = folder, folder / "ratings.csv", folder / "takes"
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: give a folder for the study as --study")
        if self.ratings.exists() and not self._takes.is_dir():
            raise UserError(f"{self.ratings} is not of this study and would be replaced: give another folder")
        self.unsaved: dict[tuple[str, int], Take] = {}  # that the disk refused
        try:
            self._takes.mkdir(parents=True, exist_ok=True)
            self._lock = _only_one(folder)
            self._rated = dict(_known(path) for path in sorted(self._takes.glob("*.json")))
            self._orders: dict[str, int] = {}
            for participant, order in self._rated:
                self._orders[participant] = max(order, self._orders.get(participant, 0))
            self._write_ratings()
        except OSError as error:
            raise UserError(f"{folder} cannot hold a study ({error.strerror}): give another folder") from None

    def close(self) -> None:
        """Tries a last time to write what was refused, and lets another server have the folder."""
        if self.unsaved and not self.try_again():
            lost = ", ".join(f"{participant}-{order:03d}" for participant, order in self.unsaved)
            _LOG.error("these takes could not be written to %s and are lost: %s", self.folder, lost)
        self._lock.close()

    def begin(self, participant: str, condition: str, model: LiveModel) -> Take:
        """The participant's next take. Raises Fault where there are too many."""
        order = self._orders.get(participant, 0) + 1
        if order > MOST_TAKES:
            raise Fault("bad_value", f"a participant plays at most {MOST_TAKES} takes")
        self._orders[participant] = order
        return Take(participant, order, condition, model)

    def save(self, take: Take) -> bool:
        """Writes a closed take; whether that succeeded. A disk that fails is told once, and play goes on; the take is
        kept for `try_again`, of too many the oldest is lost."""
        path = self._takes / f"{take.participant}-{take.order:03d}.json"
        try:
            write_atomic(path, strict_json(take.content | {"answers": take.answers}) + "\n")
            if take.answers is not None:
                self._rated[take.participant, take.order] = take.model.name, take.answers
                self._write_ratings()
        except OSError as error:
            if not self.unsaved:
                _LOG.error("the study cannot be written: %s; its takes are kept and tried again: make room", error)
            self.unsaved[take.participant, take.order] = take
            if len(self.unsaved) > MOST_UNSAVED:
                participant, order = next(iter(self.unsaved))
                del self.unsaved[participant, order]
                _LOG.error("the take %s-%03d is lost: %d others wait to be written", participant, order, MOST_UNSAVED)
            return False
        take.is_saved = True
        if self.unsaved.pop((take.participant, take.order), None) and not self.unsaved:
            _LOG.warning("the study can be written again, and nothing waits")
        return True

    def try_again(self) -> bool:
        """Writes the takes that were refused, until one is refused again; whether none is left."""
        return all(self.save(take) for take in list(self.unsaved.values()))

    def _write_ratings(self) -> None:
        """Asked of the same model again, a question gets the next number in `repeat`."""
        text, asked = io.StringIO(), dict[tuple[str, str, str], int]()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_COLUMNS)
        for (participant, order), (model, answers) in sorted(self._rated.items()):
            for question, score in (answers or {}).items():
                if score is not None:
                    key = participant, model, question
                    asked[key] = asked.get(key, 0) + 1
                    table.writerow((*key, score, order, asked[key]))
        write_atomic(self.ratings, text.getvalue())


def check_models(count: int) -> None:
    """Raises UserError where letters do not suffice."""
    if count > len(LETTERS):
        raise UserError(f"a study compares at most {len(LETTERS)} models, not {count}: give fewer folders")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _only_one(folder: Path) -> Any:
    """The open lock of the folder: two servers would give two takes the same number."""
    import fcntl  # not on every system, and needed for studies alone

    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(f"another gapt jam writes to {folder}: end it, or give another folder") from None
    return lock


def _known(path: Path) -> tuple[tuple[str, int], tuple[str, Answers | None]]:
    """Participant and order, model and answers of a take's file."""
    try:
        take = json.loads(path.read_text(encoding="utf-8"))
        if take["schema"] != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        return (str(take["participant"]), int(take["order"])), (str(take["model"]), take["answers"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no take of a study ({error}): move it out of the folder") from None
