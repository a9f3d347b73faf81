"""Alarms on synthetic histories; what planted hacks do to real policies is measured by docs/calibrate_health.py."""

import dataclasses
import itertools
import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax import models
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import ConfigError, DiscriminatorConfig, ModelsConfig, RuntimeConfig, TransformerConfig
from gapt_jax.errors import TrainingStopped
from gapt_jax.overrides import override
from gapt_jax.runtime.checkpoint import checkpoints, finished_steps
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.health import FILE_NAME, ON_EVALUATIONS, ON_STEPS, AlarmedLog, Health
from gapt_jax.runtime.metrics import read_metrics
from gapt_jax.tasks.accompaniment.config import (
    AlarmActions,
    AlgorithmConfig,
    DataConfig,
    EvaluationConfig,
    Experiment,
    HealthConfig,
)
from gapt_jax.tasks.accompaniment.symptoms import ON_EVALUATIONS as SYMPTOMS
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training import post_training
from gapt_jax.training.post_training import saved_steps
from gapt_jax.training.run_folder import run_hash
from gapt_jax.types import Batch
from gapt_jax.vocabulary import Vocabulary

CONFIG, PUBLISHED = HealthConfig(), AlgorithmConfig()
MLE = {
    "note_in_chord": 0.32, "note_in_chord_chance": 0.26, "silent_share": 0.02, "vendi_independent": 6.0,
    "unique_progressions": 128.0, "held_out_coherence": 0.2,
}  # fmt: skip
STEP = {
    "kl": 0.5, "ratio_deviation/mean": 1e-5, "ratio_deviation/high": 1e-4, "discriminator/accuracy": 0.8,
    "reward/contrastive": 0.5, "reward/discriminative": 0.5, "reward_member_std/contrastive/0": 0.1,
}  # fmt: skip
EVERY = 10


def rows(evaluations, steps=None):
    """(step, metrics) from the MLE on; `evaluations` changes one after the other, `steps` those of every step."""
    yield 0, {f"valid/{name}": x for name, x in MLE.items()}
    for number, changes in enumerate(evaluations):
        for step in range(number * EVERY + 1, (number + 1) * EVERY + 1):
            row = STEP | (steps or {})
            if step % EVERY == 0:
                row |= {f"valid/{name}": x for name, x in (MLE | changes).items()}
            yield step, row


def heard(rows, config=CONFIG, algorithm=PUBLISHED):
    health = Health(Experiment(health=config, algorithm=algorithm))
    return [(alarm.alarm, alarm.step) for step, row in rows for alarm in health.observe(step, row)]


def names(found):
    return {name for name, _ in found}


def test_healthy_runs_raise_nothing():
    learns = [
        {"note_in_chord": 0.3 + n / 100, "vendi_independent": 6 - n / 10, "held_out_coherence": 0.2 + n / 100}
        for n in range(15)
    ]
    assert heard(rows(learns)) == []
    # Vendi 0.69 of the MLE's, silence, looping and a deaf policy, each for one evaluation less than it takes
    slow = CONFIG.slow_evaluations - 1
    assert heard(rows([{"vendi_independent": 4.14}] * slow + [{}])) == []
    assert heard(rows([{"silent_share": 0.9}, {}, {"unique_progressions": 4.0}, {}, {"note_in_chord": 0.26}, {}])) == []


def test_a_reward_above_that_of_the_data_is_an_exploit():
    course = [{"proxy_coherence": x} for x in (0.7, 0.79, 0.85, 0.79, 0.85, 0.9, 0.95)]
    (_, first), *later = rows(course)
    found = heard([(0, first | {"valid/proxy_coherence": 0.6, "valid/data_proxy_coherence": 0.8}), *later])
    assert found == [("beyond_data", 6 * EVERY)]  # the second evaluation in a row above 0.8
    assert "beyond_data" not in names(heard(rows(course)))  # what the data gets is not known


