import ast
import dataclasses
import functools
import json
import re
import typing
from pathlib import Path

import jax
import pytest

from gapt_jax import config, experiments, settings
from gapt_jax.algorithm import adversary, groups
from gapt_jax.config import ConfigError, config_hash, from_dict, to_dict, to_json
from gapt_jax.overrides import override
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig, DataConfig, Experiment
from gapt_jax.training.run_folder import LATER_SETTINGS, _without_means, run_hash

ROOT = Path(__file__).parents[1]


def leaves(cls: type = Experiment, prefix: str = "") -> list[tuple[str, typing.Any]]:
    """(path, type) of every setting."""
    found = []
    hints = typing.get_type_hints(cls)
    for name, hint in ((field.name, hints[field.name]) for field in dataclasses.fields(cls)):
        found += leaves(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [(prefix + name, hint)]
    return found


def _value(experiment, path):
    for name in path.split("."):
        experiment = getattr(experiment, name)
    return experiment


def _changed(data, path):
    """A copy of the plain data with one leaf changed within its type."""
    data = json.loads(json.dumps(data))
    *parents, last = path.split(".")
    node = data
    for name in parents:
        node = node[name]
    old = node[last]
    if isinstance(old, bool):
        node[last] = not old
    elif isinstance(old, int | float):
        node[last] = old + 1
    else:
        node[last] = old + "x" if isinstance(old, str) else old + old
    return data


def test_json_round_trip():
    experiment = override(Experiment(), ["name=x", 'data.mixture=[["a", 0.5], ["b", 2]]', "algorithm.epochs=3"])
    assert from_dict(Experiment, json.loads(to_json(experiment))) == experiment
    assert from_dict(Experiment, to_dict(experiment)) == experiment
    assert experiment.data.mixture == (("a", 0.5), ("b", 2.0))


def test_a_config_that_names_no_task_is_of_the_first_one():
    stored = to_dict(Experiment(name="before"))
    del stored["task"]
    assert from_dict(config.Experiment, stored) == Experiment(name="before")
    with pytest.raises(ConfigError, match=r"task must be one of .*accompaniment.*, not 'dialogue'"):
        from_dict(config.Experiment, stored | {"task": "dialogue"})


def test_an_absent_setting_has_its_default():
    assert from_dict(Experiment, {"algorithm": {"epochs": 2}}).algorithm == AlgorithmConfig(epochs=2)


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("algorithm.adversarial_weight=0", "algorithm.adversarial_weight", 0.0),
        ("algorithm.adversarial_weight=1e-3", "algorithm.adversarial_weight", 0.001),
        ("data.transpose=false", "data.transpose", False),
        ("name=2024", "name", "2024"),
        ("data.songs=/a=b/c", "data.songs", "/a=b/c"),
        (' data.out_of_domain =["a","b"]', "data.out_of_domain", ("a", "b")),
        ("data.out_of_domain=[]", "data.out_of_domain", ()),
        ("models.policy.dim=64", "models.policy.dim", 64),
    ],
)
def test_override_sets_one_value_of_its_type(assignment, path, value):
    changed = override(Experiment(), [assignment])
    assert _value(changed, path) == value and type(_value(changed, path)) is type(value)
    differing = [p for p, _ in leaves() if _value(changed, p) != _value(Experiment(), p)]
    assert differing == ([path] if value != _value(Experiment(), path) else [])


def test_the_last_override_wins():
    assert override(Experiment(), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("assignment", "nearest"),
    [
        ("algorthm.steps=1", "algorithm.steps"),
        ("algorithm.adverserial_weight=1", "algorithm.adversarial_weight"),
        ("algorithm.discriminator.gate_treshold=1", "algorithm.discriminator.gate_threshold"),
        ("sed=1", "seed"),
    ],
)
def test_unknown_setting_names_the_nearest(assignment, nearest):
    with pytest.raises(ConfigError, match=f"did you mean '{nearest}'"):
        override(Experiment(), [assignment])


@pytest.mark.parametrize("assignment", ["zzzz=1", "algorithm.steps.x=1", "=1", ".=1", "algorithm.=3"])
def test_a_path_to_nowhere_is_an_error(assignment):
    with pytest.raises(ConfigError, match="unknown setting"):
        override(Experiment(), [assignment])


def test_an_assignment_needs_an_equals_sign():
    with pytest.raises(ConfigError, match="not of the form path=value"):
        override(Experiment(), ["seed"])


def _bare(hint):
    """A type without its limits; choices are texts."""
    return str if typing.get_origin(hint) is typing.Literal else hint


def test_the_hash_of_every_experiment_is_the_one_that_stored_runs_have():
    hashes = {name: run_hash(override(experiments.load(name), [])) for name in HASHES}
    assert hashes == HASHES


