"""Measures a run's policy and its supervised start with a learned melody agent as partner (docs/method.md §11)."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gapt_jax import prng
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import arm_name
from gapt_jax.errors import UserError
from gapt_jax.evaluation.evaluator import Evaluator
from gapt_jax.runtime import hosts
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import read_json
from gapt_jax.tasks.accompaniment.interaction import halves, playable, social_influence
from gapt_jax.tasks.accompaniment.partner import Interplay, Player, interplay
from gapt_jax.tasks.accompaniment.task import accompaniment_of
from gapt_jax.training import run_folder
from gapt_jax.training.job import Job
from gapt_jax.training.measure import entries, evaluation_sets, evaluator_of, load_run, origin
from gapt_jax.types import Params
from gapt_jax.vocabulary import FRAMES_PER_BEAT

COUNTERFACTUALS = 16  # notes that the agent might have played, for the social influence
TABLE = {
    "note_in_chord": "note-in-chord",
    "note_in_chord_chance": "by chance",
    "vendi_independent": "Vendi, independent",
    "vendi_published": "Vendi, published",
    "switch_to_agent_before": "data's half",
    "switch_to_agent_after": "then the agent's",
    "switch_to_data_before": "agent's half",
    "switch_to_data_after": "then the data's",
    "social_influence": "influence, nats",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """A policy's run and its partner: who plays, by which rule, and who measures."""

    evaluator: Evaluator  # of the policy's run
    agent: Spec
    agent_params: Params
    validity_mask: bool

    def play(self, policy: Params, songs: Any, is_agent: np.ndarray, counterfactuals: int) -> Interplay:
        """`policy` and the agent over N songs, T = 1, with notes of the agent in the frames where `is_agent` [T]."""
        evaluator = self.evaluator
        key = prng.stream(jax.random.key(evaluator.config.seed), 0, "evaluation")
        static = {"validity_mask": self.validity_mask, "counterfactuals": counterfactuals}
        play = functools.partial(_play, evaluator.spec, self.agent, (policy, self.agent_params), **static)
        return evaluator.in_batches(lambda rows: play(rows, is_agent, key), songs.context, songs.index)

    def measure(self, policy: Params, songs: Any) -> dict[str, float]:
        """All metrics of the two playing freely, harmony around a change of partner in mid-song, social influence."""
        frames, vocabulary = songs.context.shape[1], accompaniment_of(self.evaluator.spec).vocabulary
        always, switch = np.ones(frames, bool), frames // (2 * FRAMES_PER_BEAT) * FRAMES_PER_BEAT
        free = self.play(policy, songs, always, COUNTERFACTUALS)
        melody = playable(free.melody, songs.context)
        found = self.evaluator.measure(melody, free.chords, songs.actions)
        found["social_influence"] = social_influence(free.influence, melody)
        from_agent = np.arange(frames) >= switch
        for name, is_agent in (("switch_to_agent", from_agent), ("switch_to_data", ~from_agent)):
            played = self.play(policy, songs, is_agent, 1)
            notes = playable(played.melody, songs.context)
            found[f"{name}_before"], found[f"{name}_after"] = halves(notes, played.chords, vocabulary, switch)
        return found


@functools.partial(jax.jit, static_argnames=("policy", "agent", "validity_mask", "counterfactuals"))
def _play(
    policy: Spec,
    agent: Spec,
    params: tuple[Params, Params],
    songs: tuple[jax.Array, jax.Array],
    is_agent: jax.Array,
    key: jax.Array,
    *,
    validity_mask: bool,
    counterfactuals: int,
) -> Any:
    chords, melody = (Player(spec.models.policy, spec.task) for spec in (policy, agent))
    play = functools.partial(interplay, chords, melody, validity_mask=validity_mask, counterfactuals=counterfactuals)

    def together(params: tuple[Params, Params], rows: tuple[jax.Array, jax.Array]) -> Any:
        heard, index = rows
        return play(params, heard, is_agent, index, key)

    return policy.layout.everywhere(policy.layout.each(together, params, songs))


