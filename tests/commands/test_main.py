"""The command line by its real entry point."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gapt_jax import config, experiments
from gapt_jax.commands.main import main
from gapt_jax.commands.report import report_folder
from gapt_jax.errors import TrainingStopped, UserError
from gapt_jax.tasks.accompaniment.config import Experiment

GAPT = Path(sys.executable).parent / "gapt"
COMMANDS = [
    [], ["run"], ["evaluate"], ["sample"], ["report"], ["bench"], ["doctor"],
    ["data"], ["data", "list"], ["data", "prepare"], ["data", "check"], ["data", "stats"],
]  # fmt: skip
MY_EXPERIMENT = """
from __future__ import annotations
import dataclasses
from gapt_jax.tasks.accompaniment.config import Experiment

@dataclasses.dataclass
class Local:
    x: int = 1

def mine() -> Experiment:
    return Experiment(name=f"mine{Local().x}")

def number():
    return 3
"""


WRONG_EXPERIMENTS = """
from pathlib import Path
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig, DataConfig, Experiment
def f():
    return Experiment(algorithm=AlgorithmConfig(adversarial_wieght=1))

def needs(value):
    return Experiment()

def leaves():
    raise SystemExit(3)

def path():
    return Experiment(data=DataConfig(songs=Path("x")))