@pytest.mark.parametrize(
    ("changes", "alarm", "lasting"),
    [
        ({"vendi_independent": 4.19}, "low_diversity", CONFIG.slow_evaluations),  # 0.7 of 6 is 4.2
        ({"unique_progressions": 63.0}, "few_progressions", CONFIG.fast_evaluations),  # half of 128 is 64
        ({"note_in_chord": 0.272}, "ignores_melody", CONFIG.fast_evaluations),  # 1.05 times 0.26 is 0.273
        ({"silent_share": 0.221}, "silence", CONFIG.fast_evaluations),  # 0.02 + 0.2
    ],
)
def test_each_hack_raises_its_alarm_when_it_has_lasted(changes, alarm, lasting):
    found = heard(rows([{}, {}, *[changes] * 6]))
    assert found == [(alarm, (2 + lasting) * EVERY)]


@pytest.mark.parametrize(
    "changes",
    [{"vendi_independent": 4.2}, {"unique_progressions": 64.0}, {"note_in_chord": 0.274}, {"silent_share": 0.219}],
)
def test_the_limits_themselves_are_healthy(changes):
    assert heard(rows([changes] * 8)) == []


def rising(evaluations, proxies):
    """The rows with a measured proxy: that of the MLE is 1."""
    proxy = iter([1.0, *proxies])
    for step, row in rows(evaluations):
        yield step, row | ({"valid/proxy_coherence": next(proxy)} if "valid/silent_share" in row else {})


@pytest.mark.parametrize("harm", [{"held_out_coherence": 0.14}, {"vendi_independent": 4.4}])
def test_reward_hacking_is_a_risen_proxy_with_gold_or_diversity_down(harm):
    harms = [{}, *[harm] * 6]
    assert heard(rising(harms, [1.2] * 7)) == [("reward_hacking", 50)]
    assert heard(rising(harms, [1.05] * 7)) == []  # the proxy is where it was
    assert heard(rising([{}] * 7, [2.0] * 7)) == []  # no harm is done
    assert "since step 20 the learned reward rose from 1 to 1.2" in message(rising(harms, [1.2] * 7))


def message(rows, algorithm=PUBLISHED):
    health = Health(Experiment(health=CONFIG, algorithm=algorithm))
    return " ".join(alarm.message for step, row in rows for alarm in health.observe(step, row))


def test_gold_is_compared_with_its_best():
    gold = [{"held_out_coherence": x} for x in (0.3, 0.4, 0.34, 0.34, 0.34, 0.34)]  # above the MLE's 0.2 throughout
    assert heard(rising(gold, [1.5] * 6)) == [("reward_hacking", 60)]


def test_without_a_measured_proxy_it_is_the_weighted_reward_of_the_rollouts():
    weights = dataclasses.replace(AlgorithmConfig().rewards, contrastive=1.0, discriminative=0.0)
    algorithm = AlgorithmConfig(rewards=weights)

    def run(kind):
        for step, row in rows([{"vendi_independent": 4.4}] * 8):
            yield step, row | ({f"reward/{kind}": 0.9} if step > EVERY else {})

    assert heard(run("contrastive"), algorithm=algorithm) == [("reward_hacking", 50)]
    assert heard(run("discriminative"), algorithm=algorithm) == []  # has no weight


def test_a_saturated_discriminator_matters_where_it_is_listened_to():
    saturated = {"discriminator/accuracy": 0.98}
    assert heard(rows([{}] * 6, saturated)) == [("saturated_discriminator", 40)]
    assert heard(rows([{}] * 6, saturated), algorithm=AlgorithmConfig(adversarial_weight=0.0)) == []


@pytest.mark.parametrize(
    ("metric", "alarm"),
    [
        ({"kl": 2.1}, "kl_budget"),
        ({"ratio_deviation/mean": 0.002}, "ratio"),
        ({"ratio_deviation/high": 0.02}, "ratio"),
        ({"reward_member_std/contrastive/0": 0.0}, "dead_member"),
    ],
)
def test_alarms_of_steps_need_five_in_a_row(metric, alarm):
    def run(bad):
        return [(step, STEP | (metric if step in bad else {})) for step in range(1, 30)]

    assert heard(run(range(3, 30))) == [(alarm, 7)]
    assert heard(run({3, 4, 5, 6, 8, 9, 10, 11})) == []


def test_the_dead_member_is_named():
    row = STEP | {"reward_member_std/contrastive/0": 0.1, "reward_member_std/contrastive/1": 0.0}
    assert "reward model contrastive/1 gives" in message((step, row) for step in range(1, 6))


