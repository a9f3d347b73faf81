"""The report on synthetic run folders: complete, self-contained, escaped, and clear about what is wrong."""

import base64
import csv
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from gapt_jax.commands.report import write_page
from gapt_jax.errors import UserError, install
from gapt_jax.evaluation import agreement, results
from gapt_jax.report import summary
from gapt_jax.report.reading import read_run, read_study
from gapt_jax.report.writer import read_results, write_report
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment import player
from tests.toy import gapt

VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta"}
PNG = "data:image/png;base64,"
EVIL = '<script>alert("1")</script>&$x_1$'


class Page(HTMLParser):
    """Checks nesting outside SVG and collects text, tags and everything that could load something."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.tags, self.loads, self.ids = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            self.loads += [value] if name in ("src", "href", "xlink:href", "data", "srcset") else []
            self.ids += [value] if name == "id" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def grid(make_run, tmp_path_factory):
    """Two λ, three seeds: (run folders, out folder, files)."""
    root = tmp_path_factory.mktemp("grid")
    runs = [make_run(root / f"l{w}-s{s}", w, s, steps=60) for w in (1, 0) for s in range(3)]
    return runs, root / "out", write_report(runs, root / "out")


def html_of(out) -> str:
    return (out / "report.html").read_text()


def test_all_files_are_written(grid):
    _, out, files = grid
    names = {path.name for path in files}
    assert files[0] == out / "report.html" and all(path.stat().st_size for path in files)
    assert {
        "results.csv",
        "results.json",
        "quality_diversity.png",
        "rewards.png",
        "discriminator.png",
    } < names
    assert {"learning_path.png", "over_distance.png", "validation.png", "policy.png", "piano_roll_1.png"} < names
    assert {path.name for path in out.iterdir()} == names, "a temporary file was left"


def test_results_hold_the_evaluations_while_learning(grid):
    learning = json.loads((grid[1] / "results.json").read_text())["learning"]
    assert set(learning) == {"gapt_lambda=0", "gapt_lambda=1"}
    for by_seed in learning.values():
        for found in by_seed.values():
            assert {"step", "note_in_chord", "note_in_chord_chance", "vendi_independent", "sqrt_kl"} < set(found)
            assert len({len(values) for values in found.values()}) == 1 and found["step"] == sorted(found["step"])


def test_page_is_self_contained_and_well_formed(grid):
    page = Page(html_of(grid[1]))
    assert page.tags.count("svg") == len([f for f in grid[2] if f.suffix == ".png"]) == 13
    assert not {"link", "img", "iframe"} & set(page.tags)
    assert page.tags.count("script") == 3, "what lines say, the notes and the player"
    within = [target for target in page.loads if target.startswith("#")]
    assert len(within) > 50 and len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in within} <= set(page.ids)
    saved = [base64.b64decode(target.removeprefix(PNG)) for target in page.loads if target.startswith(PNG)]
    assert len(within) + len(saved) == len(page.loads)
    assert sorted(saved) == sorted(f.read_bytes() for f in grid[2] if f.suffix == ".png")
    for source in ("url(http", "url(//", "@import"):
        assert source not in html_of(grid[1])


def test_outcome_in_words(grid):
    text = html_of(grid[1]).replace("\u00a0", " ")
    assert ">undecided<" in text and "a collapse" in text
    assert "no result of 3 pairs could reach p &lt; 0.05 (best: 0.25)" in text


def test_results_json(grid):
    data = json.loads((grid[1] / "results.json").read_text(), parse_constant=pytest.fail)
    assert list(data["systems"]) == ["data", "mle", "gapt_lambda=0", "gapt_lambda=1"]
    entry = data["systems"]["gapt_lambda=1"]["hooktheory/test"]["vendi_independent"]
    assert (entry["n_seeds"], len(entry["per_seed"]), entry["n_songs"]) == (3, 3, 512)
    assert entry["ci95"][0] < entry["mean"] < entry["ci95"][1]
    assert data["systems"]["mle"]["hooktheory/test"]["vendi_independent"]["n_seeds"] == 1, "one pre-training"
    assert data["systems"]["mle"]["hooktheory/test"]["js_bigram"]["mean"] is None
    compared = {(c["a"], c["b"], c["dataset"], c["metric"]): c for c in data["comparisons"]}
    primary = compared["gapt_lambda=1", "gapt_lambda=0", "openewld/all", "vendi_independent"]
    assert primary["difference"] > 2 and (primary["p"], primary["n_pairs"]) == (0.25, 3)
    assert data["verdict"]["verdict"] == "undecided" and data["verdict"]["dataset"] == "hooktheory/test"
    assert [(run["lambda"], run["seed"]) for run in data["runs"]] == [(w, s) for w in (0, 1) for s in range(3)]
    assert data["warnings"] == []


def test_results_csv(grid):
    with (grid[1] / "results.csv").open() as stream:
        rows = {(r["system"], r["dataset"], r["metric"]): r for r in csv.DictReader(stream)}
    row = rows["gapt_lambda=0", "hooktheory/test", "note_in_chord"]
    values = [float(value) for value in row["per_seed"].split(";")]
    assert float(row["mean"]) == pytest.approx(sum(values) / 3) and row["unit"] == "share of frames"


def test_one_run_alone(make_run, tmp_path):
    run = make_run(tmp_path / "run", 1, 0, steps=1)
    write_report([run], tmp_path / "out")
    html = html_of(tmp_path / "out")
    Page(html)
    assert "Not tested: no run has λ = 0." in html


def test_the_command_ends_with_what_was_found(make_run, tmp_path, capsys):
    runs = [str(make_run(tmp_path / f"l{weight}", weight, 0, steps=2)) for weight in (0, 1)]
    assert gapt("report", *runs, "--out", str(tmp_path / "out")) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("wrote", "next: open"))]
    told = summary.sentences(read_results([tmp_path / "l0", tmp_path / "l1"]))
    assert said == told and "collapsed without the adversary" in told[0]


@pytest.mark.parametrize("absent", ["matplotlib", "jinja2"])
def test_a_run_without_its_page_says_how_to_get_it(monkeypatch, tmp_path, capsys, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    assert not write_page(tmp_path, Console())
    assert install("report") in capsys.readouterr().out


def test_a_melody_agent_adapts_to_nothing(make_run, tmp_path):
    run = make_run(tmp_path / "a", 1.0, 0)
    path = run / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"adaptation": {"mle": {}, "gapt_lambda=1": {}}}))
    assert "adaptation.png" not in {file.name for file in write_report([run], tmp_path / "out")}


def test_text_is_escaped(make_run, tmp_path):
    run = make_run(tmp_path / "run", 0, 0, name=EVIL, song_id=EVIL, steps=2)
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["systems"]["mle"][EVIL] = evaluation["systems"]["mle"]["openewld/all"]
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    write_report([run], tmp_path / "out")
    html = html_of(tmp_path / "out")
    assert Page(html).tags.count("script") == 3 and EVIL not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("file", "command"),
    [("config.json", "gapt run"), ("run.json", "gapt run"), ("vocabulary.json", "gapt run"),
     ("metrics.jsonl", "gapt run"), ("evaluation.json", "gapt evaluate"), ("samples.json", "gapt evaluate")],
)  # fmt: skip
@pytest.mark.parametrize("content", [None, "[1, ", "[]\n", '{"schema": 1}x\n'])
def test_a_bad_file_is_named_with_its_command(make_run, tmp_path, file, command, content):
    run = make_run(tmp_path / "run", 1, 0, steps=1)
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
        if file == "metrics.jsonl" and not content.endswith("\n"):
            assert read_run(run).log == []  # what a killed run leaves
            return
    with pytest.raises(UserError) as error:
        write_report([run], tmp_path / "out")
    assert str(run / file) in str(error.value) and f"'{command}'" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "systems", [[], {"mle": 3}, {"gapt_lambda=x": {}}, {"mle": {"d": {"m": {"mean": "x", "n_songs": 1}}}}]
)
def test_systems_of_another_shape(make_run, tmp_path, systems):
    run = make_run(tmp_path / "run", 1, 0, steps=1)
    evaluation = json.loads((run / "evaluation.json").read_text()) | {"systems": systems}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        read_run(run)


def test_samples_that_name_the_context_by_its_part_are_read(make_run, tmp_path):
    """As they were written before there were tasks."""
    run = make_run(tmp_path / "run", 0, 0, steps=2)
    samples = json.loads((run / "samples.json").read_text())
    (run / "samples.json").write_text(json.dumps({"melody": samples.pop("context"), **samples}))
    assert read_run(run).samples["context"] == read_run(make_run(tmp_path / "other", 0, 0, steps=2)).samples["context"]


@pytest.mark.parametrize("damage", [{"ids": ["a"]}, {"context": [[1, 2], [3]]}, {"systems": {"mle": [[99999]]}}])
def test_samples_that_are_no_songs(make_run, tmp_path, damage):
    run = make_run(tmp_path / "run", 1, 0, steps=1)
    (run / "samples.json").write_text(json.dumps(json.loads((run / "samples.json").read_text()) | damage))
    with pytest.raises(UserError, match=r"samples\.json is damaged"):
        read_run(run)


@pytest.mark.parametrize("absent", ["matplotlib", "jinja2"])
def test_without_what_draws_it(make_run, monkeypatch, tmp_path, absent):
    for name in ("report.drawing", "report.figures", "tasks.accompaniment.piano_roll"):
        monkeypatch.delitem(sys.modules, f"gapt_jax.{name}", raising=False)
        monkeypatch.delattr(f"gapt_jax.{name}", raising=False)
    run = make_run(tmp_path / "run", 1, 0, steps=1)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(UserError, match=re.escape(install("report"))):
        write_report([run], tmp_path / "out")


def test_one_seed_twice_is_an_error(make_run, tmp_path):
    runs = [make_run(tmp_path / name, 1, 0, steps=1) for name in "ab"]
    with pytest.raises(UserError, match="report one of them"):
        read_study(runs)


def test_warnings_name_what_differs(make_run, tmp_path):
    folders = [make_run(tmp_path / name, 1, seed, steps=1) for seed, name in enumerate("ab")]
    config = json.loads((folders[1] / "config.json").read_text())
    config["algorithm"]["kl_coef"] = 0.5
    (folders[1] / "config.json").write_text(json.dumps(config))
    record = json.loads((folders[1] / "run.json").read_text()) | {"data_fingerprint": "other"}
    (folders[1] / "run.json").write_text(json.dumps(record))
    text = " ".join(agreement.warnings(read_study(folders)))
    assert "algorithm.kl_coef" in text and "f00d, other" in text and "evaluated under another data" in text
    assert "seed," not in text and "adversarial_weight" not in text


def test_a_stage_at_chance_is_named_once(make_run, tmp_path):
    folders = [make_run(tmp_path / name, 1, seed, steps=1) for seed, name in enumerate("ab")]
    for folder in folders:
        stage = folder / "upstream" / "policy-1"
        stage.mkdir(parents=True)
        (stage / "done.json").write_text('{"warning": "the stage \'policy\' has learnt nothing"}')
    assert agreement.warnings(read_study(folders)) == ["In pre-training the stage 'policy' has learnt nothing."]


def test_pairs_are_the_shared_seeds(make_run, tmp_path):
    study = read_study([make_run(tmp_path / f"{w}{s}", w, s, steps=1) for w, s in ((0, 0), (0, 1), (1, 1), (1, 2))])
    comparison = results.compare(study, results.collect(study))[0]
    assert comparison.paired.difference.n == 1


def test_the_player_hears_what_was_played(song, vocabulary):
    melody = song((60, 4), (None, 2), (62, 2), (62, 4))[0]
    assert player.melody_notes(melody, vocabulary) == [[0, 1, 60], [1.5, 0.5, 62], [2, 1, 62]]
    chords = song(("Dm", 4), (None, 4), ("G7", 4))[0]
    assert player.chord_notes(chords, vocabulary) == [[0, 1, [38, 50, 53, 57]], [2, 1, [43, 50, 53, 55, 59]]]


def test_the_policy_allows_these_scripts_and_no_other(grid):
    html = html_of(grid[1])
    allowed = re.search(r"script-src ([^\"]*)", html).group(1).replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert allowed == " ".join(f"'sha256-{found}'" for found in hashes) and len(scripts) == 2
    assert scripts[1] == player.script() and "default-src 'none'" in html.replace("&#39;", "'")
