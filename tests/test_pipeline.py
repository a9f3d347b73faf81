"""The whole pipeline at toy size, by its real entry point: run, resume, reuse, evaluate, sample, report, refuse."""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import mido
import pytest

from gapt_jax import midi
from gapt_jax.export import onnx
from gapt_jax.runtime.metrics import read_metrics
from tests.toy import TOY, gapt


def toy_run(workdir, *settings: str) -> int:
    """A run without its page: `gapt report` draws one below."""
    with mock.patch("gapt_jax.commands.run.write_page"):
        return gapt("run", "smoke", "--workdir", str(workdir), *(f"--set={s}" for s in [*TOY, *settings]))


@pytest.fixture(scope="module")
def root(toy_root):
    """A folder with one finished run, λ = 1."""
    assert toy_run(toy_root / "whole") == 0
    return toy_root


def evaluation(workdir):
    """All but the time of a decoding step, which no two measurements share."""
    found = json.loads((workdir / "evaluation.json").read_text())
    assert set(found.pop("decode_step")) == set(found["systems"]) - {"data"}
    return found


@pytest.mark.slow
def test_a_run_leaves_a_complete_account(root):
    run = root / "whole"
    files = "config.json run.json vocabulary.json metrics.jsonl account.json evaluation.json samples.json"
    for name in files.split():
        assert (run / name).stat().st_size > 0
    result = evaluation(run)
    assert list(result["systems"]) == ["data", "mle", "gapt_lambda=1"]
    for sets in result["systems"].values():
        assert list(sets) == ["grammar/test", "grammar_modal/all"]
        assert {m["n_songs"] for m in sets["grammar/test"].values()} == {24}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(7))  # step 0 is the policy before post-training
    assert all("valid/vendi_independent" in rows[step] for step in (0, 3, 6))
    facts = json.loads((run / "run.json").read_text())
    assert facts["data_fingerprint"] == result["data_fingerprint"]


@pytest.mark.slow
def test_evaluate_gives_the_same_numbers_from_the_checkpoint(root):
    before = evaluation(root / "whole")
    shutil.move(root / "whole" / "evaluation.json", root / "kept.json")
    assert gapt("evaluate", str(root / "whole")) == 0
    assert evaluation(root / "whole") == before


@pytest.mark.slow
def test_lambda_0_shares_everything_upstream(root):
    stages = sorted(path.name for path in (root / "stages").iterdir())
    done = {path: path.stat().st_mtime_ns for path in (root / "stages").glob("*/done.json")}
    assert len(done) == 6
    assert toy_run(root / "without", "algorithm.adversarial_weight=0") == 0
    assert sorted(path.name for path in (root / "stages").iterdir()) == stages
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    ours, theirs = evaluation(root / "whole")["systems"], evaluation(root / "without")["systems"]
    assert ours["mle"] == theirs["mle"]
    assert ours["gapt_lambda=1"] != theirs["gapt_lambda=0"]


@pytest.mark.slow
def test_init_from_takes_the_weights_of_another_run_and_nothing_else(root, tmp_path, capsys):
    source, settings = str(root / "whole"), [f"--set={s}" for s in TOY]
    for made in ("data", "stages"):
        shutil.copytree(root / made, tmp_path / made)
    (tmp_path / "empty").mkdir()
    run = ["run", "smoke", "--workdir", str(tmp_path / "run"), *settings]
    assert gapt(*run, "--init-from", str(tmp_path / "empty")) == 2
    assert "config.json does not exist" in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()  # a slip can be corrected
    assert gapt(*run, "--init-from", source) == 0
    first, last = (read_metrics(folder / "metrics.jsonl") for folder in (tmp_path / "run", root / "whole"))
    before, after = first[0], last[-1]
    names = [name for name in after if name.startswith("valid/")]
    assert before["step"] == 0 and names and {n: before[n] for n in names} == {n: after[n] for n in names}
    assert gapt(*run) == 2
    assert "give the same --init-from" in capsys.readouterr().err


