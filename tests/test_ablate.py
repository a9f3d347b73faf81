"""`gapt ablate` at toy size by its real entry point: a grid, an interruption, a member that diverges, bad input."""

import contextlib
import json
from unittest import mock

import pytest

from gapt_jax.runtime import hosts
from gapt_jax.runtime.metrics import read_metrics
from tests.toy import TOY, gapt

SETTINGS = [f"--set={setting}" for setting in TOY]
COMMANDS = "gapt_jax.commands"  # draw the page where a test asks for it


def ablate(workdir, *arguments: str, page: bool = False) -> int:
    with contextlib.nullcontext() if page else mock.patch(f"{COMMANDS}.ablate.write_page", return_value=False):
        return gapt("ablate", "smoke", "--workdir", str(workdir), *SETTINGS, *arguments)


def record(workdir):
    return json.loads((workdir / "ablation.json").read_text())


def metrics_of(workdir):
    return {path.parent.name: read_metrics(path) for path in sorted(workdir.glob("*/metrics.jsonl"))}


@pytest.fixture(scope="module")
def root(toy_root):
    """A folder with one finished grid of two λ and two seeds."""
    assert ablate(toy_root / "grid", "--lambdas", "0,1", "--seeds", "3,4", page=True) == 0
    return toy_root


@pytest.mark.slow
def test_a_grid_leaves_a_run_for_each_member_and_a_report(root):
    found = record(root / "grid")
    assert [arm["name"] for arm in found["arms"]] == ["gapt_lambda=0", "gapt_lambda=1"]
    assert found["baseline"] == "gapt_lambda=0" and found["seeds"] == [3, 4]
    assert [m["status"] for m in found["members"]] == ["finished"] * 4
    assert found["population"]["members_at_once"] == 4
    assert (root / "stages").is_dir() and not (root / "grid" / "stages").exists()
    results = json.loads((root / "grid" / "results.json").read_text())
    assert results["systems"]["gapt_lambda=1"]["grammar/test"]["note_in_chord"]["n_seeds"] == 2
    assert (root / "grid" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_a_member_is_the_run_of_its_settings(root):
    single = root / "single"
    settings = ["--set=seed=4", "--set=algorithm.adversarial_weight=1"]
    with mock.patch(f"{COMMANDS}.run.write_page"):
        assert gapt("run", "smoke", "--workdir", str(single), *SETTINGS, *settings) == 0
    theirs, ours = read_metrics(single / "metrics.jsonl"), metrics_of(root / "grid")["gapt_lambda=1-seed4"]
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        known = [{name: value for name, value in row.items() if isinstance(value, float)} for row in (a, b)]
        assert a.keys() == b.keys() and known[0] == pytest.approx(known[1], rel=1e-3, abs=1e-3)
    member = root / "grid" / "gapt_lambda=1-seed4"
    assert json.loads((single / "config.json").read_text()) == json.loads((member / "config.json").read_text())
    assert gapt("evaluate", str(member), "--dataset", "grammar") == 0


@pytest.mark.slow
def test_an_interrupted_ablation_goes_on(root, monkeypatch, capsys):
    answers = iter([False, False, False, True])
    monkeypatch.setattr(hosts, "should_stop", lambda: next(answers, False))
    grid = "--lambdas", "0,1", "--seeds", "3,4"
    assert ablate(root / "again", *grid) == 42
    assert "preempted at step 4 of 6" in capsys.readouterr().err
    assert {m["status"] for m in record(root / "again")["members"]} == {"unfinished"}
    monkeypatch.undo()
    for path in (root / "again" / "gapt_lambda=0-seed4" / "checkpoints" / "4" / "default").rglob("d/*"):
        path.unlink()
    assert ablate(root / "again", *grid) == 0
    assert "gapt_lambda=0-seed4/checkpoints cannot be read at step 4" in capsys.readouterr().out
    assert metrics_of(root / "again") == metrics_of(root / "grid")
    before = (root / "again" / "gapt_lambda=0-seed3" / "evaluation.json").stat().st_mtime_ns
    assert ablate(root / "again", *grid) == 0  # nothing is left to do
    assert (root / "again" / "gapt_lambda=0-seed3" / "evaluation.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_member_that_diverges_is_left_out_and_the_others_finish(root, capsys):
    rates = "--grid", "algorithm.policy.learning_rate=0.001,1e30", "--seeds", "3,4"
    assert ablate(root / "rates", *rates) == 0
    members = {m["folder"]: m for m in record(root / "rates")["members"]}
    bad = {name for name, member in members.items() if member["status"] == "stopped"}
    assert bad == {"learning_rate=1e30-seed3", "learning_rate=1e30-seed4"}
    assert "skipped because" in members["learning_rate=1e30-seed3"]["reason"]
    assert "learning_rate=1e30-seed3 is left out" in capsys.readouterr().out
    assert members["learning_rate=0.001-seed3"]["status"] == "finished"
    rows = metrics_of(root / "rates")
    assert rows["learning_rate=0.001-seed3"] == metrics_of(root / "grid")["gapt_lambda=1-seed3"]


@pytest.mark.slow
def test_members_that_an_alarm_stopped_are_gone_on_with_by_the_same_command(root, capsys):
    grid = "--lambdas", "0,1", "--seeds", "3,4"
    health = [f"--set=health.{setting}" for setting in ("max_kl=0", "steps=3", "actions.kl_budget=stop")]
    assert ablate(root / "stopped", *grid, *health, page=True) == 2
    assert "every member of" in capsys.readouterr().err
    assert {m["status"] for m in record(root / "stopped")["members"]} == {"stopped"}
    assert all([row["step"] for row in rows] == [0, 1, 2, 3] for rows in metrics_of(root / "stopped").values())
    assert ablate(root / "stopped", *grid, *health, page=True) == 0
    assert {m["status"] for m in record(root / "stopped")["members"]} == {"finished"}
    assert metrics_of(root / "stopped") == metrics_of(root / "grid")
    ends = [json.loads((root / name / "results.json").read_text())["systems"] for name in ("grid", "stopped")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--preset", "lamda"], "did you mean 'lambda'"),
        (["--preset", "ensemble", "--set", "pretrain.members=1"], "add --set pretrain.members=2"),
        (["--preset", "gate", "--set", "algorithm.adversarial_weight=0"], "would train the same policy"),
        (["--lambdas", "0,one"], "takes numbers"),
        (["--lambdas", "0,-1"], "0 or more"),
        (["--lambdas", "0,1,1"], "gapt_lambda=1 is asked for twice"),
        (["--grid", "algorithm.kl_coef"], "path=value,value"),
        (["--grid", "algorithm.kl=1,2"], "unknown setting"),
        (["--seeds", "0"], "no seed"),
        (["--seeds=-3,1"], "negative"),
        (["--seeds", "1,1"], "twice"),
        (["--at-once", "0"], "at least 1"),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path, capsys, arguments, sentence):
    assert ablate(tmp_path / "x", *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error and error.count("\n") == 0
    assert not (tmp_path / "x").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert ablate(tmp_path / "file", "--lambdas", "0,1") == 2
    assert "is a file, not a folder" in capsys.readouterr().err
    for content, sentence in (([], "not the record of an ablation"), ({"arms": [{"name": "x"}]}, "has the arm x too")):
        (tmp_path / "ablation.json").write_text(json.dumps(content))
        assert ablate(tmp_path, "--lambdas", "0,1") == 2
        assert sentence in capsys.readouterr().err
        assert json.loads((tmp_path / "ablation.json").read_text()) == content