def test_a_later_setting_changes_the_hash_of_a_run_only_away_from_its_default():
    stored = to_dict(Experiment())
    for path, value in LATER_SETTINGS.items():  # as in the config.json of an earlier run
        *parents, name = path.split(".")
        assert functools.reduce(dict.get, parents, stored).pop(name) == value
    assert config_hash(_without_means(stored)) == run_hash(Experiment())
    for path in LATER_SETTINGS:
        changed = _changed(to_dict(Experiment()), path)
        assert config_hash(_without_means(changed)) != run_hash(Experiment())


HASHES = {"gapt": "2027e7e7d17c", "small": "d28f60326d1f", "smoke": "fbaf4a554b7f", "yardstick": "2f74dcb13137"}
WRONG = {
    int: ["1.5", "true", '"x"', "null", "[1]"],
    float: ["true", "x", "null", "[1.0]", "{}"],
    str: ["true", "null", '["x"]', "{}"],
    bool: ["0", "1", "yes", "null"],
    tuple[str, ...]: ["x", "null", "[1.5, null]", "{}"],
    tuple[tuple[str, float], ...]: ["x", "[[]]", '[["a"]]', '[["a", "b"]]', '[["a", 1, 2]]', "[1]", "{}"],
}


@pytest.mark.parametrize(("path", "hint"), leaves())
def test_every_wrong_type_is_an_error_that_names_the_setting(path, hint):
    for text in WRONG[_bare(hint)]:
        with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
            override(Experiment(), [f"{path}={text}"])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1e39", "1" + 400 * "0"])
def test_a_number_must_be_finite(text):
    with pytest.raises(ConfigError, match=r"algorithm\.kl_coef"):
        override(Experiment(), [f"algorithm.kl_coef={text}"])


def test_a_table_where_a_value_belongs_and_the_other_way_round():
    with pytest.raises(ConfigError, match="algorithm must be a table"):
        override(Experiment(), ["algorithm=3"])
    with pytest.raises(ConfigError, match=r"unknown setting 'algorithm\.x'"):
        override(Experiment(), ['algorithm={"x": 1}'])


@pytest.mark.parametrize(
    "assignment",
    [
        "algorithm.steps=0",
        "algorithm.batch_size=-48",
        "algorithm.minibatch_size=0",
        "algorithm.minibatch_size=7",
        "algorithm.discriminator.minibatch_size=385",
        "data.max_frames=255",
        "data.max_frames=0",
        "data.mixture=[]",
        'data.mixture=[["a",0]]',
        "data.chord_coverage=0",
        "data.chord_coverage=1.1",
        "evaluation.songs=0",
        "pretrain.members=0",
        "algorithm.discriminator.reward_form=x",
        "algorithm.rewards.ensemble=x",
        "evaluation.sampling=x",
        "models.compute_dtype=float16",
    ],
)
def test_what_the_types_cannot_say(assignment):
    path = assignment.partition("=")[0]
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        override(Experiment(), [assignment])


def beyond(limit: settings.Limits) -> list[float]:
    """Values just outside each bound, and some far away."""
    below = [] if limit.least is None else [limit.least - 1, limit.least - 1e9]
    below += [] if limit.above is None else [limit.above, limit.above - 1]
    over = [] if limit.most is None else [limit.most + 1, limit.most + 2**65]
    over += [] if limit.below is None else [limit.below, limit.below + 2]
    return below + over + ([] if limit.multiple_of is None else [5 * limit.multiple_of + 1])


def limited() -> list[tuple[str, str]]:
    """(path, JSON value) for a value beyond each limit and outside the choices of every field."""
    found = []
    for path, hint in settings.leaves(Experiment):
        for limit in getattr(hint, "__metadata__", ()):
            if isinstance(limit, settings.Limits):
                number = int if hint.__origin__ is int else float
                found += [(path, json.dumps(number(value))) for value in beyond(limit)]
        if typing.get_origin(hint) is typing.Literal:
            found += [(path, ""), (path, "x"), (path, typing.get_args(hint)[0].upper())]
    return found


@pytest.mark.parametrize(("path", "text"), limited())
def test_a_value_beyond_a_limit_is_an_error_that_names_the_setting(path, text):
    with pytest.raises(ConfigError, match=rf"^{re.escape(path)} must be "):
        override(Experiment(), [f"{path}={text}"])


def test_every_number_has_a_limit():
    free = [path for path, hint in settings.leaves(Experiment) if hint in (int, float)]
    assert free == ["algorithm.discriminator.gate_threshold"]


