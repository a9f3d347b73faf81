"""Ablations by name: every arm can be trained, and differs from its neighbours in what its name says."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from gapt_jax import models
from gapt_jax.algorithm.state import Spec, program
from gapt_jax.config import to_dict
from gapt_jax.evaluation.results import flatten
from gapt_jax.experiments.small import small
from gapt_jax.overrides import override
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training.job import Job, stages_of
from gapt_jax.training.presets import PRESETS, check_different, of_lambda, together

ALL = PRESETS | Experiment.presets()
PUBLISHED = {arm.name: arm for arm in ALL["published"]}
FACTORS = sorted({name.partition(",")[0] for name in PUBLISHED if "," in name})


def changed(arm, base) -> dict[str, object]:
    """What an arm sets otherwise, beside its name."""
    old, new = (flatten(to_dict(experiment)) for experiment in (base, arm.experiment(base, base.seed)))
    return {path: value for path, value in new.items() if value != old.get(path) and path != "arm"}


@pytest.mark.parametrize("name", ALL)
def test_every_arm_trains_a_policy_of_its_own_from_small(name):
    base = override(small(), ["pretrain.members=2"] * (name == "ensemble"))
    check_different(ALL[name], base)
    assert len({arm.name for arm in ALL[name]}) == len({arm.label for arm in ALL[name]}) == len(ALL[name])
    for arm in ALL[name]:
        assert not {"", "data", "mle"} & {arm.name} and "/" not in arm.name


def test_published_changes_one_factor_at_a_time():
    base = PUBLISHED["gapt_lambda=1"].experiment(small(), 0)
    assert FACTORS == ["eight_rewards", "entropy_bonus", "longer", "no_mask", "slow_discriminator", "weights_1"]
    for factor in FACTORS:
        settings = changed(PUBLISHED[f"{factor},lambda=1"], base)
        assert "algorithm.adversarial_weight" not in settings and settings
        if factor == "slow_discriminator":
            assert f"{factor},lambda=0" not in PUBLISHED and all("discriminator" in path for path in settings)
        else:
            alone = changed(PUBLISHED[f"{factor},lambda=0"], base)
            assert alone == settings | {"algorithm.adversarial_weight": 0.0}
    assert changed(PUBLISHED["no_mask,lambda=1"], base) == {"algorithm.validity_mask": False}


def test_arms_of_published_share_their_supervised_stages(vocabulary):
    task, made = Accompaniment(vocabulary), {}
    networks = models.build(small().models, task.vocab_size, task.reward_models)
    for name, arm in PUBLISHED.items():
        experiment = arm.experiment(small(), 0)
        spec = Spec(networks, experiment.algorithm, task)
        job = Job(experiment, Path(), SimpleNamespace(fingerprint="f"), spec, spec.layout, Console())
        made[name] = {stage.folder(Path()).name for stage in stages_of(job)}
    shared = made.pop("gapt_lambda=0")
    assert len(shared) == 4
    for name, stages in made.items():
        more = {stage.rpartition("-")[0] for stage in stages - shared}
        assert shared <= stages
        assert more == ({"rhythm_contrastive", "rhythm_discriminative"} if name.startswith("eight") else set())


def test_arms_of_numbers_alone_are_one_program():
    programs = [program(arm.experiment(small(), 0).algorithm) for arm in ALL["weights"][:5]]
    assert all(one == programs[0] for one in programs)


def test_the_weights_are_those_of_table_7():
    kinds = "algorithm.rewards.coherence_weight", "algorithm.rewards.rules_weight", "algorithm.adversarial_weight"
    found = []
    for arm in ALL["weights"][:5]:
        values = flatten(to_dict(arm.experiment(small(), 0)))
        found.append(tuple(values[path] for path in kinds))
    assert found == [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 0, 1)]


def test_without_lambda_a_discriminator_that_screens_still_acts():
    arm = next(arm for arm in ALL["variants"] if arm.name == "screening")
    check_different([of_lambda(0.0), arm], small())
    more = override(small(), ["algorithm.adversarial_weight=0", "algorithm.discriminator.gate=every_step"])
    check_different([arm, of_lambda(0.0)], more)


def test_sets_together_train_each_policy_once():
    arms = [
        arm.name for arm in together([ALL[name] for name in ("adversary", "gate", "anchor", "conditional")], small())
    ]
    assert arms[:2] == ["gapt_lambda=0", "gapt_lambda=1"]
    assert arms[2:5] == ["gate=fixed_period", "gate=every_step", "gate=frozen"]  # two_phase is λ = 1
    assert arms[5:] == ["anchor=online", "anchor=none", "discriminator=pair"]
