"""A user study: participants are the sample; bad tables end in one sentence."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gapt_jax.commands import exits
from gapt_jax.commands.main import main
from gapt_jax.evaluation.statistics import holm
from gapt_jax.study.ratings import MAX_BYTES
from gapt_jax.study.statistics import Rating, analyse, intraclass_correlation, order_effect, retest_reliability

HEAD = "participant,system,question,score\n"
A, B = [4, 5, 3, 4, 5, 4, 2], [3, 3, 3, 2, 4, 5, 1]


def rating(participant, system, score, question="q", order=None, repeat=1):
    return Rating(f"p{participant}", system, question, float(score), order, repeat)


def both_systems():
    return [rating(i, system, s) for system, scores in (("a", A), ("b", B)) for i, s in enumerate(scores)]


def test_pairs_are_scipys():
    (pair,) = analyse(both_systems()).pairs
    assert (pair.question, pair.a, pair.b, pair.left_out) == ("q", "a", "b", 0)
    assert pair.paired.p_t == pair.p_t_holm == pytest.approx(stats.ttest_rel(A, B).pvalue)
    assert pair.paired.p_wilcoxon == pytest.approx(stats.wilcoxon(A, B).pvalue)
    assert pair.paired.improvement == pytest.approx((5 + 0.5) / 7)


def test_ratings_of_a_participant_are_averaged_first():
    ratings = [rating(0, "a", s, repeat=i + 1) for i, s in enumerate([1, 2, 3])] + [rating(1, "a", 5)]
    (mean,) = analyse(ratings).means
    assert mean.mean.mean == 3.5 and mean.mean.n == 2  # of 2 and 5, not of 1, 2, 3 and 5
    assert mean.sd == pytest.approx(np.sqrt(4.5))
    assert analyse(ratings).warnings == ["there is one system only, so that nothing is compared"]


def test_all_questions_weigh_the_same_and_need_every_question():
    ratings = [
        *(rating(0, "a", s, "x", repeat=i + 1) for i, s in enumerate([1, 3])),
        rating(0, "a", 6, "y"), rating(0, "b", 2, "x"), rating(0, "b", 2, "y"),
        rating(1, "a", 5, "x"), rating(1, "b", 5, "x"), rating(1, "b", 5, "y"),
    ]  # fmt: skip
    study = analyse(ratings)
    overall = {mean.system: mean for mean in study.means if mean.question is None}
    assert overall["a"].by_participant == {"p0": 4.0}
    assert overall["b"].by_participant == {"p0": 2.0, "p1": 5.0}
    left_out = {pair.question: (pair.paired.difference.n, pair.left_out) for pair in study.pairs}
    assert left_out == {"x": (2, 0), "y": (1, 1), None: (1, 1)}
    assert any("in 2 of 3 comparisons participants are left out" in warning for warning in study.warnings)


def test_holm_has_one_family_of_questions_and_one_of_their_means():
    rng = np.random.default_rng(0)
    ratings = [
        rating(i, s, rng.normal() + k, q) for i in range(9) for k, s in enumerate("abc") for q in ("x", "y")
    ]  # fmt: skip
    pairs = analyse(ratings).pairs
    assert len(pairs) == 9
    for family in (pairs[:6], pairs[6:]):
        assert [pair.p_t_holm for pair in family] == pytest.approx(holm([pair.paired.p_t for pair in family]))
        expected = holm([pair.paired.p_wilcoxon for pair in family])
        assert [pair.p_wilcoxon_holm for pair in family] == pytest.approx(expected)
    assert [pair.question for pair in pairs[6:]] == [None] * 3


@pytest.mark.parametrize(("n", "words"), [(5, "with 5 pairs an exact paired test cannot go below p = 0.0625"), (6, "")])
def test_few_participants_are_warned_of(n, words):
    ratings = [r for r in both_systems() if int(r.participant[1:]) < n]
    warnings = analyse(ratings).warnings
    assert warnings == ([f"{words} (1 of 1 comparisons have so few participants)"] if words else [])


def test_slope_over_positions_in_a_balanced_design():
    # Each system is heard first by two and second by two; a is 1 better, the second position costs p0..p3 these:
    cost = [1.0, 2.0, 0.5, 0.5]
    ratings = [
        rating(i, s, (s == "a") + i - cost[i] * (position == 2), order=position)
        for i in range(4)
        for position, s in enumerate("ab" if i % 2 else "ba", start=1)
    ]
    effect = order_effect(ratings)
    assert effect is not None
    assert effect.slope.difference.mean == pytest.approx(-np.mean(cost))
    assert effect.mean_position == {"b": 1.5, "a": 1.5}
    assert effect.by_position[1].mean - effect.by_position[2].mean == pytest.approx(np.mean(cost))


def test_order_that_is_the_system_tells_nothing():
    ratings = [rating(i, s, i + k, order=k + 1) for i in range(6) for k, s in enumerate("ab")]
    assert order_effect(ratings) is None
    assert "an effect of order cannot be told" in analyse(ratings).warnings[-1]
    assert order_effect(both_systems()) is None


def test_retest_by_hand():
    scores = {(0, "a"): (1, 2), (0, "b"): (3, 3), (1, "a"): (5, 4), (1, "b"): (4, 5)}
    ratings = [rating(i, s, x, repeat=k + 1) for (i, s), pair in scores.items() for k, x in enumerate(pair)]
    retest = retest_reliability([*ratings, rating(2, "a", 1)])
    assert (retest.answers, retest.participants, retest.mean_absolute_difference) == (4, 2, 0.75)
    # Means 1.5 3 4.5 4.5: MSB = 2 * 6.1875 / 3 = 4.125; MSW = (0.5 + 0 + 0.5 + 0.5) / 4 = 0.375.
    assert retest.icc == pytest.approx((4.125 - 0.375) / (4.125 + 0.375))
    assert retest.drift.difference.mean == pytest.approx((0.5 + 0.0) / 2)  # of p0: 1, 0; of p1: -1, 1
    assert retest_reliability(both_systems()) is None
    assert np.isnan(intraclass_correlation(np.ones((3, 2))))


def write(folder: Path, text: str, name: str = "ratings.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def ratings_csv() -> str:
    return HEAD + "".join(f"p{i},{s},q,{x}\n" for s, scores in (("a", A), ("b", B)) for i, x in enumerate(scores))


def test_command_writes_and_tells(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main(["study", "analyse", str(write(tmp_path, "\ufeff" + ratings_csv()))])
    told = capsys.readouterr().out
    for name in ("study.json", "study.csv", "study_pairs.csv", "study.png"):
        assert f"wrote {tmp_path / name}" in told
    assert "next: " in told.splitlines()[-1]
    study = json.loads((tmp_path / "study.json").read_text())
    assert study["pairs"][0]["p_t"] == pytest.approx(stats.ttest_rel(A, B).pvalue)
    assert study["order"] is None and study["n_participants"] == 7
    (row,) = csv.DictReader((tmp_path / "study_pairs.csv").read_text().splitlines())
    assert float(row["a - b"]) == pytest.approx(np.mean(A) - np.mean(B))
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_command_as_json(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = write(
        tmp_path, ratings_csv().replace("score\n", "score,note\n").replace("\n", ",\n").replace("note,", "note")
    )
    main(["study", "analyse", str(path), "--json", "--out", str(tmp_path / "new")])
    captured = capsys.readouterr()
    assert json.loads(captured.out)["files"][0] == str(tmp_path / "new" / "study.json")
    assert "columns that are not used: note" in captured.err


BAD = {
    "no column": ("participant,system,score\np,a,1\n", "no column 'question'"),
    "semicolons": ("participant;system;question;score\n", "separate columns with commas"),
    "two columns": ("participant,system,question,score,score\n", "two columns 'score'"),
    "empty": ("", "is empty"),
    "only a head": (HEAD, "no ratings"),
    "no number": (HEAD + "p,a,q,1\np,b,q,good\n", "line 3: score 'good' is not a number"),
    "NaN": (HEAD + "p,a,q,nan\n", "line 2: score 'nan' is not a number"),
    "infinite": (HEAD + "p,a,q,inf\n", "line 2: score 'inf' is not a number"),
    "no participant": (HEAD + "p,a,q,1\n\n ,b,q,1\n", "line 4: 'participant' is empty"),
    "duplicate": (HEAD + "p,a,q,1\np,b,q,1\np,a,q,2\n", "line 4: the same participant, system and question as line 2"),
    "a value too many": (HEAD + "p,a,q,1,2\n", "line 2: 5 values for 4 columns"),
    "an open quote": (HEAD + 'p,a,"q,1\n', "line 2: not CSV"),
    "no order": ("order," + HEAD + ",p,a,q,1\n", "line 2: order '' is not a whole number from 1"),
    "repeat 0": ("repeat," + HEAD + "0,p,a,q,1\n", "line 2: repeat '0' is not a whole number from 1"),
    "swapped columns": (HEAD + "".join(f"a,p{i},q,1\n" for i in range(30)), "30 different systems"),
    "huge": ("x" * (MAX_BYTES + 1), "more than 16 MiB"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_end_in_one_sentence(case, tmp_path, capsys):
    text, words = BAD[case]
    assert_refused(write(tmp_path, text), words, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["ratings.csv"]


def test_bad_files_end_in_one_sentence(tmp_path, capsys):
    assert_refused(tmp_path / "none.csv", "cannot be read", capsys)
    assert_refused(tmp_path, "cannot be read", capsys)
    (tmp_path / "latin.csv").write_bytes(HEAD.encode() + b"p\xe9,a,q,1\n")
    assert_refused(tmp_path / "latin.csv", "not UTF-8", capsys)
    path = write(tmp_path, ratings_csv(), "study.csv")
    assert_refused(path, "would be overwritten", capsys)
    assert path.read_text() == ratings_csv()


def test_without_matplotlib(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert_refused(write(tmp_path, ratings_csv()), "needs matplotlib: pip install", capsys)


def assert_refused(path, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["study", "analyse", str(path)])
    captured = capsys.readouterr()
    assert stop.value.code == exits.EXIT_BAD_INPUT and captured.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", captured.err) and words in captured.err, captured.err


def test_the_example_of_the_documentation(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    page = (Path(__file__).parents[2] / "docs/study.md").read_text(encoding="utf-8")
    table, shown = re.search(r"```csv\n(.*?)```", page, re.S)[1], re.search(r"```text\n(.*?)```", page, re.S)[1]
    main(["study", "analyse", str(write(tmp_path, table))])
    told = capsys.readouterr().out
    missing = [line for line in shown.splitlines() if line not in told]
    assert not missing and len(shown.splitlines()) > 5