def test_an_alarm_is_raised_when_it_begins_and_again_only_after_it_had_ceased():
    silent, fine = {"silent_share": 0.5}, {}
    one_pause = [silent, silent, fine, silent, silent, silent]
    assert heard(rows(one_pause)) == [("silence", 20)]
    ceased = [silent, silent, fine, fine, silent, silent]
    assert heard(rows(ceased)) == [("silence", 20), ("silence", 60)]


def test_what_is_not_a_number_is_not_judged():
    unknown = dict.fromkeys(MLE, math.nan)
    assert heard(rows([unknown] * 6, dict.fromkeys(STEP, math.nan))) == []
    assert heard((step, dict.fromkeys(row)) for step, row in rows([unknown] * 6)) == []  # as the log reads: null
    assert heard((step, {}) for step in range(9)) == []


def log_of(folder, resume_step=None, config=CONFIG, is_silent=False):
    return AlarmedLog(folder, "gapt", resume_step, Health(Experiment(health=config)), Console(), is_silent=is_silent)


def write(log, rows):
    for step, row in rows:
        log.write("gapt", step, row)
    log.close()


STORY = [{"silent_share": x} for x in (0.5, 0.5, 0, 0, 0.5, 0.5, 0.5)]


@pytest.mark.parametrize("killed", [8, 14, 20, 25, 47, 61])
def test_interrupted_is_uninterrupted(tmp_path, killed):
    write(log_of(tmp_path / "whole"), rows(STORY))
    write(log_of(tmp_path / "parts"), [row for row in rows(STORY) if row[0] <= killed])
    saved = killed - killed % 7  # the checkpoint before it
    resumed = log_of(tmp_path / "parts", resume_step=saved)
    write(resumed, [row for row in rows(STORY) if row[0] > saved])
    texts = [(tmp_path / name / FILE_NAME).read_text() for name in ("whole", "parts")]
    assert texts[0] == texts[1]
    assert [(json.loads(line)["alarm"], json.loads(line)["step"]) for line in texts[0].splitlines()] == [
        ("silence", 20),
        ("silence", 60),
    ]
    assert set(json.loads(texts[0].splitlines()[0])) == {"step", "alarm", "message"}


def test_a_resumed_log_forgets_later_alarms_and_tells_old_ones_to_nobody(tmp_path, capsys):
    write(log_of(tmp_path), rows(STORY))
    assert capsys.readouterr().out.count("warning: step ") == 2
    resumed = log_of(tmp_path, resume_step=30)
    assert [json.loads(line)["step"] for line in (tmp_path / FILE_NAME).read_text().splitlines()] == [20]
    assert resumed.take() == [] and capsys.readouterr().out == ""
    assert log_of(tmp_path).take() == [] and (tmp_path / FILE_NAME).read_text() == ""  # from the start


def test_alarms_are_taken_once_and_say_what_to_do(tmp_path):
    log = log_of(tmp_path, config=HealthConfig(actions=AlarmActions(silence="stop")))
    write(log, rows(STORY[:3]))
    (alarm,) = log.take()
    assert (alarm.alarm, alarm.step, alarm.action) == ("silence", 20, "stop")
    assert alarm.message.startswith("since step 10 no chord sounds under 50% of the melody (2% at first): ")
    assert log.take() == []


def test_every_process_hears_and_the_first_writes(tmp_path):
    log = log_of(tmp_path, is_silent=True)
    write(log, rows(STORY))
    assert [alarm.step for alarm in log.take()] == [20, 60] and not list(tmp_path.iterdir())


def test_every_alarm_has_an_action_and_unknown_ones_are_refused():
    assert {field.name for field in dataclasses.fields(AlarmActions)} == {*ON_EVALUATIONS, *SYMPTOMS, *ON_STEPS}
    with pytest.raises(ConfigError, match=r"health\.actions\.ratio must be one of log, keep, stop"):
        override(Experiment(), ["health.actions.ratio=ignore"])
    for setting in ("health.slow_evaluations=0", "health.max_kl=-1"):
        with pytest.raises(ConfigError, match="health"):
            override(Experiment(), [setting])


def test_limits_make_no_other_run():
    assert run_hash(override(Experiment(), ["health.max_kl=3"])) == run_hash(Experiment())
    assert run_hash(override(Experiment(), ["seed=3"])) != run_hash(Experiment())