def evaluate_with_agent(
    workdir: Path,
    agent_dir: Path,
    console: Console,
    dataset: str | None = None,
    split: str | None = None,
    sampling: str | None = None,
    step: int | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measures a run's supervised and its newest policy, or that of `step`, in play with the newest one of the melody
    agent in `agent_dir`: (what was measured, the file it was added to, ``evaluation-agent.json`` of the run).

    Both play by the sampling rule of the policy's run, or by `sampling`. The songs give lengths, and half of the melody
    where the partner changes; data has no partner, so it is not among the systems.
    """
    job, upstream, (step, policy) = load_run(workdir, console, step)
    agent, _, (agent_step, agent_policy) = load_run(agent_dir, console, None)
    _check_partners(job, agent)
    experiment = job.experiment
    sampling = sampling or experiment.evaluation.sampling
    evaluator = dataclasses.replace(evaluator_of(job, upstream), before_batch=hosts.stop_if_told)
    table = Table(evaluator, agent.spec, agent_policy, sampling == "masked")
    own = dict(evaluation_sets(experiment))
    sets = {dataset: split or own.get(dataset, "test")} if dataset else {d: split or s for d, s in own.items()}
    systems: dict[str, dict[str, Any]] = {"mle": {}, arm_name(experiment): {}}
    for name, part in sets.items():
        songs = job.corpus.evaluation_songs(name, part, experiment.evaluation.songs)
        for system, params in zip(systems, (upstream.policy, policy), strict=True):
            systems[system][f"{name}/{part}"] = entries(table.measure(params, songs), len(songs.ids))
    result = {
        **origin(job, step, sampling),
        "agent": {
            "run": str(agent.workdir),
            "step": agent_step,
            "config_hash": read_json(agent.workdir / "run.json", "gapt run")["config_hash"],
        },
        "counterfactuals": COUNTERFACTUALS,
        "systems": systems,
    }
    path = job.workdir / "evaluation-agent.json"
    if hosts.is_first():
        if path.exists() and _circumstances(read_json(path, "gapt evaluate")) != _circumstances(result):
            path.unlink()  # of another partner or rule: nothing to add to
        run_folder.add_results(path, result, ("systems",))
    _show(result, console)
    return result, path


def _circumstances(result: dict[str, Any]) -> tuple[Any, ...]:
    return result.get("agent"), result.get("sampling"), result.get("counterfactuals")


def _check_partners(job: Job, agent: Job) -> None:
    """One plays chords and the other the melody, with the same tokens and in songs of a length that both can play."""
    if accompaniment_of(job.spec).part != "chords":
        raise UserError(f"{job.workdir} is a melody agent: give the run of a chord policy, and this one as --agent")
    if accompaniment_of(agent.spec).part != "melody":
        raise UserError(f"{agent.workdir} plays chords: --agent takes a run whose data.part is melody")
    if agent.spec.task.facts() != job.spec.task.facts():
        raise UserError(
            f"{agent.workdir} has another vocabulary than {job.workdir}: copy vocabulary.json of one into the empty "
            "folder of the other before training it"
        )


def _show(result: dict[str, Any], console: Console) -> None:
    systems = result["systems"]
    for dataset in next(iter(systems.values())):
        rows = [[system, *(_cell(sets[dataset].get(m)) for m in TABLE)] for system, sets in systems.items()]
        songs = systems["mle"][dataset]["note_in_chord"]["n_songs"]
        title = f"{dataset} with the melody agent, {songs} songs, T = 1, {result['sampling']} sampling"
        console.table(title, ["system", *TABLE.values()], rows)


def _cell(metric: dict[str, Any] | None) -> str:
    value = metric and metric["mean"]
    return "–" if value is None else f"{value:.3f}"
