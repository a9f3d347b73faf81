"""What the page shows, and where: sentences and alarms on top, chance, titles, arrows, what one run has."""

import dataclasses
import itertools
import json
import re
from html import unescape

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from gapt_jax.evaluation import songs
from gapt_jax.evaluation.diversity import vendi
from gapt_jax.report import curves, drawing, figures, summary
from gapt_jax.report.writer import read_results, write_report
from gapt_jax.tasks.accompaniment.domain import DOMAIN

ZERO, ONE = "gapt_lambda=0", "gapt_lambda=1"


@pytest.fixture(scope="module")
def pairs(make_run, tmp_path_factory):
    """λ = 0 and 1, two seeds each: (what was found, page with plain spaces)."""
    root = tmp_path_factory.mktemp("pairs")
    runs = [make_run(root / f"l{weight}-s{seed}", weight, seed, steps=40) for weight in (0, 1) for seed in (0, 1)]
    write_report(runs, root / "out")
    return read_results(runs), page_of(root / "out")


@pytest.fixture
def measured(make_run, tmp_path):
    """One seed of λ = 0 and 1 that have kept what was measured on each song: (folders, arrays by file key)."""
    rng, folders, kept = np.random.default_rng(0), [], {}
    for weight in (0, 1):
        folders.append(make_run(tmp_path / f"l{weight}", weight, 0, steps=20))
        own = {}
        for system in ("mle", f"gapt_lambda={weight}"):
            own[f"{system}|hooktheory/test|song"] = np.arange(30)
            own[f"{system}|hooktheory/test|independent"] = rng.normal(size=(30, 4)) + 2 * weight
            own[f"{system}|hooktheory/test|hits"] = rng.integers(0, 50, 30)
            own[f"{system}|hooktheory/test|frames"] = np.full(30, 100)
        np.savez(folders[-1] / "songs.npz", **own)
        kept |= own
    return folders, kept


def page_of(out) -> str:
    """With plain spaces and without pictures, whose letters may spell any word."""
    html = re.sub(r"data:image/png;base64,[^\"]*", "", (out / "report.html").read_text())
    return unescape(html).replace("\u00a0", " ")


def table_of(page: str, label: str) -> str:
    return re.search(rf'aria-label="{re.escape(label)}">(.*?)</table>', page, re.DOTALL).group(1)


def test_sentences_and_alarms_stand_on_top(pairs):
    found, page = pairs
    places = [page.index(sentence.replace("\u00a0", " ")) for sentence in summary.sentences(found)]
    places += [page.index(text) for text in ('aria-label="Verdict"', "Alarms during training", "<nav")]
    assert places == sorted(places)
    assert "<strong>one_chord</strong> (λ = 0 in 2 of 2 runs): one chord in 9 % of frames" in page
    assert page.count("Alarms during training") == 1


def test_regions_have_names_of_their_own(pairs):
    names = re.findall(r'role="region" aria-label="([^"]*)"', pairs[1])
    assert {"Means on hooktheory/test", "All means on hooktheory/test"} <= set(names)
    assert sorted(names) == sorted(set(names)), "else a list of landmarks shows two that nothing tells apart"


def test_titles_say_what_panels_show():
    keys = ("reward_member_std/rhythm_contrastive/0", "ratio_deviation/high", "reward/total", "policy_loss", "kl")
    assert [curves.title(key, DOMAIN)[0] for key in keys] == [
        "Rhythm contrastive, seed 0: spread", "|ratio − 1| of one action in 1,000", "Total reward",
        "Loss of the policy", "KL to the anchor",
    ]  # fmt: skip
    assert curves.title("valid/js_bigram", DOMAIN) == ("Distance to data, pairs\u00a0↓", "0..1")
    assert curves.title("valid/quality_entropy", DOMAIN)[0] == "Quality entropy"
    assert curves.title("something_new/of/this", DOMAIN)[0] == "Something new, of, this"


def test_what_never_changes_is_folded_away(pairs):
    found, page = pairs
    constant = found.constants
    assert constant == {"ratio_deviation/largest": 1e-6, "discriminator/reward_std": 0.2}
    assert "What never changed (2)" in page and "Reward that it pays, spread" in table_of(page, "What never changed")
    drawn = {drawn.name: drawn.svg for drawn in figures.draw_all(found)}
    assert "|ratio − 1|" not in drawn["policy"] and "pays, spread" not in drawn["discriminator"]


def test_arrows_say_which_way_is_better(pairs):
    means = table_of(pairs[1], "Means on hooktheory/test")
    assert "Note-in-chord ↑ <small>" in means and "Distance to data, pairs ↓ <small>" in means
    assert "Quality entropy <small>" in means


