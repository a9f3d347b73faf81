"""Tables of docs/ are what their JSON gives, and docs/tables.py says where one is not."""

import json
import runpy
import types
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = runpy.run_path(str(DOCS / "tables.py"))["pages"]()


@pytest.fixture
def tables(tmp_path, monkeypatch) -> types.SimpleNamespace:
    """The script, of a docs/ that is empty but for one page."""
    found = runpy.run_path(str(DOCS / "tables.py"))
    monkeypatch.setitem(found["main"].__globals__, "DOCS", tmp_path)
    monkeypatch.setitem(found["main"].__globals__, "TABLES", {"speeds": lambda: _speeds(found)})
    (tmp_path / "page.md").write_text("before\n<!-- table: speeds -->\nold\n<!-- end -->\nafter\n")
    return types.SimpleNamespace(**found)


def _speeds(found: dict) -> str:
    return found["table"](["", "speed"], [["walk", found["number"](found["read"]("speeds.json")["walk"], 1)]])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_the_page_are_what_their_json_gives(page):
    stale = runpy.run_path(str(DOCS / "tables.py"))["stale"](page.read_text(encoding="utf-8"))
    assert not stale, f"{page.name}: run python docs/tables.py, or do not change by hand what it makes: {stale}"


def test_every_table_is_on_a_page():
    found = runpy.run_path(str(DOCS / "tables.py"))
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert sorted(match["name"] for match in found["BLOCK"].finditer(text)) == sorted(found["TABLES"])


def test_json_is_of_an_unchanged_checkout():
    for path in (*DOCS.glob("plan/*.json"), *DOCS.glob("bench/*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert len(found.get("ceilings", found)["git_revision"]) == 40, f"{path}: made in a changed checkout"


def test_a_figure_that_the_json_does_not_give_is_named(tables, tmp_path, capsys):
    (tmp_path / "speeds.json").write_text('{"walk": -1234.56}')
    assert tables.main(["--check"]) == 1
    assert capsys.readouterr().out == "page.md: the table 'speeds' is not what its JSON gives\n"
    assert tables.main([]) == 0
    made = "<!-- table: speeds -->\n| | speed |\n|---|---|\n| walk | −1,234.6 |\n<!-- end -->"
    assert (tmp_path / "page.md").read_text() == f"before\n{made}\nafter\n"
    assert tables.main(["--check"]) == 0
    (tmp_path / "page.md").write_text(f"before\n{made.replace('4.6', '4.5')}\nafter\n")
    assert tables.main(["--check"]) == 1


def test_a_table_without_its_json_has_to_say_so(tables, tmp_path):
    assert tables.main(["--check"]) == 1
    assert tables.main([]) == 0
    assert f"-->\n{tables.OLDER}\nold\n<!-- end -->" in (tmp_path / "page.md").read_text()
    assert tables.main(["--check"]) == 0
    (tmp_path / "speeds.json").write_text('{"walk": 1}')
    assert tables.main(["--check"]) == 1
    assert tables.main([]) == 0
    assert "old" not in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(
    "page", ["<!-- table: speeds -->\n", "<!-- table: speed -->\n<!-- end -->\n", "text\n<!-- end -->\n"]
)
def test_a_block_that_cannot_be_made_is_refused(tables, page):
    with pytest.raises(SystemExit, match="table"):
        tables.stale(page)


def test_scores_of_a_system(tables):
    score = {"mean": 0.5, "ci95": [0.25, 0.75], "per_seed": [0.3, 0.7]}
    assert tables.with_interval(score, 2) == "0.50 ± 0.25" and tables.with_range(score, 1) == "0.5 (0.3–0.7)"
    alone = {"mean": 0.5, "ci95": None, "per_seed": [0.5]}
    assert tables.with_interval(alone, 2) == tables.with_range(alone, 2) == "0.50"
    systems = {"gapt_lambda=1": {"all": {"note_in_chord": score}}}
    columns = (("harmony", "note_in_chord", 1), ("told", "post_hoc_accuracy", 1))
    assert tables.scores(systems, "all", columns, tables.with_range).endswith("| λ = 1 | 0.5 (0.3–0.7) | – |\n")


def _row(name: str) -> dict:
    """As `gapt bench --json` has it, of what the tables read."""
    work = {"flops": 3.06e11, "bytes": 5.59e10, "bound": "memory", "ceiling_share": 0.416, "peak_bytes": 2.5e9}
    return {"name": name, "median_ms": 1234.5, "frames_per_s": 777.4, "times_public": 14.13, **work}


def test_tables_of_a_benchmark(tables, tmp_path):
    phases = [f"{size}/{phase}" for size in ("small", "published/batch=8") for phase in tables.PHASES]
    batches = [f"{size}/batch={songs}" for size in ("published", "yardstick") for songs in tables.TARGETS]
    names = [*(f"iteration/{name}" for name in phases), *(f"rollout/{name}" for name in batches)]
    ceilings = {"cores": 2, "dtype": "float32", "rollout": "XLA", "jax": "0.10.2", "git_revision": "0123456789"}
    found = {"ceilings": ceilings | {"flops_per_s": 3.28e11, "bytes_per_s": 5.08e10}, "rows": list(map(_row, names))}
    (tmp_path / "bench").mkdir()
    for name in ("cpu", "cpu-xla"):
        (tmp_path / f"bench/{name}.json").write_text(json.dumps(found))
    assert "| 8 | 306 GFLOP, 55.9 GB | memory | 777 | 42% | 14.1 | 777 |" in tables.rollouts()
    assert "| 8 | 777 | 14.1 | 9 |" in tables.small_rollouts()
    assert "| improve_discriminator, gate open | 1,234 | 42% | 1.2 | 42% | 2.5 GB |" in tables.iterations()
    assert "revision `0123456`; ceilings of 328 GFLOP/s and 50.8 GB/s" in tables.iterations()


def test_tables_of_plans(tables, tmp_path):
    phase = {
        "bytes_per_device": 2**31, "flops": 1.5e12, "hbm_traffic": 2e9, "network_bytes": 5e8, "roofline_ms": 1500.0,
        "bound": "HBM", "collectives": {"all-reduce": 3}, "song_share": 0.75,
    }  # fmt: skip
    plan = {
        "experiment": "gapt", "topology": "v5e:2x2", "devices": 4, "members": 30, "chip": "v5e", "hbm_bytes": 2**34,
        "state_bytes_per_device": 2**29, "efficiency": {"without_overlap": 0.5, "with_overlap": 1.0},
        "phases": {"rollout": phase, "improve_discriminator": phase | {"roofline_ms": 4.0}},
        "versions": {"jax": "0.10.2"}, "git_revision": "0123456789",
    }  # fmt: skip
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan/four.json").write_text(json.dumps(plan))
    shown = tables.plans(["four"])
    assert shown.startswith("| | 4 × v5e, 16 GiB |\n|---|---|\n| rollout | 2.00 GiB, 1500 ms |\n")
    assert "| **largest, share of the chip** | **12%** |\n| **an iteration, at least** | **1.50 s** |\n" in shown
    assert "`gapt plan gapt --topology v5e:2x2 --members 30 --json`, revision `0123456`, jax 0.10.2" in shown
    shown = tables.one_plan("four")
    assert "| rollout | 2.00 GiB (12%) | 1.5 | 2 | 0.5 | 1500 | HBM | all-reduce 3 | 75% |" in shown
    assert "0.50 GiB of state" in shown and "50.0% if nothing overlaps, 100.0% if all does" in shown
