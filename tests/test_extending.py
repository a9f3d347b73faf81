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
from gapt_jax.config import Experiment, override
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import Vocabulary
vocabulary = Vocabulary.from_qualities([(0, 4, 7)])
chords = jnp.full((1, 8), vocabulary.chord_onset)
found = Accompaniment(vocabulary).rule_terms(jnp.full((1, 8), 200), chords, jnp.ones((1, 8)))
terms = {"dense": found["dense"]}
weights = hyperparameters(override(Experiment(), ["algorithm.rewards.dense=2"]).algorithm).reward_weights
print(float(rewards.weighted_sum(weights, terms).sum()))
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


def test_a_rule_term_is_paid_by_its_weight(tmp_path):
    shutil.copytree(ROOT / "gapt_jax", tmp_path / "gapt_jax", ignore=shutil.ignore_patterns("__pycache__"))
    (diff,) = blocks("diff")
    apply(diff, tmp_path)
    assert float(run(TRY, tmp_path)) == -1.2000000476837158  # 8 onsets, 2 are free: 2 * -0.1 * 6 in float32


def test_the_experiment_of_the_page_is_read(tmp_path):
    (code,) = blocks("python")
    (tmp_path / "mine.py").write_text(code)
    read = "import experiments; e = experiments.load('mine.py:wider'); print(e.name, e.models.policy.dim)"
    assert run(read, tmp_path, ROOT).split() == ["wider", "96"]
