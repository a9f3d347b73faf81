"""The finished stages that a run keeps for itself, and by which names it finds those of others."""

from pathlib import Path
from types import SimpleNamespace

from gapt_jax import models
from gapt_jax.algorithm.state import Spec
from gapt_jax.evaluation.results import flatten
from gapt_jax.experiments.smoke import smoke
from gapt_jax.overrides import override
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training import run_folder
from gapt_jax.training.job import Job, stages_of
from gapt_jax.training.post_training import checkpoint_facts
from tests.buckets import only_files_are_renamed


def test_stages_are_kept_whole_though_no_folder_can_be_renamed(tmp_path, monkeypatch):
    stage, kept = tmp_path / "stages" / "policy-1", tmp_path / "run" / "upstream" / "policy-1"
    for folder, name in ((stage, "whole"), (kept, "half")):  # kept: what an interrupted attempt has left
        (folder / "params" / "d").mkdir(parents=True)
        (folder / "params" / "d" / name).write_text(name)
    (stage / "done.json").write_text("{}")
    tried = only_files_are_renamed(monkeypatch, tmp_path)
    run_folder.keep_stages(tmp_path / "run", [stage])
    files = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    assert files == ["done.json", "params/d/whole"] and not tried
    (stage / "done.json").unlink()  # a second time nothing is read
    run_folder.keep_stages(tmp_path / "run", [stage])


def test_stages_of_runs_before_crops_began_on_bars_are_found_again(vocabulary):
    def named(*settings):
        experiment, task = override(smoke(), settings), Accompaniment(vocabulary)
        spec = Spec(models.build(experiment.models, task.vocab_size, task.reward_models), experiment.algorithm, task)
        job = Job(experiment, Path(), SimpleNamespace(fingerprint="f"), spec, spec.layout, Console())
        return [stage.folder(Path()) for stage in stages_of(job)], [stage.identity["data"] for stage in stages_of(job)]

    folders, data = named()
    assert {"mixture", "max_frames", "chord_coverage", "transpose"} == set(data[0])
    assert not set(folders) & set(named("data.crops_on=bars")[0])


def test_checkpoints_of_runs_from_before_an_option_may_be_gone_on_from(vocabulary):
    """The facts that must match name no later setting that is off."""

    def facts(*settings):
        algorithm = override(smoke(), settings).algorithm
        return checkpoint_facts(Spec(None, algorithm, Accompaniment(vocabulary)))["config"]

    later = {path.removeprefix("algorithm.") for path in run_folder.LATER_SETTINGS if path.startswith("algorithm.")}
    assert len(later) > 5 and not later & set(flatten(facts()))
    assert set(flatten(facts("algorithm.critic_warmup_steps=3"))) & later == {"critic_warmup_steps"}
    assert facts() != facts("algorithm.discriminator.screened=0.5")
