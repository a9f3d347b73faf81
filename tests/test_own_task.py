"""A task of a test's own goes through `gapt run`, `gapt evaluate` and `gapt report`: the door is the only one."""

import dataclasses
import json

import pytest

from gapt_jax.errors import UserError
from gapt_jax.overrides import override
from gapt_jax.report.writer import write_report
from gapt_jax.runtime.console import Console
from gapt_jax.training import measure, pipeline
from tests.own_task import AlgorithmConfig, Experiment, RewardsConfig
from tests.toy import NETWORKS

TOY = [
    *NETWORKS, *(f"pretrain.{stage}.{key}" for stage in ("policy", "anchor") for key in ("steps=20", "batch_size=16")),
    "data.max_frames=16", "algorithm.steps=4", "algorithm.batch_size=16", "algorithm.minibatch_size=8",
    "algorithm.discriminator.minibatch_size=8", "algorithm.discriminator.steps_per_update=2", "evaluation.songs=24",
    "evaluation.batch_size=16", "evaluation.every=2", "evaluation.monitor_songs=16", "runtime.checkpoint_every=2",
    "evaluation.post_hoc_steps=2", "runtime.mesh.data=1",
]  # fmt: skip
SILENT = Console(json_mode=True)


def experiment(weight: float) -> Experiment:
    return override(Experiment(name="echo"), [*TOY, f"algorithm.adversarial_weight={weight}"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """λ = 0 and λ = 1, by the path of `gapt run`."""
    folder = tmp_path_factory.mktemp("echo")
    for weight in (0, 1):
        pipeline.run(experiment(weight), folder / f"lambda{weight}", SILENT)
    return folder


def test_it_trains_and_is_evaluated(runs):
    for weight in (0, 1):
        found = json.loads((runs / f"lambda{weight}" / "evaluation.json").read_text())
        systems = {name: sets["all/test"] for name, sets in found["systems"].items()}
        assert systems.keys() == {"data", "mle", f"gapt_lambda={weight}"}
        assert systems["data"]["answered"]["mean"] == 1.0 > systems["mle"]["answered"]["mean"]
        assert systems["mle"]["vendi_independent"]["mean"] > 1
        assert not any(found["unseen"].values())  # its corpus does not say
        fit = found["reward_models"]["fit"]["all/test"]
        assert fit["kind"] == "contrastive" and fit["n_songs"] == 24 and len(fit["seeds"]) == 3
        for direction in ("context_to_action", "action_to_context"):
            figures = [seed[direction] for seed in fit["seeds"]]
            assert all(1 / 24 <= x["recall_at_1"] <= x["recall_at_5"] <= x["recall_at_10"] <= 1 for x in figures)
    rows = [json.loads(line) for line in (runs / "lambda1" / "metrics.jsonl").read_text().splitlines()]
    last = rows[-1]
    assert {"reward/fit", "reward/pause", "reward/adversarial", "reward_member_std/fit/0", "valid/answered"} <= set(
        last
    )
    assert last["ratio_deviation/largest"] < 1e-3


def test_it_is_evaluated_again_and_reported(runs):
    before = json.loads((runs / "lambda1" / "evaluation.json").read_text())
    _, path = measure.evaluate(runs / "lambda1", SILENT)
    assert path == runs / "lambda1" / "evaluation.json"
    after = json.loads(path.read_text())
    assert {x: after[x] for x in ("systems", "reward_models")} == {x: before[x] for x in ("systems", "reward_models")}
    with pytest.raises(UserError, match="changes nothing in this task"):
        measure.evaluate(runs / "lambda1", SILENT, perturb="+6@4")
    page = write_report([runs / "lambda0", runs / "lambda1"], runs / "report")[0].read_text()
    assert "Which part belongs to this one?" in page and "without what training hears too" not in page
    assert "Answered" in page and "melody" not in page.lower() and "chord" not in page.lower()


def test_its_settings_are_checked_like_those_of_music():
    with pytest.raises(UserError, match=r"unknown setting 'algorithm\.rewards\.pauze'; did you mean"):
        override(Experiment(), ["algorithm.rewards.pauze=0"])
    with pytest.raises(UserError, match="task must be one of"):
        override(Experiment(), ["task=accompaniment"])
    other = dataclasses.replace(Experiment(), algorithm=AlgorithmConfig(rewards=RewardsConfig(diversity=1.0, fit=0.0)))
    with pytest.raises(UserError, match="group_size"):
        override(other, [])
