"""Suites of measured programs, with synthetic inputs, random weights and random songs without a rest."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax import models, prng
from gapt_jax.algorithm import learner, population, supervised
from gapt_jax.algorithm.layout import ONE_DEVICE, Layout
from gapt_jax.algorithm.rollout import roll_out
from gapt_jax.algorithm.state import Frozen, LearnerState, Spec, init_state, state_in
from gapt_jax.benchmark.measure import Case, Program, fed_back
from gapt_jax.config import Dtype, MeshConfig
from gapt_jax.evaluation import evaluator as evaluators
from gapt_jax.models import Model
from gapt_jax.runtime import mesh as meshes
from gapt_jax.runtime.mesh import MeshLayout, MeshMembers
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig, Experiment
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training import pretrain
from gapt_jax.types import Batch, Params
from gapt_jax.vocabulary import CHORD_HOLD, FRAMES_PER_BEAT, NOTE_HOLD, NOTE_ONSET, NUM_PITCHES, Vocabulary

ROLLOUT_BATCHES = (1, 8, 32)
NETWORKS = ("policy", "anchor", "reward", "discriminator")


@dataclass(frozen=True)
class Size:
    """An experiment as it is measured; `most_songs` limits its batches where a CPU would need minutes for them."""

    name: str
    experiment: Experiment
    vocabulary: Vocabulary
    most_songs: int | None = None
    layout: Layout = ONE_DEVICE
    rollout_frames: int | None = None  # of the decoding loop alone; None = those of the experiment
    has_kernel: bool = False  # whether rollouts decode by the compiled kernel

    @classmethod
    def of(
        cls,
        name: str,
        experiment: Experiment,
        qualities: int,
        dtype: Dtype,
        most_songs: int | None,
        rollout_frames: int | None = None,
        *,
        has_kernel: bool = False,
    ) -> Size:
        """On the first device. `qualities` are interval sets of the vocabulary; all networks compute in `dtype`.

        Where songs are limited, gradients are computed song by song: a CPU's caches hold no more.
        """
        networks = dataclasses.replace(experiment.models, compute_dtype=dtype)
        experiment = dataclasses.replace(experiment, models=networks)
        layout = Layout(1 if most_songs else experiment.runtime.microbatch_rows)
        return cls(name, experiment, Vocabulary.synthetic(qualities), most_songs, layout, rollout_frames, has_kernel)

    def spread(self) -> Size:
        """Over all devices, as a run is."""
        mesh = meshes.build(MeshConfig())
        return dataclasses.replace(self, layout=MeshLayout(self.layout.microbatch_rows, mesh=mesh))

    def compiled(self, traced: Any) -> Program:
        return Program(traced, self.layout.devices)

    def songs(self, usual: int) -> int:
        return min(usual, self.most_songs or usual)

    def prefix(self, usual: int) -> str:
        """Of the names of rows: it says so where the batch is not the usual one."""
        songs = self.songs(usual)
        return self.name if songs == usual else f"{self.name}/batch={songs}"

    @functools.cached_property
    def algorithm(self) -> AlgorithmConfig:
        """With fewer songs, as many fewer gradient steps of the discriminator: the same work per song."""
        config = self.experiment.algorithm
        songs, adversary = self.songs(config.batch_size), config.discriminator
        if songs == config.batch_size:
            return config
        pairs = adversary.steps_per_update * adversary.minibatch_size * songs // config.batch_size
        rows = min(songs, adversary.minibatch_size)
        adversary = dataclasses.replace(adversary, minibatch_size=rows, steps_per_update=max(1, pairs // rows))
        rows = min(songs, config.minibatch_size)
        return dataclasses.replace(config, batch_size=songs, minibatch_size=rows, discriminator=adversary)

    @functools.cached_property
    def spec(self) -> Spec:
        task = Accompaniment(self.vocabulary)
        networks = models.build(self.experiment.models, task.vocab_size, task.reward_models, has_kernel=self.has_kernel)
        return Spec(networks, self.algorithm, task, self.layout)

    @property
    def frames(self) -> int:
        """T of one song."""
        return self.experiment.data.max_frames

    def batch(self, songs: int, frames: int | None = None) -> Batch:
        """Random songs of full length: a note a beat, a chord every two beats."""
        frames = frames or self.frames
        rng, frame = np.random.default_rng(0), np.arange(frames)

        def part(hold: int, onset: int, kinds: int, length: int) -> np.ndarray:
            drawn = rng.integers(0, kinds, (songs, -(-frames // length))).repeat(length, axis=1)
            return (np.where(frame % length == 0, onset, hold) + drawn[:, :frames]).astype(np.int32)

        melody = part(NOTE_HOLD, NOTE_ONSET, NUM_PITCHES, FRAMES_PER_BEAT)
        chords = part(CHORD_HOLD, self.vocabulary.chord_onset, self.vocabulary.num_chords, 2 * FRAMES_PER_BEAT)
        return Batch(melody, chords, np.arange(songs, dtype=np.int32))


def weights(model: Model, seed: int) -> Params:
    return model.init(jax.random.key(seed))  # not jitted: layers of one shape then compile once


def learner_inputs(size: Size) -> tuple[LearnerState, Frozen, Batch]:
    """A first state whose discriminator learns at every step, random frozen models, and songs."""
    spec, count = size.spec, size.experiment.pretrain.members
    state = init_state(spec, weights(spec.models.policy, 0), 0, size.frames)
    hyper = dataclasses.replace(state.hyper, gate_threshold=jnp.float32(-jnp.inf))
    state = dataclasses.replace(state, hyper=hyper, recent_rewards=jnp.zeros_like(state.recent_rewards))
    keys = jax.random.split(jax.random.key(1), count)
    used = [name for name in spec.models.rewards if getattr(spec.config.rewards, name) > 0]
    members = {name: jax.vmap(spec.models.rewards[name].init)(keys) for name in used}
    anchor = {"offline": spec.models.anchor, "online": spec.models.policy, "none": None}[spec.config.anchor]
    frozen = Frozen(anchor and weights(anchor, 2), members)
    return *on_devices(size, (state, frozen)), placed(size, spec.config.batch_size)


def on_devices(size: Size, tree: Any) -> Any:
    """The tree, whole on every device of the size."""
    return jax.jit(size.layout.everywhere)(tree)


def placed(size: Size, songs: int) -> Batch:
    return jax.device_put(size.layout.place(size.batch(songs), songs))


class Iteration:
    """The phases, compiled ahead. All go on from one state: an update donates it and leaves the next."""

    def __init__(self, size: Size):
        self._size, self.programs, self._inputs = size, dict[str, Program](), dict[str, tuple[Any, ...]]()
        self.state, self._frozen, self._batch = learner_inputs(size)
        self.whole()

    def _call(self, phase: Any, spec: Spec, state: LearnerState, *inputs: Any) -> Any:
        name = phase.__name__
        if name not in self.programs:  # for inputs as the phases before it leave them on the devices
            self.programs[name] = self._size.compiled(phase.trace(spec, state, *inputs))
        self._inputs[name] = inputs
        return self._run(name, state)

    def _run(self, name: str, state: LearnerState) -> Any:
        outputs = self.programs[name](state, *self._inputs[name])
        self.state = state_in(outputs) or state
        return outputs

    def alone(self, name: str) -> Any:
        """The phase once more, with the inputs that it had."""
        return self._run(name, self.state)

    def whole(self) -> Any:
        return learner.iteration(self._size.spec, self.state, self._frozen, self._batch, self._call)


def rollout_cases(size: Size) -> Iterator[Case]:
    """The decoding loop alone, as it is configured."""
    spec, policy = size.spec, weights(size.spec.models.policy, 0)
    masked, frames = spec.config.validity_mask, size.rollout_frames or size.frames

    @jax.jit
    def play(params: Params, songs: Batch, key: jax.Array) -> Any:
        network, task = spec.models.policy, spec.task
        return roll_out(network, params, songs.context, songs.index, key, task, validity_mask=masked)

    for songs in ROLLOUT_BATCHES:
        inputs = policy, jax.device_put(size.batch(songs, frames)), jax.random.key(0)
        program = Program(play.trace(*inputs))
        note = f"{songs} × {frames} frames, V {size.vocabulary.size}" + ", valid tokens only" * masked
        run = functools.partial(program, *inputs)
        yield Case(f"rollout/{size.name}/batch={songs}", run, [program], songs * frames, note)


def iteration_cases(size: Size) -> Iterator[Case]:
    """The phases of post-training, and all of them in a row."""
    config = size.algorithm
    prefix = f"iteration/{size.prefix(size.experiment.algorithm.batch_size)}"
    frames, minibatches = config.batch_size * size.frames, config.batch_size // config.minibatch_size
    songs = f"{config.batch_size} × {size.frames} frames, V {size.vocabulary.size}"
    adversary = config.discriminator
    steps = f"gate open, {adversary.steps_per_update} steps of {adversary.minibatch_size} pairs"
    updates = f"{config.epochs * minibatches} minibatches of {config.minibatch_size}"
    extra = {"improve_policy": f", {updates}", "improve_discriminator": f", {steps}"}
    iteration = Iteration(size)
    for name, program in iteration.programs.items():
        yield Case(
            f"{prefix}/{name}", functools.partial(iteration.alone, name), [program], frames, songs + extra.get(name, "")
        )
    programs = list(iteration.programs.values())
    yield Case(f"{prefix}/all", iteration.whole, programs, frames, f"{songs}, {updates}, {steps}")


def train_cases(size: Size) -> Iterator[Case]:
    """One optimiser step of each kind of supervised stage."""
    networks, fits, rewards = size.spec.models, size.experiment.pretrain, size.spec.task.reward_models
    judges = networks.rewards

    def of_reward(name: str) -> tuple[Model, supervised.Loss]:
        return judges[name], rewards[name].loss(judges[name])

    stages = {
        "policy": (networks.policy, supervised.policy_loss(networks), None),
        "anchor": (networks.anchor, supervised.anchor_loss(networks), None),
        "contrastive": (*of_reward("contrastive"), fits.members + fits.held_out),
        "discriminative": (*of_reward("discriminative"), fits.members),
    }
    for name, (network, loss, members) in stages.items():
        usual = getattr(fits, name)
        config = dataclasses.replace(usual, batch_size=size.songs(usual.batch_size))
        fit = pretrain.Fit(loss, config, members, size.spec.layout)
        state = on_devices(size, pretrain.init_fit(fit, network.init, 0))
        batch = placed(size, fit.rows)
        traced = pretrain.fit_step.trace(fit, state, batch)
        program = Program(traced) if members else size.compiled(traced)  # of members, the compiler divides the work
        note = f"{config.batch_size} × {size.frames} frames" + f" for each of {members} members" * bool(members)
        run, frames = fed_back(program, state, batch), fit.rows * size.frames
        yield Case(f"train/{size.prefix(usual.batch_size)}/{name}", run, [program], frames, note)


def evaluation_cases(size: Size) -> Iterator[Case]:
    """What an `Evaluator` computes on a batch of songs, and by the clock `measure` with its work on the host."""
    state, frozen, _ = learner_inputs(size)
    spec, policy, config = size.spec, state.policy, size.experiment.evaluation
    songs, prefix = size.songs(config.batch_size), f"evaluation/{size.prefix(config.batch_size)}"
    is_masked = config.sampling == "masked"
    batch = placed(size, songs)
    reference, encoder = on_devices(
        size, (weights(spec.models.policy, 3), weights(spec.models.rewards["contrastive"], 4))
    )
    pairs, key = (batch.context, batch.actions), prng.stream(jax.random.key(0), 0, "evaluation")
    play = evaluators._play.trace(spec, policy, (batch.context, batch.index), key, validity_mask=is_masked)
    divergence = evaluators._divergence.trace(spec, (policy, reference), pairs, validity_mask=is_masked)
    inputs: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "play": (play, (policy, (batch.context, batch.index), key)),
        "embed": (evaluators._embed.trace(spec, encoder, pairs), (encoder, pairs)),
        "divergence": (divergence, ((policy, reference), pairs)),
        "proxy": (evaluators._proxy.trace(spec, frozen.rewards, pairs), (frozen.rewards, pairs)),
    }
    note, frames = f"{songs} × {size.frames} frames", songs * size.frames
    for name, (traced, arguments) in inputs.items():
        program = size.compiled(traced)
        yield Case(f"{prefix}/{name}", functools.partial(program, *arguments), [program], frames, note)
    whole = dataclasses.replace(config, batch_size=songs)
    evaluator = evaluators.Evaluator(spec, {"independent": encoder}, whole, frozen.rewards, reference)
    melody, chords = (np.asarray(x) for x in pairs)
    run = functools.partial(evaluator.measure, melody, chords, chords, policy)
    yield Case(f"{prefix}/measure", run, (), frames, f"{note}, with the metrics on the host")


def growth_cases(size: Size) -> Iterator[Case]:
    """A whole iteration as one program, as a population computes it, then with one dimension after the other doubled;
    with the songs of a batch, the gradient steps are doubled too."""
    experiment = size.experiment
    algorithm, data = experiment.algorithm, experiment.data
    adversary = algorithm.discriminator
    steps = dataclasses.replace(adversary, steps_per_update=2 * adversary.steps_per_update)
    more_songs = dataclasses.replace(algorithm, batch_size=2 * algorithm.batch_size, discriminator=steps)
    stacks = {name: getattr(experiment.models, name) for name in NETWORKS}

    def networks(change: Mapping[str, Any]) -> Experiment:
        return dataclasses.replace(experiment, models=dataclasses.replace(experiment.models, **change))

    wide = {n: dataclasses.replace(s, dim=2 * s.dim, heads=2 * s.heads) for n, s in stacks.items()}
    deep = {n: dataclasses.replace(s, depth=2 * s.depth) for n, s in stacks.items()}
    doubled = {
        "base": experiment,
        "batch": dataclasses.replace(experiment, algorithm=more_songs),
        "frames": dataclasses.replace(experiment, data=dataclasses.replace(data, max_frames=2 * data.max_frames)),
        "width": networks(wide),
        "depth": networks(deep),
        "members": experiment,
    }
    for name, grown in doubled.items():
        case = _population_case(dataclasses.replace(size, experiment=grown), 2 if name == "members" else 1)
        yield dataclasses.replace(
            case,
            name=f"growth/{size.name}/{name}",
            note=f"{case.note}, gate open" if name == "base" else f"twice the {name} of base",
            grown_from=None if name == "base" else f"growth/{size.name}/base",
        )


def _population_case(size: Size, members: int) -> Case:
    single = meshes.build(MeshConfig(data=1), jax.devices()[:1])
    spread = MeshMembers.of(meshes.split(single, members))
    spec = dataclasses.replace(size.spec, layout=spread.layout(size.layout.microbatch_rows))
    state, frozen, batch = learner_inputs(size)

    def stacked(tree: Any) -> Any:
        return spread.place(jax.tree.map(lambda x: np.stack([np.asarray(x)] * members), tree))

    states, batches, frozen = stacked(state), stacked(batch), spread.everywhere(frozen)
    program = Program(population.iteration.trace(spec, spread, states, frozen, batches))
    songs = members * size.algorithm.batch_size
    note = f"{songs} × {size.frames} frames"
    return Case("", fed_back(program, states, frozen, batches), [program], songs * size.frames, note)


SUITES = {
    "rollout": rollout_cases,
    "iteration": iteration_cases,
    "train": train_cases,
    "evaluation": evaluation_cases,
    "growth": growth_cases,
}
