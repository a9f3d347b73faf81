"""The report of an ablation: its verdict, its members, its arms; numbers only from the results."""

import json
import re

import pytest

from gapt_jax.errors import UserError
from gapt_jax.evaluation import results, verdict
from gapt_jax.evaluation.results import PRIMARY, Run, Score, Study
from gapt_jax.evaluation.statistics import estimate
from gapt_jax.report.html import difference, mean
from gapt_jax.report.reading import read_study
from gapt_jax.report.writer import write_report
from gapt_jax.task import Collapse
from gapt_jax.tasks.accompaniment.domain import DOMAIN


@pytest.fixture(scope="module")
def ablated(make_ablation, tmp_path_factory):
    """Four λ, six seeds: (folder, out folder, page with plain spaces, results.json)."""
    root = tmp_path_factory.mktemp("ablated")
    folder = make_ablation(root / "ablation", steps=20)
    write_report([folder], root / "out")
    html = (root / "out" / "report.html").read_text().replace("\u00a0", " ")
    return folder, root / "out", html, json.loads((root / "out" / "results.json").read_text())


def test_an_ablation_stands_for_its_members(ablated):
    _, out, html, data = ablated
    assert len(data["runs"]) == 24 and ">passed<" in html
    assert data["verdict"]["verdict"] == "passed" and data["verdict"]["system"] == "gapt_lambda=1"
    assert "exact sign-flip p = 0.0312 over 6 pairs" in html and "24 of 24" in html
    assert (out / "report.html").stat().st_size < 4e6


def test_secondary_arms_are_corrected_and_the_preregistered_one_is_not(ablated):
    primary = [c for c in ablated[3]["comparisons"] if (c["dataset"], c["metric"]) == ("hooktheory/test", PRIMARY)]
    assert {c["a"]: c["p_holm"] for c in primary} == {
        "gapt_lambda=0.25": 0.0625, "gapt_lambda=0.5": 0.0625, "gapt_lambda=1": 0.03125
    }  # fmt: skip


def test_numbers_of_the_page_are_those_of_the_results(ablated):
    _, _, html, data = ablated
    for system in ("mle", "gapt_lambda=0", "gapt_lambda=1"):
        for metric, digits in ((PRIMARY, 2), ("note_in_chord", 3)):
            score = data["systems"][system]["hooktheory/test"][metric]
            value = mean(estimate(score["per_seed"]), digits)
            assert f">{value.text}{f' <small>{value.small}</small>' if value.small else ''}</td>" in html
    table = re.search(r'aria-label="Vendi, independent on hooktheory/test">(.*?)</table>', html, re.DOTALL).group(1)
    row = re.search(r">λ = 1</th>(.*?)</tr>", table).group(1)
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
    pair = next(c for c in data["comparisons"]
                if (c["a"], c["dataset"], c["metric"]) == ("gapt_lambda=1", "hooktheory/test", PRIMARY))  # fmt: skip
    one, zero = (data["systems"][s]["hooktheory/test"][PRIMARY]["per_seed"] for s in ("gapt_lambda=1", "gapt_lambda=0"))
    assert cells[3] == difference(estimate([a - b for a, b in zip(one, zero, strict=True)]), 2)
    assert float(cells[1]) == pytest.approx(
        data["systems"]["gapt_lambda=1"]["hooktheory/test"][PRIMARY]["iqm"], abs=5e-3
    )
    expected = [f"{pair[key]:.3f}" for key in ("p", "p_holm", "p_wilcoxon", "p_t")]
    assert cells[5:9] == expected and cells[10] == "100 %"


def test_optional_sections(ablated):
    html = ablated[2]
    assert (
        "Adaptation to a change of key" in html
        and ">3.25<" in html
        and "one frame without planning" in html
        and "one chord in 9 % of frames" in html
    )
    assert "Vendi at matched note-in-chord" in html and "Hypervolume" in html and "Proxy against gold" in html


