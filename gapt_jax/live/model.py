"""A policy as the live engine uses it: from a bundle, or straight from a run."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax import models
from gapt_jax.config import ModelsConfig
from gapt_jax.errors import UserError
from gapt_jax.export.functions import Functions, flatten
from gapt_jax.export.manifest import read_manifest
from gapt_jax.export.network import read_playing, read_weights
from gapt_jax.export.verify import FUNCTIONS, MANIFEST, STATE_ARGUMENT, past
from gapt_jax.live.intro import Intro, make_intro
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import stage_warnings
from gapt_jax.task import Task
from gapt_jax.tasks.accompaniment.task import Accompaniment, accompaniment
from gapt_jax.training.saved import SavedPolicy, load_anchor, load_policy
from gapt_jax.vocabulary import Vocabulary

MOST_AHEAD = 32  # frames of a plan
LEAST_PLANNED = 2  # frames that are planned in a tick at least: the one that has begun, and the next
_TIMED = 7  # passes through the network that its time is the median of

State = dict[str, Any]


def copied(state: State) -> State:
    """The state in buffers of its own: `committed` and `planned` use up what they get."""
    return {name: jnp.array(array) for name, array in state.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class LiveModel:
    """The functions of one policy, its weights on the device. Calls must come from one thread at a time."""

    name: str
    system: str
    weights_sha256: str
    task: Task
    frames: int  # that a session of the network may hold
    weights: Any
    functions: dict[str, Callable[..., Any]]
    intro: Intro | None = None  # who plays to the silent beats in the policy's place

    @property
    def vocabulary(self) -> Vocabulary:
        """Of a policy that plays chords."""
        return accompaniment(self.task).vocabulary

    @functools.cached_property
    def held(self) -> list[int]:
        """Of each token the one by which it goes on in the next frame."""
        return list(self.task.going_on.tolist())

    @property
    def most_ahead(self) -> int:
        """Frames that a plan may have."""
        return min(MOST_AHEAD, self.frames // 2)

    @property
    def window(self) -> int:
        """Frames that the network remembers at most; the rest of its session is for plans."""
        return self.frames - self.most_ahead

    def empty(self) -> tuple[Any, State]:
        """(logits of the first action, state) of a session without frames."""
        logits, state = self._empty
        return logits, copied(state)

    @functools.cached_property
    def _empty(self) -> tuple[Any, State]:
        return self.prefilled([], [])

    def prefilled(self, actions: list[int], context: list[int]) -> tuple[Any, State]:
        """(logits of the next action, state) after these frames, at most `window` of them."""
        padded = np.zeros((2, 1, self.window), np.int32)
        padded[:, 0, : len(actions)] = actions, context
        logits, state = self.functions["prefill"](self.weights, *padded, np.int32(len(actions)))
        return logits, past(state)

    def committed(self, action: int, heard: int, state: State) -> tuple[Any, State]:
        """(logits of the next action, state) after one frame more; uses up `state`."""
        one, other = np.array([action], np.int32), np.array([heard], np.int32)
        logits, state = self.functions["commit_frame"](self.weights, one, other, state)
        return logits, past(state)

    def planned(
        self,
        logits: Any,
        action: int,
        heard: int,
        given: np.ndarray,
        uniforms: np.ndarray,
        temperature: float,
        is_masked: bool,
        state: State,
    ) -> tuple[np.ndarray, np.ndarray, State]:
        """Actions [K] of the next frames, `given` [K] (-1: free) with `uniforms` [K, 2]; the context imagined under all
        but the last [K - 1]; the state that holds these. Uses up `state`."""
        room = (0, MOST_AHEAD - len(given))
        actions, context, state = self.functions["plan"](
            self.weights,
            logits,
            np.array([action], np.int32),
            np.array([heard], np.int32),
            np.pad(given, room, constant_values=-1)[None].astype(np.int32),
            np.pad(uniforms, (room, (0, 0)))[None].astype(np.float32),
            np.int32(len(given)),
            np.float32(temperature),
            np.bool_(is_masked),
            state,
        )
        return np.asarray(actions)[0, : len(given)], np.asarray(context)[0, : len(given) - 1], past(state)

    def warm_up(self) -> None:
        """Compiles everything that a session can ask for."""
        rest = self.task.rest
        logits, state = self.empty()
        logits, state = self.committed(rest, rest, state)
        self.planned(logits, rest, rest, np.full(1, -1, np.int32), np.zeros((1, 2), np.float32), 1, True, state)
        _ = self.pass_seconds
        if self.intro:
            self.intro([rest], 0)

    @functools.cached_property
    def pass_seconds(self) -> float:
        """What a frame takes to pass through the network on this machine."""
        rest = self.task.rest
        logits, state = self.empty()
        seconds = []
        for _ in range(_TIMED):
            began = time.perf_counter()
            logits, state = self.committed(rest, rest, state)
            jax.block_until_ready(logits)
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds))

    def affordable(self, seconds: float) -> int:
        """Frames that can be planned within a frame of so many seconds, whatever the policy plays: two passes each,
        and two to commit."""
        return max(LEAST_PLANNED, min(MOST_AHEAD, int(seconds / self.pass_seconds / 2 - 1)))


def open_model(path: Path, console: Console) -> LiveModel:
    """The policy of a bundle or of a run, named by its folder."""
    if (path / MANIFEST).is_file():
        return _of_bundle(path)
    if (path / "config.json").is_file():
        return _of_run(path, console)
    raise UserError(f"{path} is neither a bundle nor a run: give a folder that gapt export or gapt run wrote")


def open_models(paths: Sequence[Path], console: Console, names: Sequence[str] = ()) -> list[LiveModel]:
    """The policies of some folders, each by a name of its own: the folder's, or that of `names` in its place."""
    found: list[LiveModel] = []
    for path, name in itertools.zip_longest(paths, names):
        console.say(f"loading {path}")
        model = open_model(path, console)
        model = dataclasses.replace(model, name=name or model.name)
        if model.name in {other.name for other in found}:
            raise UserError(f"two folders are called {model.name}, as their models would be: rename one")
        found.append(model)
    return found