"""


def gapt(*arguments, cwd):
    return subprocess.run([GAPT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=60)


def assert_one_sentence(done, code, *words):
    assert done.returncode == code, done.stderr
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command(command, tmp_path):
    done = gapt(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"usage: {' '.join(['gapt', *command])}")
    assert ("--json" in done.stdout) == (command not in ([], ["data"]))


def test_help_names_no_command_that_does_not_exist(tmp_path):
    named = set(re.findall(r"^    ([\w-]+)(?:  |$)", gapt("--help", cwd=tmp_path).stdout, re.MULTILINE))
    others = {
        "jam",
        "play",
        "listen",
        "export",
        "verify",
        "import-torch",
        "serve",
        "ablate",
        "study",
        "bench",
        "plan",
        "launch",
        "doctor",
    }
    assert named == {"run", "evaluate", "sample", "report", "data", *others}


def test_help_is_quick(tmp_path):
    def seconds():
        """Of computing: a busy machine makes the wait longer, not the work."""
        before = os.times()
        gapt("--help", cwd=tmp_path)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5


def test_importing_the_command_line_loads_nothing_heavy():
    heavy = "{'jax', 'flax', 'numpy', 'rich', 'mido', 'tensorflow_datasets', 'matplotlib'}"
    subprocess.run(
        [sys.executable, "-c", f"import gapt_jax.commands.main, sys; assert not {heavy} & set(sys.modules)"], check=True
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], ["'rnu'", "did you mean 'run'?"]),
        ([], ["COMMAND"]),
        (["run"], ["EXPERIMENT"]),
        (["--json", "rnu"], ["'rnu'", "did you mean 'run'?"]),
        (["run", "smokee"], ["'smokee'", "did you mean 'smoke'?", "small"]),
        (["run", "../experiments/smoke"], ["there is no experiment"]),
        (["run", "smoke", "--set", "algorthm.steps=3"], ["did you mean 'algorithm.steps'?"]),
        (["run", "smoke", "--set", "algorithm.steps=many"], ["algorithm.steps", "'many'"]),
        (["run", "smoke", "--set", "algorithm.steps"], ["path=value"]),
        (["run", "smoke", "--stes", "a=1"], ["'--stes'", "did you mean"]),
        (["run", "smoke", "--deb"], ["'--deb'", "did you mean '--debug'?"]),
        (["run", "absent.py:f"], ["absent.py"]),
        (["run", "mine.py"], ["mine.py:"]),
        (["run", "mine.py:absent"], ["absent()"]),
        (["run", "mine.py:number"], ["returns int"]),
        (["evaluate", "runs/absent"], ["runs/absent", "gapt run"]),
        (["evaluate", ".", "--split", "tets"], ["did you mean 'test'?"]),
        (["evaluate", ".", "--top-k", "50"], ["--top-k", "'50' is not a share above 0 and at most 1"]),
        (["evaluate", ".", "--top-p", "nan"], ["--top-p", "'nan' is not a share"]),
        (["evaluate", ".", "--opponent", "agent", "--agent", ".", "--top-k", "0.1"], ["--opponent data"]),
        (["sample", "runs/absent"], ["runs/absent"]),
        (["sample", ".", "--songs", "0"], ["--songs"]),
        (["sample", ".", "--seed", "x"], ["--seed"]),
        (["report", "runs/absent"], ["runs/absent"]),
        (["report", "mine.py"], ["mine.py is a file", "folder of the run"]),
        (["report"], ["RUN"]),
        (["data", "chekc"], ["did you mean 'check'?"]),
        (["data", "check", "absent.jsonl.gz"], ["absent.jsonl.gz"]),
        (["data", "check", "mine.py"], ["mine.py holds no file to check"]),
        (["data", "list", "--songs", "absent"], ["absent"]),
        (["data", "stats", "absent"], ["'absent'", "grammar"]),
        (["run", "syntax.py:f"], ["syntax.py, line 2", "SyntaxError"]),
        (["run", "missing.py:f"], ["missing.py, line 3", "ModuleNotFoundError", "no_such_module"]),
        (["run", "wrong.py:f"], ["wrong.py, line 5", "TypeError", "adversarial_wieght"]),
        (["run", "wrong.py:needs"], ["wrong.py", "TypeError", "argument"]),
        (["run", "wrong.py:leaves"], ["wrong.py, line 11", "SystemExit"]),
        (["run", "wrong.py:path"], ["data.songs", "str"]),
        (["run", "smoke", "--workdir", "mine.py"], ["--workdir mine.py", "is a file"]),
        (["run", "smoke", "--workdir", "mine.py/x"], ["mine.py is a file"]),
        (["sample", ".", "--out", "mine.py"], ["--out mine.py", "is a file"]),
        (["report", ".", "--out", "mine.py"], ["--out mine.py", "is a file"]),
        (["bench", "--out", "."], ["--out . is a folder"]),
        (["export", ".", "--out", "mine.py"], ["mine.py", "is a file"]),
        (["data", "prepare", "grammar", "--data-dir", "mine.py"], ["--data-dir mine.py", "is a file"]),
        (["run", "smoke", "--set", f"seed={2**65}"], ["seed must be at most"]),
        (["sample", ".", "--seed", f"{2**65}"], ["--seed", "whole number from 0"]),
        (["sample", ".", "--seed", "-1"], ["--seed"]),
        (["run", "smoke", "--set", "name=../x"], ["name must be a plain folder name"]),
        (
            ["run", "small", "--set", "data.songs=songs"],
            [
                "no hooktheory, pop909, nottingham, openewld (it has airs, all)",
                "gapt run own",
                "--download",
                "CC BY-NC-SA 3.0",
            ],
        ),
        (["run", "own", "--set", "data.songs=empty"], ["empty holds no songs", ".jsonl.gz", ".abc", "another folder"]),
        (["run", "small", "--set", "data.songs=empty"], ["empty holds no songs", "--download", "CC BY-NC-SA 3.0"]),
        (["run", "own", "--set", "data.songs=mine.py"], ["mine.py is a file", "folder that holds it"]),
        (["data", "prepare", "hooktheory", "--songs", "songs"], ["--download", "CC BY-NC-SA 3.0", "airs"]),
        (["data", "stats", "pop909", "--songs", "songs"], ["--download", "MIT"]),
        (["data", "prepare", "airs", "--songs", "songs", "--download"], ["'airs' is no public set"]),
        (["report", "songs"], ["songs is no run", "gapt run"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, tmp_path):
    (tmp_path / "mine.py").write_text(MY_EXPERIMENT)
    (tmp_path / "syntax.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "missing.py").write_text('"""Mine."""\n\nimport no_such_module\n')
    (tmp_path / "wrong.py").write_text(WRONG_EXPERIMENTS)
    (tmp_path / "songs" / "airs").mkdir(parents=True)
    (tmp_path / "songs" / "airs" / "tune.abc").write_text("X:1\nK:C\n")
    (tmp_path / "empty").mkdir()
    done = gapt(*arguments, cwd=tmp_path)
    assert_one_sentence(done, 2, *words)
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(tmp_path):
    done = gapt("run", "smokee", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr and done.stderr.splitlines()[-1].startswith("error: ")


def test_json_is_one_object_on_stdout(tmp_path):
    done = gapt("data", "list", "--json", cwd=tmp_path)
    assert {row["name"] for row in json.loads(done.stdout)["datasets"]} >= {"grammar"}
    assert "next: " in done.stderr


def test_data_list_fits_a_terminal(tmp_path):
    (tmp_path / "a_set_of_tunes_with_a_very_long_name.jsonl").write_text("")
    done = gapt("data", "list", "--songs", tmp_path, cwd=tmp_path)
    lines = done.stdout.splitlines()
    table = [line for line in lines if not line.startswith(("datasets of", "whole", "next"))]
    assert len(table) == 2 + 8 and max(map(len, table)) <= 110
    assert any("github.com/music-x-lab" in line and "MIT" in line for line in table)


def test_a_name_that_is_nearly_right_is_met_with_the_right_one(tmp_path):
    done = gapt("data", "prepare", "grammer", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean 'grammar'?" in done.stderr and "--set" not in done.stderr


def test_data_check_of_an_empty_file_fails(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    done = gapt("data", "check", "empty.jsonl", cwd=tmp_path)
    assert done.returncode == 2 and "it is empty" in done.stdout and "no faults" not in done.stdout


def test_data_check_lists_faults_and_fails(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}\nnot json\n")
    done = gapt("data", "check", tmp_path, "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert [(fault["file"], fault["line"]) for fault in json.loads(done.stdout)["faults"]] == [
        ("bad.jsonl", 1),
        ("bad.jsonl", 2),
    ]


def test_experiments_by_name_and_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(MY_EXPERIMENT)
    assert experiments.load(f"{tmp_path}/mine.py:mine") == Experiment(name="mine1")
    assert experiments.load("pod:v5e_64").name == "pod-v5e-64"
    assert experiments.names()
    for name in experiments.names():
        assert isinstance(experiments.load(name), config.Experiment)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("do\nthis"), 2, "error: do this"),
        (TrainingStopped("'kl' is not finite"), 3, "error: 'kl' is not finite"),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to continue"),
        (OSError(28, "No space left on device", "/a/b"), 2, "error: no space left on device: /a/b"),
        (PermissionError(13, "Permission denied", "/a"), 2, "error: permission denied: /a"),
        (ValueError("a\nb"), 1, "error: ValueError: a (run again with --debug for the traceback)"),
        (
            OSError(5, "Input/output error", "/a"),
            1,
            "error: OSError: [Errno 5] Input/output error: '/a' (run again",
        ),
    ],
)
def test_every_kind_of_end_has_its_exit_code(error, code, line, monkeypatch, capsys):
    def fail(arguments):
        raise error

    monkeypatch.setattr("gapt_jax.commands.main._dispatch", fail)
    with pytest.raises(SystemExit) as exit_:
        main(["doctor"])
    assert exit_.value.code == code
    out, err = capsys.readouterr()
    assert err.startswith(line) and err.count("\n") == 1 and out == ""


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    process = subprocess.Popen(
        [GAPT, "data", "list"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 141


def test_the_licence_is_shown_before_a_public_set_is_fetched(tmp_path, monkeypatch, capsys):
    (tmp_path / "songs").mkdir()

    def fetch(name, dl_manager, place):
        assert "licence CC BY-NC-SA 3.0" in capsys.readouterr().out
        raise UserError("no network")

    monkeypatch.setattr("gapt_jax.data_pipeline.upstream.fetch", fetch)
    arguments = ["data", "prepare", "hooktheory", "--songs", f"{tmp_path}/songs", "--data-dir", f"{tmp_path}/data"]
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--download"])
    assert "no network" in capsys.readouterr().err


def test_report_folder_of_several_runs_lies_beside_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report_folder([Path("runs/a")]) == Path("runs/a")
    assert report_folder([Path("runs/a"), tmp_path / "runs" / "b"]) == tmp_path / "runs" / "report"


def test_what_native_code_writes_to_stdout_is_not_ours(tmp_path):
    code = "import os\nfrom gapt_jax.commands.main import main\nmain(['data', 'list'])\nos.write(1, b'from a library')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "grammar" in done.stdout and "library" not in done.stdout