@pytest.mark.parametrize(
    "assignment",
    [
        "algorithm.adversarial_weight=-1",
        "algorithm.kl_coef=-1",
        "algorithm.entropy_coef=-3",
        "algorithm.discount=2",
        "algorithm.discount=0",
        "algorithm.gae_lambda=7",
        "algorithm.gae_lambda=-0.1",
        "algorithm.clip_epsilon=0",
        "algorithm.policy.learning_rate=-1",
        "algorithm.critic.b1=1",
        "algorithm.discriminator_optimizer.b2=2",
        "pretrain.anchor.optimizer.clip_norm=0",
        "algorithm.policy.warmup_steps=-1",
        "algorithm.policy.final_fraction=1.5",
        "algorithm.discriminator.label_smoothing=3",
        "algorithm.rewards.silence=-1",
        "models.reward.dropout=1",
        "models.policy.head_dim=6",
        "runtime.hang_minutes=0",
        "health.max_kl=-1",
        "evaluation.post_hoc_steps=-1",
        f"seed={2**31}",
        f"seed={2**64}",
        f"evaluation.seed={2**64}",
        "pretrain.seed=-1",
        "name=",
        "name= ",
        "name=../x",
        "name=..",
        "name=.hidden",
        "name=a/b",
        "name=a\\b",
        "name=/abs",
        "name=" + 101 * "x",
        "arm=../x",
        "arm=data",
        "data.songs=",
        'data.mixture=[["a", 1], ["a", 2]]',
        'data.mixture=[["a", -1]]',
        "pretrain.contrastive.batch_size=1",
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(assignment):
    with pytest.raises(ConfigError, match=re.escape(assignment.partition("=")[0])):
        override(Experiment(), [assignment])


@pytest.mark.parametrize(
    "assignment", ["name=mine 2 (λ)", "name=small-lambda0.5", "algorithm.adversarial_weight=0", f"seed={2**31 - 1}"]
)
def test_the_edges_of_the_limits_are_allowed(assignment):
    override(Experiment(), [assignment])


def test_the_largest_seeds_give_keys_of_their_own():
    words = [jax.random.key_data(jax.random.key(seed)) for seed in (0, 1, config.MOST - 1, config.MOST)]
    assert len({tuple(map(int, word)) for word in words}) == len(words)


def test_a_table_changes_what_it_names_and_nothing_else():
    changed = override(Experiment(), ["algorithm.epochs=3", 'algorithm={"steps": 5, "rewards": {"silence": 2}}'])
    assert (changed.algorithm.epochs, changed.algorithm.steps, changed.algorithm.rewards.silence) == (3, 5, 2.0)
    assert override(changed, ["algorithm={}", "data={}"]) == changed


def test_a_value_of_a_python_experiment_is_checked_like_one_of_the_command_line():
    for wrong, path in (({"seed": -1}, "seed"), ({"data": DataConfig(songs=Path("x"))}, r"data\.songs")):
        with pytest.raises(ConfigError, match=path):
            override(Experiment(**wrong), [])


def test_the_choices_are_those_that_the_mathematics_has():
    choices = {path: set(typing.get_args(hint)) for path, hint in settings.leaves(Experiment)}
    assert choices["algorithm.discriminator.reward_form"] == set(adversary.REWARD_FORMS)
    assert choices["algorithm.discriminator.loss"] == set(adversary.LOSSES)
    assert choices["algorithm.advantages"] == {"gae", *groups.BASELINES}


def test_the_defaults_are_valid():
    assert override(Experiment(), []) == Experiment()


@pytest.mark.parametrize("path", [path for path, _ in leaves()])
def test_the_hash_changes_with_any_setting(path):
    plain = to_dict(Experiment())
    assert config_hash(plain) == config_hash(Experiment())
    assert config_hash(_changed(plain, path)) != config_hash(plain)


def test_the_hash_does_not_depend_on_the_order_of_keys_but_on_that_of_the_parts():
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    assert config_hash(1, 2) != config_hash(2, 1)


def settings_nobody_reads() -> list[str]:
    """Settings whose name is not read as an attribute (or looked up by name) anywhere outside config.py."""
    read: set[str] = set()
    for folder in ("gapt_jax", "data_pipeline"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != ROOT / "gapt_jax" / "config.py":
                read |= _names_read(ast.parse(path.read_text(encoding="utf-8")))
    return [path for path, _ in leaves() if path.rpartition(".")[2] not in read]


def _names_read(tree: ast.AST) -> set[str]:
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    # Reward terms and models are looked up by their names: getattr(weights, "contrastive").
    words = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return attributes | words


def test_every_setting_is_read_somewhere():
    assert settings_nobody_reads() == []


def test_retired_settings_of_earlier_runs_are_passed_over_but_cannot_be_set():
    stored = to_dict(Experiment())
    stored["health"]["max_ratio_deviation"] = 0.05
    assert from_dict(Experiment, stored) == Experiment()
    with pytest.raises(ConfigError, match=r"unknown setting 'health\.max_ratio_deviation'"):
        override(Experiment(), ["health.max_ratio_deviation=0.1"])