def test_sections_without_numbers_are_left_out(make_run, tmp_path):
    folder = make_run(tmp_path / "run", 1, 0, steps=2)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation = {k: v for k, v in evaluation.items() if k not in ("adaptation", "decode_step")}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "alarms.jsonl").unlink()
    write_report([folder], tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    for absent in ("Adaptation to", "<h3>Decoding step", "<h3>Alarms", 'id="in-use"'):
        assert absent not in html


def test_unfinished_members_are_named_and_not_counted(make_ablation, tmp_path):
    folder = make_ablation(tmp_path / "ablation", (0, 1), 6, steps=1, broken=2)
    write_report([folder], tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    data = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(data["runs"]) == 10 and data["verdict"]["verdict"] == "undecided"
    assert data["systems"]["gapt_lambda=1"]["hooktheory/test"][PRIMARY]["n_seeds"] == 4
    assert [m["folder"] for m in data["missing"]] == ["members/l1-s4", "members/l1-s5"]
    assert html.count("loss was not finite at step 7") == 2 and "10 of 12" in html


def test_arms_that_are_no_weights(make_run, tmp_path):
    arms = ("reward_form=log", "reward_form=<b>")
    runs = [make_run(tmp_path / f"{i}{s}", 1, s, steps=1, arm=arm) for i, arm in enumerate(arms) for s in (0, 1)]
    members = [
        {"folder": run.name, "arm": arms[i // 2], "seed": i % 2, "status": "finished"} for i, run in enumerate(runs)
    ]
    record = {"schema": 1, "command": "gapt ablate x --preset reward_form", "baseline": arms[0], "members": members,
              "arms": [{"name": arm, "label": arm, "settings": {}} for arm in arms]}  # fmt: skip
    (tmp_path / "ablation.json").write_text(json.dumps(record))
    write_report([tmp_path], tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    data = json.loads((tmp_path / "out" / "results.json").read_text())
    assert data["verdict"]["verdict"] == "not tested" and "compared with reward_form=log" in data["verdict"]["sentence"]
    assert list(data["systems"]) == ["data", "mle", *arms]
    assert {(c["a"], c["b"]) for c in data["comparisons"]} == {(arms[1], arms[0])}
    assert "<b>" not in html and "reward_form=&lt;b&gt;" in html


@pytest.mark.parametrize(
    ("damage", "message"),
    [({"schema": 2}, "schema 2"), ({"members": 3}, "damaged"), ({"baseline": "gapt_lambda=7"}, "none of its arms"),
     ({"arms": [{"label": "no name"}]}, "damaged"), ({"members": []}, "has finished yet"),
     ({"members": [{"folder": "x", "arm": "gapt_lambda=0", "seed": 0, "status": "stopped", "reason": "of NaN"}]},
      "was stopped, the first: of NaN"),
     ({"members": [{"folder": "absent", "arm": "gapt_lambda=0", "seed": 0, "status": "finished"}]}, "absent"),
     ({"members": [{"folder": "x", "arm": "y", "seed": 0, "status": "finished"}]}, "not listed")],
)  # fmt: skip
def test_an_ablation_of_another_shape(make_ablation, tmp_path, damage, message):
    folder = make_ablation(tmp_path / "ablation", (0,), 1, steps=1)
    path = folder / "ablation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(UserError, match=message):
        read_study([folder])


def _study(arms, seeds):
    def run(arm, seed):
        weight = results.weight_of(arm)
        return Run(f"{arm}-{seed}", seed, weight, 0, {}, {}, {}, [], {}, DOMAIN, None, [], {})

    return Study([run(arm, seed) for arm in arms for seed in range(seeds)], [])


def _systems(**values):
    def score(value, seeds):
        return {"in/test": {PRIMARY: Score({s: value + 0.01 * s * (value != 4.0) for s in range(seeds)}, 8)}}

    named = {"mle": "mle", "zero": "gapt_lambda=0", "half": "gapt_lambda=0.5", "one": "gapt_lambda=1"}
    return {named[name]: score(value, seeds) for name, (value, seeds) in values.items()}


@pytest.mark.parametrize(
    ("mle", "zero", "one", "seeds", "answer", "words"),
    [(6.0, 5.5, 6.0, 6, "void", "no collapse"), (6.0, 4.0, 5.5, 6, "passed", "+1.52 songs"),
     (6.0, 4.0, 3.5, 6, "failed", "less diverse"), (6.0, 4.0, 4.0, 6, "failed", "No difference was shown"),
     (6.0, 4.0, 5.5, 5, "undecided", "no result of 5 pairs"), (6.0, 4.0, float("nan"), 6, "undecided", "undefined"),
     (float("nan"), 4.0, 5.0, 6, "undecided", "undefined")],
)  # fmt: skip
def test_verdicts(mle, zero, one, seeds, answer, words):
    study = _study(("gapt_lambda=0", "gapt_lambda=1"), seeds)
    systems = _systems(mle=(mle, 1), zero=(zero, seeds), one=(one, seeds))
    found = verdict.outcomes(study, systems, results.compare(study, systems))
    outcome = verdict.primary(study, systems, found)
    assert [outcome] == found
    assert (outcome.verdict, outcome.is_preregistered) == (answer, True) and words in outcome.sentence


def test_a_corrected_p_is_no_more_than_1():
    arms = ("gapt_lambda=0", "gapt_lambda=0.5", "gapt_lambda=1", "gapt_lambda=2")
    study, score = _study(arms, 1), _systems(mle=(6.0, 1), zero=(4.0, 1), one=(5.5, 1))
    systems = score | {arm: score["gapt_lambda=1"] for arm in arms[1:]}
    found = verdict.outcomes(study, systems, results.compare(study, systems))
    assert "(best: 1)" in next(outcome for outcome in found if outcome.system == "gapt_lambda=2").sentence


def test_a_share_can_be_what_a_collapse_asks_for():
    assert str(DOMAIN.collapse) == "0.8" and DOMAIN.collapse.of(2.0) == DOMAIN.collapse.of(9.0) == 0.8
    share = Collapse(0.13, is_share=True)
    assert str(share) == "13%" and share.of(2.0) == pytest.approx(0.26)


def test_the_preregistered_arm_is_one_else_the_largest():
    assert results.primary_arm(_study(("gapt_lambda=0", "gapt_lambda=1", "gapt_lambda=2"), 1)) == "gapt_lambda=1"
    assert results.primary_arm(_study(("gapt_lambda=0", "gapt_lambda=0.5", "gapt_lambda=0.25"), 1)) == "gapt_lambda=0.5"
    assert results.primary_arm(_study(("gapt_lambda=0",), 1)) is None
