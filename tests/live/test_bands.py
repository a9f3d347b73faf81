"""The policies that are installed with the package: what they hold, and that they play as their figures say."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from gapt_jax.export.verify import MANIFEST
from gapt_jax.live import bands, release
from gapt_jax.live.model import open_model
from gapt_jax.runtime.console import Console

ROOT = Path(__file__).parents[2]
DEFINED = runpy.run_path(str(ROOT / "docs" / "jam_figures.py"))
FIGURES = json.loads((ROOT / "docs" / "jam" / "figures.json").read_text())
MOST_BYTES = 2_500_000  # of a bundle
every_band = pytest.mark.parametrize("folder", bands.FOLDERS.values())


def test_all_three_are_installed():
    assert list(bands.installed()) == list(bands.FOLDERS)
    systems = [FIGURES["policies"][folder]["system"] for folder in bands.FOLDERS.values()]
    assert systems == ["gapt_lambda=1", "gapt_lambda=0", "mle"]


@every_band
def test_its_figures_are_of_its_weights(folder):
    manifest = json.loads((bands.FOLDER / folder / MANIFEST).read_text())
    assert manifest["weights_sha256"] == FIGURES["policies"][folder]["weights_sha256"]
    assert sum(path.stat().st_size for path in (bands.FOLDER / folder).rglob("*") if path.is_file()) <= MOST_BYTES


@every_band
def test_its_card_names_the_training_sets_and_the_licences(folder):
    card = " ".join((bands.FOLDER / folder / "README.md").read_text().split())
    for words in ("| pop909 | 0.65 | MIT", "| openewld | 0.28 |", "| lily_pd | 0.07 | public domain", "gapt run jam"):
        assert words in card
    assert "Licence of the weights: apache-2.0." in card


def test_with_the_adversary_every_demand_on_a_released_policy_is_met():
    found = FIGURES["systems"]["with_the_adversary"]
    assert release.criteria(found) == found["criteria"] and all(found["criteria"].values())


@every_band
def test_it_plays_as_its_figures_say(folder):
    song = DEFINED["songs_of"](DEFINED["BOOK"])[0]
    tune, model = DEFINED["tune_of"](song), open_model(bands.FOLDER / folder, Console())
    known = FIGURES["systems"][folder]["tunes"][tune.title]
    for seed, temperature, expected in ((0, 1.0, known["seeds"][0]), (0, 0.0, known["likeliest"])):
        chords = release.accompanied(model, tune, seed, temperature)
        found = dataclasses.asdict(release.measure(tune, chords, model.vocabulary.tables))
        assert found == pytest.approx(expected, rel=1e-6)
