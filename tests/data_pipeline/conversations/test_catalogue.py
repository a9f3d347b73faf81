"""`gapt data` of conversations, and figures of the real meetings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gapt_jax.commands.main import main
from gapt_jax.data_pipeline.conversations import catalogue
from gapt_jax.data_pipeline.conversations.folder import Found, read
from gapt_jax.tasks.turn_taking import tokens
from tests.data_pipeline.conversations.rttm_files import AMI, corpus, rttm, write


def gapt_data(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict, str]:
    """Exit code, what was written as JSON, and the last line of what people read."""
    code = 0
    try:
        main(["data", *map(str, arguments), "--json"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, (err.splitlines() or [""])[-1]


def test_the_commands_of_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talks = corpus(tmp_path / "talks")
    corpus(talks / "more", 30)
    where = ("--conversations", talks, "--data-dir", tmp_path / "data")
    code, listed, _ = gapt_data(capsys, "list", *where)
    assert code == 0 and [(row["name"], row["prepared"]) for row in listed["datasets"]] == [
        ("all", False),
        ("more", False),
    ]
    code, checked, _ = gapt_data(capsys, "check", talks)
    assert code == 0 and checked["datasets"][0] == {"dataset": "all", "train": 2, "valid": 1, "test": 1, "faults": 0}
    code, report, _ = gapt_data(capsys, "prepare", "more", *where)
    assert code == 0 and report["hours"]["train"] == 0.017 and Path(report["path"]).is_dir()
    code, figures, _ = gapt_data(capsys, "stats", "more", *where)
    assert code == 0 and [row["conversations"] for row in figures["splits"]] == [2, 1, 1]
    assert gapt_data(capsys, "list", *where)[1]["datasets"][1]["prepared"]
    code, _, said = gapt_data(capsys, "prepare", "more", *where, "--download")
    assert code == 2 and said == "error: no conversations can be fetched: leave --download out"


def test_check_lists_faults_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = rttm("r", [("a", 0, 1), ("b", 1, 2)]) + "SPKR-INFO r 1\nSPEAKER r 1 nan 1 <NA> <NA> a <NA>\n"
    path = write(tmp_path, r__rttm=text) / "r.rttm"
    code, checked, said = gapt_data(capsys, "check", path)
    assert code == 2 and "has 1 faults: correct them, or train on what `gapt data prepare` keeps" in said
    assert checked["faults"] == [
        {"file": "r.rttm", "line": 4, "reason": "its start 'nan' is no number of seconds"},
    ]
    assert checked["skipped"] == {"SPKR-INFO": 1} and checked["faults_total"] == 1


def test_a_folder_of_songs_and_conversations_is_not_checked_by_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus(tmp_path / "talks")
    (tmp_path / "airs.jsonl").write_text("{}\n")
    code, _, said = gapt_data(capsys, "check", tmp_path)
    assert code == 2 and said.endswith("holds conversations (talks) and songs (airs): name one of them")


def test_figures_by_hand(tmp_path: Path) -> None:
    """Five seconds: a speaks in the first two, b from 1.8 to 2.2 and in the last, so 5 frames have nobody, 1 both."""
    text = rttm("r", [("a", 0, 2), ("b", 1.8, 2.2), ("b", 3.2, 4.2)])
    found = read(write(tmp_path, r__rttm=text, r__uem="r 1 0 5\n")).conversations
    assert catalogue.describe(found, 0.2) == {
        "conversations": 1,
        "hours": 5 / 3600,
        "segments": 3,
        "under_1_s": 1 / 3,
        "vocal_sounds": 0,
        "nobody": 9 / 25,
        "two_or_more": 1 / 25,
        "speaks_alone": (9 + 6) / (18 + 15),
        "speaks_beside_one": (1 + 1) / (7 + 10),
        "starts_in_speech": 1 / 2,
    }


@pytest.fixture(scope="module")
def meetings() -> Found:
    return read(AMI)


@pytest.mark.real_data
def test_the_meetings_are_as_their_readme_counts_them(meetings: Found) -> None:
    splits = {
        split: [meeting for meeting in meetings.conversations if meeting.split == split]
        for split in ("train", "valid", "test")
    }
    assert [len(found) for found in splits.values()] == [136, 18, 16]
    speakers = [{name for meeting in found for name in meeting.speakers} for found in splits.values()]
    assert [len(found) for found in speakers] == [152, 21, 16] and len(set.union(*speakers)) == 189
    assert {"ES2002"} == {meeting.group for meeting in splits["train"] if meeting.id.startswith("ES2002")}
    figures = catalogue.describe(splits["train"], 0.2)
    assert figures["segments"] == 66_816 - 3  # that begin after the recording
    rounded = {name: round(100 * figures[name]) for name in ("under_1_s", "nobody", "two_or_more", "starts_in_speech")}
    assert rounded == {"under_1_s": 41, "nobody": 16, "two_or_more": 13, "starts_in_speech": 65}
    assert round(100 * figures["speaks_alone"]) == 52 and round(100 * figures["speaks_beside_one"]) == 10
    assert [fault.line for fault in meetings.faults.kept if fault.file == "train.words.rttm.gz"] == [
        55_223,
        55_225,
        55_226,
        55_227,
    ]
    assert meetings.faults.total == 8 and not meetings.skipped


@pytest.mark.real_data
def test_tokens_of_the_meetings(meetings: Found) -> None:
    """Each participant in turn is the agent; the shares that `tokens` states."""
    counts = np.zeros(tokens.SIZE, np.int64)
    frames = 0
    for meeting in meetings.conversations:
        if meeting.split == "train":
            context, actions = tokens.encode(*meeting.frames(tokens.FRAME_SECONDS))
            counts += np.bincount(actions.ravel(), minlength=tokens.SIZE)
            counts += np.bincount(context.ravel(), minlength=tokens.SIZE)
            frames += actions.size
    turn, backchannel = counts[tokens.TURN_ONSET], counts[tokens.BACKCHANNEL_ONSET]
    assert frames == 5_816_636 == counts[: tokens.CONTEXT].sum() == counts[tokens.CONTEXT :].sum()
    assert round(100 * backchannel / (turn + backchannel)) == 38
    spoken = counts[tokens.TURN_ONSET : tokens.VOCAL_ONSET]
    assert round(100 * spoken[2:].sum() / spoken.sum()) == 5