def test_titles_of_small_panels_end_within_the_figure(pairs):
    with matplotlib.rc_context(drawing.STYLE):
        figure = figures.arms(pairs[0])
        figure.draw_without_rendering()
        named = [(axes.get_title(loc="left"), axes.findobj(Text)) for axes in figure.axes]
        titles = [text.get_window_extent() for title, texts in named for text in texts if text.get_text() == title]
    assert len(titles) == 2 * figures.IN_A_LINE
    assert max(box.x1 for box in titles) <= figure.bbox.x1 and max(box.y1 for box in titles) <= figure.bbox.y1
    for left, right in itertools.pairwise(titles):
        assert left.x1 < right.x0 or right.x0 < left.x0, "nor does one run into the next"


def test_arms_that_differ_in_more_than_their_weight_are_not_joined(pairs):
    names = {ZERO: "mean", ONE: "min"}
    runs = [dataclasses.replace(run, evaluation={"arm": names[run.arm]}) for run in pairs[0].study.runs]
    systems = {names.get(system, system): found for system, found in pairs[0].systems.items()}
    study = dataclasses.replace(pairs[0].study, runs=runs)
    for found, is_joined in ((pairs[0], True), (dataclasses.replace(pairs[0], study=study, systems=systems), False)):
        lines = [line for axes in figures.arms(found).axes for line in axes.get_lines() if len(line.get_xdata()) == 2]
        over_arms = [line for line in lines if line.get_transform() == line.axes.transData and line.get_marker() != "o"]
        assert over_arms and {line.get_linestyle() in ("-", ":") for line in over_arms} == {is_joined}


def test_chance_is_drawn_beside_quality(pairs):
    found, _ = pairs
    assert figures.chance(found, "hooktheory/test", "note_in_chord") == {ZERO: 0.28, ONE: 0.28}
    assert figures.chance(found, "hooktheory/test", "vendi_independent") == {}
    dotted = [[x for x in axes.get_lines() if x.get_linestyle() == ":"] for axes in figures.arms(found).axes]
    shown = [[line.get_ydata().tolist() for line in lines if len(line.get_ydata())] for lines in dotted]
    assert shown.count([[0.28, 0.28]]) == 2 and sum(map(len, shown)) == 2, "of note-in-chord on both data sets"
    bands = [axes.patches for axes in figures.quality_diversity(found).axes]
    assert [[patch.get_extents().width >= 0 for patch in patches] for patches in bands] == [[True], [True]]
    validation = next(drawn for drawn in figures.draw_all(found) if drawn.name == "validation")
    names = [[line.name.replace("\u00a0", " ") for line in panel.series] for panel in validation.panels]
    assert names[0] == ["λ = 0", "λ = 0, by chance", "λ = 1", "λ = 1, by chance"]
    assert all(name == ["λ = 0", "λ = 1"] for name in names[1:]), "and no panel of its own"


def test_lines_tell_their_values(pairs):
    found, page = pairs
    held = re.findall(r"data-panels='(.*?)'>", page.replace('">', "'>").replace('="[', "='["))
    drawn = {drawn.name: drawn.panels_json.replace("\u00a0", " ") for drawn in figures.draw_all(found)}
    assert held == [drawn[name] for name in ("validation", "rewards", "policy", "discriminator")]
    box, (left, right), name, series = json.loads(drawn["validation"])[0]
    assert all(0 < edge < 1 for edge in box) and left < 1 < 40 < right and name == "post-training step"
    runs = [run for run in found.study.runs if run.arm == ZERO]
    mean = curves.mean_curve([curves.curve(run, "valid/note_in_chord") for run in runs])
    assert series[0][2] == mean.steps.tolist() == [1, 10, 20, 30, 40]
    assert series[0][3] == pytest.approx(mean.values, rel=1e-3)


def test_one_run_has_no_columns_to_compare(make_run, tmp_path):
    write_report([make_run(tmp_path / "run", 1, 0, steps=2)], tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert "1 seed" in table_of(page, "Means on hooktheory/test")
    for absent in ("Difference", "p sign-flip", "p Holm", "Pairs", "IQM", "On the front", "</h4>"):
        assert absent not in page


def test_one_pair_has_a_difference_and_no_test(measured, tmp_path):
    folders, _ = measured
    write_report(folders, tmp_path / "out")
    table = table_of(page_of(tmp_path / "out"), "Vendi, independent on hooktheory/test")
    assert re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table) == [
        "System", "Mean", "IQM", "Seeds", "Difference [95 % CI]", "Pairs"
    ]  # fmt: skip