@pytest.mark.slow
def test_an_older_checkpoint_is_evaluated_into_a_file_of_its_own(root, capsys):
    run, before = root / "whole", evaluation(root / "whole")
    assert gapt("evaluate", str(run), "--dataset", "grammar", "--step", "4") == 0
    assert json.loads((run / "evaluation-step4.json").read_text())["step"] == 4
    assert evaluation(run) == before
    assert gapt("evaluate", str(run), "--step", "5") == 2
    assert "no checkpoint of step 5 (kept: 4, 6)" in capsys.readouterr().err


@pytest.mark.slow
def test_another_truncation_is_evaluated_into_a_file_of_its_own(root):
    run, before = root / "whole", evaluation(root / "whole")
    assert gapt("evaluate", str(run), "--dataset", "grammar", "--top-k", "0.1") == 0
    found = json.loads((run / "evaluation-top_k0.1-top_p1.json").read_text())
    size = json.loads((run / "vocabulary.json").read_text())["names"]
    tokens = -(-(260 + 2 * len(size)) // 10)
    assert found["truncation"] == {"top_k": 0.1, "tokens": tokens, "top_p": 1.0} and "truncation" not in before
    played, whole = (x["systems"]["mle"]["grammar/test"] for x in (found, before))
    assert played["chord_entropy"] != whole["chord_entropy"]
    assert evaluation(run) == before


@pytest.mark.slow
def test_a_folder_of_another_run_is_refused_and_left_alone(root, capsys):
    before = {path: path.stat().st_mtime_ns for path in (root / "whole").rglob("*") if path.is_file()}
    assert toy_run(root / "whole", "algorithm.kl_coef=0.5") == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 and "algorithm.kl_coef" in error and "--workdir" in error
    assert {path: path.stat().st_mtime_ns for path in (root / "whole").rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_changed_vocabulary_is_refused(root, tmp_path, capsys):
    shutil.copytree(root / "whole", tmp_path / "whole")
    shutil.copytree(root / "data", tmp_path / "data")
    path = tmp_path / "whole" / "vocabulary.json"
    path.write_text(path.read_text().replace('"Dbm"', '"Xbm"'))
    assert toy_run(tmp_path / "whole") == 2
    assert "vocabulary" in capsys.readouterr().err


@pytest.mark.slow
def test_other_songs_are_refused_on_resume(root, tmp_path, capsys):
    from gapt_jax.data_pipeline import grammar

    songs = tmp_path / "songs"
    songs.mkdir()
    with gzip.open(songs / "grammar.jsonl.gz", "wt") as stream:
        for number, split in enumerate(["train", "valid", "test"] * 8):
            song = grammar.make_song("grammar", number, split)
            record = {**vars(song), "melody": [list(n) for n in song.melody], "chords": [list(c) for c in song.chords]}
            stream.write(json.dumps(record) + "\n")
    shutil.copytree(root / "whole", tmp_path / "whole")
    assert toy_run(tmp_path / "whole", f"data.songs={songs}") == 2
    assert "fingerprint" in capsys.readouterr().err


@pytest.mark.slow
def test_samples_are_midi_and_the_report_stands_alone(root, tmp_path):
    assert gapt("sample", str(root / "whole"), "--out", str(tmp_path / "midi"), "--songs", "2") == 0
    files = sorted((tmp_path / "midi").glob("*.mid"))
    assert len(files) == 2
    assert [track.name for track in mido.MidiFile(files[0]).tracks][-2:] == ["melody", "chords"]
    assert gapt("sample", str(root / "whole"), "--melody", str(files[0]), "--out", str(tmp_path), "--songs", "1") == 0
    assert gapt("report", str(root / "whole"), "--out", str(tmp_path / "report")) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<svg" in page


@pytest.mark.slow
def test_a_melody_is_accompanied_whole_in_its_own_time(root, tmp_path, capsys):
    run, tune = shutil.copytree(root / "whole", tmp_path / "runs" / "whole"), tmp_path / "tune.mid"
    notes = [midi.Note(beat, beat + 1, 60 + beat % 12) for beat in range(6, 30)]  # the network remembers 4 beats
    tempos, meters = [(0.0, 0.5), (9.0, 0.7)], [(0.0, (3, 4)), (12.0, (2, 4))]
    tune.write_bytes(midi.build(notes, [], tempos=tempos, meters=meters))
    assert gapt("sample", str(run), "--melody", str(tune), "--songs", "2", "--out", str(tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert 'its track "melody"' in said and "it begins in bar 3" in said and "reused" not in said
    for path in (tmp_path / "out" / "tune-1.mid", tmp_path / "out" / "tune-2.mid"):
        file = midi.parse(path.read_bytes())
        assert file.tempos == [(0, 0.5), (3, 0.7)] and file.meters == [(0, (3, 4)), (6, (2, 4))]
        assert [(note.onset + 6, note.pitch) for note in midi.melody_of(file)] == [(note[0], note[2]) for note in notes]
        assert file.beats == 24 and midi.chords_of(file)[-1].onset > 12


@pytest.mark.slow
def test_held_out_samples_load_no_other_models(root, tmp_path, capsys):
    assert gapt("sample", str(root / "whole"), "--songs", "1", "--out", str(tmp_path / "out")) == 0
    assert "reused" not in capsys.readouterr().out


@pytest.mark.slow
def test_evaluating_again_changes_no_times_and_takes_the_split_of_the_run(root):
    run = root / "whole"
    facts, before = (run / "run.json").read_text(), evaluation(run)
    assert gapt("evaluate", str(run), "--dataset", "grammar_modal") == 0
    assert (run / "run.json").read_text() == facts and evaluation(run) == before
    assert gapt("evaluate", str(run), "--dataset", "grammar", "--split", "valid") == 0
    assert list(evaluation(run)["systems"]["mle"]) == ["grammar/test", "grammar_modal/all", "grammar/valid"]


def test_a_stage_that_the_run_does_not_have_is_refused(tmp_path, capsys):
    setting = "algorithm.rewards.rhythm_contrastive=0"
    assert (
        gapt("run", "smoke", "--workdir", str(tmp_path / "r"), "--stage", "rhythm_contrastive", "--set", setting) == 2
    )
    assert "weight 0" in capsys.readouterr().err


def test_a_negative_reward_weight_is_refused(tmp_path, capsys):
    assert gapt("run", "smoke", "--workdir", str(tmp_path / "r"), "--set", "algorithm.rewards.silence=-1") == 2
    assert "silence must be at least 0, not -1.0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.onnx
def test_the_commands_of_the_serving_guide(root, tmp_path):
    """Shell, JavaScript and Python of docs/serving.md in their order, in a folder where runs/small is a run; the Python
    is for ONNX and runs where its packages are."""
    guide = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        guide = guide.replace("8765", str(probe.getsockname()[1]))
    blocks = re.findall(r"^```(sh|js|python)\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["sh", "sh", "sh", "js", "python"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "small").symlink_to(root / "whole")
    script = ["set -e", "trap 'kill $(jobs -p)' EXIT"]
    for number, (language, code) in enumerate(blocks):
        if language == "sh":
            script.append(code)
        elif language == "js" or onnx.is_installed():
            (tmp_path / f"{number}.mjs").write_text(code)
            runner = sys.executable if language == "python" else shutil.which("node")
            script += [f"echo '== {language}'", f"{runner} {number}.mjs"] if runner else []
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, env=os.environ | {"PATH": path, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        shown = process.communicate(timeout=600)[0]
        assert process.returncode == 0, shown
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "plays the policy it was made from" in shown and '"ready":true' in shown and '"symbols"' in shown
    if onnx.is_installed():
        played = shown.rpartition("== python\n")[2].split()
        assert len(played) == 4 and all(token.isdigit() for token in played)
