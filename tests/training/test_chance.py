"""A supervised stage that ends at chance says so, and so does all that comes after it."""

import dataclasses
import json

import jax.numpy as jnp
import pytest

from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import stage_warnings
from gapt_jax.training import pretrain, run_folder
from gapt_jax.training.stages import run_stage
from tests.training.test_resume import RUNTIME, STAGE, Songs, songs

SENTENCE = "the stage 'policy' has learnt nothing: its loss on held-out songs is"


def ending(guess: float):
    """The toy stage, where guessing would have this loss."""
    return dataclasses.replace(STAGE, fit=dataclasses.replace(STAGE.fit, guessing=lambda count: guess * count / 4))


@pytest.mark.parametrize(("guess", "is_at_chance"), [(1e-6, True), (1e6, False)])
def test_a_stage_at_chance_warns_when_it_ends_and_when_it_is_reused(tmp_path, capsys, guess, is_at_chance):
    one = ending(guess)
    run_stage(one, tmp_path / "stages", Songs(), songs(4, 99), RUNTIME, Console())
    assert (SENTENCE in capsys.readouterr().out) == is_at_chance
    run_stage(one, tmp_path / "stages", Songs(), songs(4, 99), RUNTIME, Console())
    assert (SENTENCE in capsys.readouterr().out) == is_at_chance
    facts = json.loads((one.folder(tmp_path / "stages") / "done.json").read_text())
    assert ("warning" in facts) == is_at_chance
    workdir = tmp_path / "run"
    workdir.mkdir()
    run_folder.keep_stages(workdir, [one.folder(tmp_path / "stages")])
    assert [text.startswith(SENTENCE) for text in stage_warnings(workdir)] == [True] * is_at_chance


def test_one_member_at_chance_is_enough():
    frames = songs(1, 0).context.shape[1]
    params = {"weights": jnp.stack([jnp.zeros(frames), jnp.ones(frames)])}
    mean = pretrain.validate(STAGE.fit, params, songs(4, 99))["valid/loss"]
    assert float(pretrain.worst_loss(STAGE.fit, params, songs(4, 99))) > 1.5 * float(mean)
