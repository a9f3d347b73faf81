"""The diffs and the experiment of docs/extending.md, applied to a copy of the package and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
TRY = """
import dataclasses, jax.numpy as jnp
from gapt_jax.algorithm import rewards
from gapt_jax.algorithm.state import hyperparameters
from gapt_jax.overrides import override
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import Vocabulary
vocabulary = Vocabulary.from_qualities([(0, 4, 7)])
chords = jnp.full((1, 8), vocabulary.chord_onset)
found = Accompaniment(vocabulary).rule_terms(jnp.full((1, 8), 200), chords, jnp.ones((1, 8)))
terms = {"dense": found["dense"]}
weights = hyperparameters(override(Experiment(), ["algorithm.rewards.dense=2"]).algorithm).reward_weights
print(float(rewards.weighted_sum(weights, terms).sum()))
"""


TRY_GATE = """
import jax.numpy as jnp
from gapt_jax.algorithm.adversary import discriminator_gate
from gapt_jax.overrides import override
from gapt_jax.tasks.accompaniment.config import Experiment
config = override(Experiment(), ["algorithm.discriminator.gate=odd_steps"]).algorithm.discriminator
for step in range(1, 5):
    print(bool(discriminator_gate(jnp.full(3, 9.0), jnp.int32(step), jnp.float32(1), config)))
"""
TRY_PHASE = """
import jax
from gapt_jax.benchmark import cases
from gapt_jax.overrides import override
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.algorithm import learner
sizes = [f"models.{network}.{size}" for network in ("policy", "anchor", "reward", "discriminator")
         for size in ("dim=16", "depth=1", "heads=2", "head_dim=8")]
settings = [*sizes, "data.max_frames=4", "pretrain.members=1", "algorithm.steps=2", "algorithm.batch_size=4",
            "algorithm.minibatch_size=4", "algorithm.discriminator.minibatch_size=4"]
size = cases.Size.of("tiny", override(Experiment(), settings), 2, "float32", None)
names = []
def call(phase, *inputs):
    names.append(phase.__name__)
    return phase(*inputs)
_, metrics = learner.iteration(size.spec, *cases.learner_inputs(size), call)
print(",".join(names), float(metrics["share_done"]))
"""


TRY_REWARD = """
import jax, jax.numpy as jnp
from gapt_jax import models
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.overrides import override
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.tasks.accompaniment.example import TASK, songs
from gapt_jax.training.job import stage_names
tiny = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8)
reward, batch = TASK.reward_models["beats"], songs()
model = models.build(ModelsConfig(tiny, tiny, tiny, tiny), TASK.vocab_size, TASK.reward_models).rewards["beats"]
params, key = model.init(jax.random.key(0)), jax.random.key(1)
loss, _ = reward.loss(model)(params, batch, key, None)
unheard = jnp.asarray(batch.actions).at[:, 1].set(TASK.vocabulary.size - 1)
heard = jnp.asarray(batch.actions).at[:, 4].set(TASK.vocabulary.size - 1)
score = lambda actions: reward.score(model, params, batch.context, actions)
same = jnp.array_equal(score(batch.actions), score(unheard)) and not jnp.array_equal(score(batch.actions), score(heard))
names = stage_names(override(Experiment(), ["pretrain.beats.steps=5"]))
print("beats" in names, bool(jnp.isfinite(loss.value())), bool(same))
"""
TRY_DATA = """
from pathlib import Path
from gapt_jax.tasks.accompaniment.config import DataConfig
from gapt_jax.tasks.accompaniment.domain import open_songs
data = DataConfig(mixture=(("grammar_minor", 1.0),), out_of_domain=(), max_frames=16)
corpus = open_songs(data, Path("prepared"))
batch = next(corpus.training_batches(batch_size=4, seed=0, transpose=True))
print(len(corpus.split("grammar_minor", "train").ids), batch.context.shape)
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def apply(diff: str, root: Path) -> None:
    """Puts the + lines of each hunk beside its context, which must stand once in the file."""
    for name, hunk in re.findall(r"\+\+\+ b/(\S+)\n@@[^\n]*\n(.*?)(?=--- a/|\Z)", diff, re.S):
        lines = hunk.splitlines()
        before = "".join(line[1:] + "\n" for line in lines if not line.startswith("+"))
        text = (root / name).read_text()
        assert text.count(before) == 1, f"{name}: the context of the hunk is not there once:\n{before}"
        after = "".join(line[1:] + "\n" for line in lines if not line.startswith("-"))
        (root / name).write_text(text.replace(before, after))


def run(code: str, *places: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=places[0], capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def extended(section: str, folder: Path) -> Path:
    """A copy of the package, with the folders that it links to, and the diff of a section of the page."""
    for package in ("gapt_jax", "data_pipeline", "experiments", "launch"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, symlinks=True, ignore=ignored)
    (diff,) = re.findall(r"```diff\n(.*?)```", PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0], re.S)
    apply(diff, folder)
    return folder


def test_a_rule_term_is_paid_by_its_weight(tmp_path):
    found = run(TRY, extended("A rule term", tmp_path))
    assert float(found) == -1.2000000476837158  # 8 onsets, 2 are free: 2 * -0.1 * 6 in float32


def test_a_gate_opens_by_its_rule(tmp_path):
    assert run(TRY_GATE, extended("A gate", tmp_path)).split() == ["True", "False", "True", "False"]


def test_a_phase_is_called_and_its_metrics_are_logged(tmp_path):
    names, share = run(TRY_PHASE, extended("A phase", tmp_path)).split()
    assert names.split(",")[-2:] == ["improve_discriminator", "reflect"] and float(share) == 0.5


def test_a_reward_model_is_fitted_and_sees_what_its_view_shows(tmp_path):
    assert run(TRY_REWARD, extended("A reward model", tmp_path)).split() == ["True"] * 3


def test_a_data_set_is_prepared_and_read(tmp_path):
    assert run(TRY_DATA, extended("A data set", tmp_path)).split(maxsplit=1) == ["40", "(4, 16)\n"]


def test_the_experiment_of_the_page_is_read(tmp_path):
    (code,) = blocks("python")
    (tmp_path / "mine.py").write_text(code)
    read = "from gapt_jax import experiments; e = experiments.load('mine.py:wider'); print(e.name, e.models.policy.dim)"
    assert run(read, tmp_path, ROOT).split() == ["wider", "96"]
