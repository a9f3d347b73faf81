"""A run whose settings were edited by hand is not exported as what it was not."""

import json
from pathlib import Path

import pytest

from gapt_jax.config import to_dict
from gapt_jax.training.run_folder import run_hash
from tests.export.bundles import tiny
from tests.toy import gapt as command


@pytest.fixture
def run(tmp_path) -> Path:
    """What a run says of itself, without its vocabulary and checkpoints."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_dict(tiny())))
    (folder / "run.json").write_text(json.dumps({"config_hash": run_hash(tiny()), "data_fingerprint": "x"}))
    return folder


def said(run: Path, capsys) -> str:
    assert command("export", str(run), "--out", str(run.parent / "bundle")) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "place",
    (
        *("seed", "name", "arm", "data.max_frames", "data.part", "models.policy.depth", "models.compute_dtype"),
        *("algorithm.adversarial_weight", "pretrain.seed", "evaluation.songs"),
    ),
)
def test_a_changed_or_removed_setting_is_refused(place, run, capsys):
    values = {
        "data.part": "melody",
        "data.max_frames": 8,
        "models.compute_dtype": "bfloat16",
        "name": "other",
        "arm": "other",
    }
    *parents, last = place.split(".")
    for new in (values.get(place, 7), None):
        config = to_dict(tiny())
        table = config
        for parent in parents:
            table = table[parent]
        table.pop(last)
        if new is not None:
            table[last] = new
        (run / "config.json").write_text(json.dumps(config))
        assert "config.json was changed after the run had begun" in said(run, capsys)


def test_what_is_no_part_of_a_run_may_change(run, capsys):
    config = to_dict(tiny())
    config["data"]["songs"] = "elsewhere"
    config["runtime"]["checkpoint_every"] = 7
    config["health"]["max_kl"] = 7.0
    (run / "config.json").write_text(json.dumps(config))
    assert "vocabulary.json does not exist" in said(run, capsys)


def test_a_run_without_its_hash_is_refused(run, capsys):
    (run / "run.json").write_text("{}")
    assert "config.json was changed" in said(run, capsys)