def _of_bundle(folder: Path) -> LiveModel:
    """Its network built anew: nothing that was compiled when the bundle was made is run, so its age does not matter."""
    manifest, playing = read_manifest(folder), read_playing(folder)
    weights = jax.device_put(read_weights(folder, playing))
    known = {
        "name": folder.resolve().name,
        "system": manifest["origin"]["system"],
        "digest": manifest["weights_sha256"],
    }
    task, depth = Accompaniment(playing.vocabulary), playing.config.depth
    return of_network(playing.network, weights, task, depth, playing.frames, **known)


def _of_run(workdir: Path, console: Console) -> LiveModel:
    """A chord policy, with its anchor for the silent beats."""
    policy = load_policy(workdir, console)
    for warning in stage_warnings(workdir):
        console.warn(warning)
    task = accompaniment(policy.task)
    if task.part != "chords":
        raise UserError(f"{workdir} is a melody agent: play with the run of a chord policy")
    found, anchor = of_policy(policy, workdir.resolve().name), load_anchor(workdir, console)
    if anchor is None:
        return found
    network = models.build(in_float32(policy), task.vocab_size).anchor
    return dataclasses.replace(found, intro=make_intro(network, jax.device_put(anchor), task.vocabulary.tables))


def in_float32(policy: SavedPolicy) -> ModelsConfig:
    """The networks of a run as they play live."""
    return dataclasses.replace(policy.experiment.models, compute_dtype="float32")


def of_policy(policy: SavedPolicy, name: str) -> LiveModel:
    """The policy of a run, of any task."""
    config, frames = policy.experiment.models.policy, policy.experiment.data.max_frames
    network = models.build(in_float32(policy), policy.task.vocab_size).policy
    weights = {name: jnp.asarray(array, jnp.float32) for name, array in flatten(policy.params).items()}
    digest = hashlib.sha256()
    for path, array in sorted(weights.items()):
        digest.update(path.encode() + b"\0" + np.asarray(array).tobytes())
    known = {"name": name, "system": policy.system, "digest": digest.hexdigest()}
    return of_network(network, weights, policy.task, config.depth, frames, **known)


def of_network(
    network: models.Model,
    weights: dict[str, jax.Array],
    task: Task,
    layers: int,
    frames: int,
    *,
    name: str,
    system: str = "random",
    digest: str = "",
) -> LiveModel:
    """A policy by its network and flat weights, whose sessions hold so many frames."""
    functions = Functions(network, task, layers, 1 + 2 * frames)
    compiled: dict[str, Callable[..., Any]]
    compiled = {n: jax.jit(getattr(functions, n), donate_argnums=STATE_ARGUMENT.get(n, ())) for n in FUNCTIONS}
    return LiveModel(name, system, digest, task, frames, weights, compiled)