def test_a_kept_checkpoint_stays_for_good(tmp_path):
    def save(steps, **settings):
        with checkpoints(tmp_path / "c", RuntimeConfig(keep_checkpoints=1, keep_best=1), Console()) as saved:
            for step in steps:
                saved.save(step, {"a": jnp.full(3, float(step))}, {}, **settings)

    save([1], is_kept=True)
    save([2], score=5.0)
    save([3, 4], score=1.0)
    save([5], score=1.0, is_kept=True)
    save([6])
    save([7])
    # 1 and 5 were kept, 2 is the best, 7 the newest
    assert finished_steps(tmp_path / "c") == [1, 2, 5, 7]
    with checkpoints(tmp_path / "c", RuntimeConfig(keep_checkpoints=9), Console()) as saved:
        assert saved.restore({"a": jnp.zeros(3)}, {})[0] == 7
    with checkpoints(tmp_path / "c", RuntimeConfig(keep_checkpoints=9), Console()) as saved:
        step, found = saved.restore_part({"a": jnp.zeros(3)}, {}, step=5)
        assert step == 5 and found["a"].tolist() == [5.0] * 3


STACK = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2)
VOCABULARY = Vocabulary.from_qualities([(0, 4, 7)])
NETWORKS = models.build(
    ModelsConfig(STACK, STACK, STACK, STACK), VOCABULARY.size, Accompaniment(VOCABULARY).reward_models
)
TOY = AlgorithmConfig(
    steps=12, batch_size=4, minibatch_size=4, discriminator=DiscriminatorConfig(minibatch_size=4, steps_per_update=1)
)
SONGS = SimpleNamespace(context=None, actions=None, index=None)


class Policies:
    """Measures as many evaluations as a run has; the third one and all later ones are silent."""

    rewards = None

    def __init__(self, seen=0):
        self.seen = seen

    def play(self, policy, melody, index, *, sampling):
        self.seen += 1

    def measure(self, melody, chords, data_chords, policy=None):
        return MLE | ({"silent_share": 0.5} if self.seen >= 3 else {})


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Post-training whose iterations only count; evaluated every 2 steps, saved every 5."""
    policy = NETWORKS.policy.init(jax.random.key(3))

    def counted(spec, state, frozen, batch, done):
        return dataclasses.replace(state, step=state.step + 1), dict(STEP)

    monkeypatch.setattr(post_training.learner, "iteration", counted)
    monkeypatch.setattr(post_training, "iteration_flops", lambda *_: (0.0, 0.0))

    def run(action, evaluations=0):
        experiment = Experiment(
            algorithm=TOY,
            data=DataConfig(max_frames=8),
            evaluation=EvaluationConfig(every=2),
            runtime=RuntimeConfig(checkpoint_every=5, keep_checkpoints=1, keep_best=0),
            health=HealthConfig(actions=AlarmActions(silence=action)),
        )
        spec = Spec(NETWORKS, TOY, Accompaniment(VOCABULARY))
        batch = Batch(*(np.zeros(shape, np.int32) for shape in ((4, 8), (4, 8), (4,))))
        arguments = spec, None, policy, lambda rows, start: itertools.repeat(batch)
        watched = Policies(evaluations), SONGS, experiment, tmp_path, Console()
        return post_training.post_train(*arguments, *watched)

    return run


def test_an_alarm_logs_keeps_or_stops_as_configured(train, tmp_path, capsys):
    with pytest.raises(
        TrainingStopped, match=r"gapt stopped at step 6, which is saved: silence, since step 4 no chord"
    ):
        train("stop")
    assert saved_steps(tmp_path) == [6] and read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 6
    assert "warning: step 6, silence: " in capsys.readouterr().out

    assert int(train("stop", evaluations=4).step) == 12  # the same command goes on, and says it once
    assert saved_steps(tmp_path) == [12] and "silence" not in capsys.readouterr().out
    assert [json.loads(line)["step"] for line in (tmp_path / FILE_NAME).read_text().splitlines()] == [6]


@pytest.mark.parametrize(("action", "steps"), [("log", [12]), ("keep", [6, 12])])
def test_keeping_costs_one_checkpoint_and_ends_nothing(train, tmp_path, action, steps):
    assert int(train(action).step) == 12
    assert saved_steps(tmp_path) == steps
