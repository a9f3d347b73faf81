"""A folder of one's own: all of it as one dataset; from tunes to a report by the commands of the README."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from gapt_jax.data_pipeline.builders import open_splits, prepare
from gapt_jax.data_pipeline.loader import open_corpus
from gapt_jax.errors import UserError
from tests import quick
from tests.data_pipeline.song_records import make_record, write_songs
from tests.toy import NETWORKS

GAPT = Path(sys.executable).parent / "gapt"
TOY = (
    *(*NETWORKS, "runtime.mesh.data=1"),
    *("data.max_frames=32", "evaluation.songs=8", "evaluation.monitor_songs=8", "evaluation.every=2"),
    *("evaluation.adaptation_songs=0", "evaluation.post_hoc_steps=2", "evaluation.same_melody_songs=0"),
    *(f"pretrain.{s}.steps=3" for s in ("policy", "anchor", "contrastive", "discriminative")),
    *("algorithm.steps=2", "algorithm.batch_size=16", "algorithm.discriminator.steps_per_update=2"),
)


def tune(number: int) -> str:
    """Sixteen bars of 4/4 with a chord each, in ABC."""
    draw = random.Random(number)
    bars = [
        "".join([f'"{draw.choice(("C", "F", "G", "Am", "Dm"))}"', *draw.choices("CDEFGABc", k=4)]) for _ in range(16)
    ]
    return f"X:{number}\nT:Tune {number}\nM:4/4\nL:1/4\nK:C\n{'|'.join(bars)}|]\n"


def write_tunes(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        (folder / f"tune{number}.abc").write_text(tune(number))
    return folder


def test_all_is_every_song_of_a_folder_whatever_holds_it(tmp_path):
    songs = write_tunes(tmp_path / "songs", 20)
    write_tunes(songs / "more airs", 3)  # the same tunes again
    (songs / "book.abc").write_text(tune(30))
    write_songs(songs / "records.jsonl.gz", [make_record("x")])
    write_tunes(songs / "runs" / "own" / "samples", 30)  # a run that was made there
    prepared = prepare("all", songs, tmp_path / "data")
    found = {str(i) for part in open_splits(prepared).values() for i in part.ids}
    assert sum(prepared.report["songs"].values()) == len(found) == 25
    assert {i.partition("/")[0] for i in found} == {"all", "more airs", "x"}
    again = prepare("all", songs, tmp_path / "data")
    assert again.path == prepared.path
    (songs / "book.abc").write_text(tune(31))
    assert prepare("all", songs, tmp_path / "data").path != prepared.path


def test_a_set_named_all_goes_before(tmp_path):
    write_tunes(tmp_path / "songs" / "all", 12)
    write_tunes(tmp_path / "songs" / "other", 5)
    assert sum(prepare("all", tmp_path / "songs", tmp_path / "data").report["songs"].values()) == 12


def test_too_few_tunes_say_that_a_hash_makes_the_splits(tmp_path):
    songs = write_tunes(tmp_path / "songs", 1)
    with pytest.raises(UserError, match=r"\(1 in .*\): a hash of their melody puts 80, 10 and 10 of a hundred"):
        open_corpus(
            songs=str(songs), mixture=[("all", 1.0)], out_of_domain=(), max_frames=32, chord_coverage=1.0,
            data_dir=tmp_path / "data",
        )  # fmt: skip


@pytest.mark.slow
def test_forty_tunes_become_a_reported_run_by_three_commands(tmp_path):
    songs = write_tunes(tmp_path / "tunes", 40)
    commands = (
        ["data", "check", songs],
        ["run", "own", "--set", f"data.songs={songs}", *(f"--set={setting}" for setting in TOY)],
        ["report", "runs/own"],
    )
    environment = os.environ | {"XLA_FLAGS": quick.added_to(os.environ["XLA_FLAGS"])}
    for command in commands:
        done = subprocess.run(
            [GAPT, *map(str, command)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "own"
    systems = json.loads((run / "evaluation.json").read_text())["systems"]
    assert set(systems) == {"data", "mle", "gapt_lambda=1"} and set(systems["mle"]) == {"all/test"}
    assert (run / "report.html").is_file()