def test_of_one_seed_the_interval_is_that_of_songs(measured):
    folders, kept = measured
    found = read_results(folders)
    assert set(found.one_seed_intervals) == {
        (system, "hooktheory/test", metric)
        for system in ("mle", ZERO, ONE)
        for metric in ("note_in_chord", "vendi_independent")
    }
    low, high = found.one_seed_intervals[ONE, "hooktheory/test", "vendi_independent"]
    assert (low + high) / 2 == pytest.approx(vendi(kept[f"{ONE}|hooktheory/test|independent"]))
    low, high = found.one_seed_intervals[ZERO, "hooktheory/test", "note_in_chord"]
    shares = kept[f"{ZERO}|hooktheory/test|hits"] / 100  # of equally many frames: their mean is the share of all
    assert (low + high) / 2 == pytest.approx(shares.mean())
    assert high - low == pytest.approx(2 * 2.045 * shares.std(ddof=1) / np.sqrt(30), rel=0.25)
    assert set(found.one_pair_intervals) == {
        (ONE, "hooktheory/test", m) for m in ("note_in_chord", "vendi_independent")
    }
    assert found.song_intervals == {}, "those are of several seeds"


def test_songs_that_differ_have_no_interval(measured):
    folders, kept = measured
    own = {key: array for key, array in kept.items() if ONE in key or "mle" in key}
    own[f"{ONE}|hooktheory/test|song"] = np.arange(100, 130)
    np.savez(folders[1] / "songs.npz", **own)
    found = read_results(folders)
    assert songs.intervals_of_one_pair(found.study, found.systems) == {}


def test_songs_that_training_hears_too_are_counted_and_left_out_below(make_run, tmp_path):
    run = make_run(tmp_path / "run", 1, 0, steps=20)
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["unseen"] = {
        system: {
            name: {"note_in_chord": {"mean": 0.125, "n_songs": 512 - 3 * (name == "hooktheory/test")}} for name in sets
        }
        for system, sets in evaluation["systems"].items()
    }
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    write_report([run], tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert f"3 of the 512 songs (0.6 %) {DOMAIN.seen_in_words}." in page
    assert f"0 of the 512 songs (0.0 %) {DOMAIN.seen_in_words}." in page
    without = table_of(page, "Means on hooktheory/test without what training hears too, n = 509")
    assert without.count("0.125") == 3 and "Vendi" not in without
    assert "Means on openewld/all without" not in page
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["unseen"]["mle"]["hooktheory/test"]["note_in_chord"]["n_songs"] == 509


def test_a_set_that_training_hears_whole_is_said(make_run, tmp_path):
    run = make_run(tmp_path / "run", 1, 0, steps=20)
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["unseen"] = {system: {"openewld/all": {}} for system in evaluation["systems"]}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    write_report([run], tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert page.count(DOMAIN.seen_in_words) == 1 and "without what training hears" not in page
    assert f"512 of the 512 songs (100.0 %) {DOMAIN.seen_in_words}." in page


def test_how_systems_drew_is_said(make_run, tmp_path):
    run = make_run(tmp_path / "run", 1, 0, steps=20)
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["truncation"] = {"top_k": 0.1, "tokens": 283, "top_p": 0.9}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    write_report([run], tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert "Sampling: masked, top-k 0.1 (283 tokens), top-p 0.9, T = 1." in page
    assert "masked sampling, T = 1." in page  # of the valid split, while the run was training


def test_reward_models_have_a_section_of_their_own(make_run, tmp_path):
    def found(value):
        return {name: value for name in ("recall_at_1", "recall_at_5", "recall_at_10", "map_at_10")}

    run, plain = (make_run(tmp_path / name, 1, seed, steps=20) for seed, name in enumerate(("run", "plain")))
    evaluation = json.loads((run / "evaluation.json").read_text())
    retrieval = [{"melody_to_chord": found(0.25 * n), "chord_to_melody": found(0.5)} for n in (1, 2)]
    judged = [{"precision": None, "recall": 0.0, "f1": 0.625}]
    evaluation["reward_models"] = {
        "contrastive": {"hooktheory/test": {"kind": "contrastive", "n_songs": 500, "seeds": retrieval}},
        "rhythm_discriminative": {"hooktheory/test": {"kind": "discriminative", "n_songs": 500, "seeds": judged}},
    }
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    write_report([run], tmp_path / "out")
    page = page_of(tmp_path / "out")
    table = table_of(page, "Retrieval")
    assert "melody to chord" in table and "0.375<br><small>0.250–0.500</small>" in table
    assert "chord to melody" in table and "0.0020" in table and ">500<" in table  # 1 / 500
    assert "0.625" in table_of(page, "Judgement") and "rhythm discriminative" in table_of(page, "Judgement")
    assert ".86" in table_of(page, "Published reward models")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["reward_models"] == evaluation["reward_models"]
    write_report([plain], tmp_path / "plain_out")
    assert "Which part belongs to this one?" not in page_of(tmp_path / "plain_out")
