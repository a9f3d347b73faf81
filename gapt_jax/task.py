"""The door between the method and a domain: what the core asks of one, and nothing else about it.

In each frame the agent emits one token, its action, and then hears one, its context. `gapt_jax.tasks` has the domains;
the core imports none of them: an experiment carries its own. B or N examples, T frames, V tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax.errors import UserError
from gapt_jax.types import Batch, Params

PAD, BOS, EOS = 0, 1, 2  # the first token ids of every task; PAD fills up an example after its end


class Metric(NamedTuple):
    """How to print and read one number."""

    label: str
    unit: str
    better: Literal["higher", "lower", "near data"]
    explanation: str
    depends_on_n: bool = False  # on the number of songs, so that only equal numbers compare
    chance: str = ""  # the metric that says how much of it comes for nothing


@dataclasses.dataclass(frozen=True)
class Collapse:
    """What λ = 0 must lose of the supervised policy's independent Vendi for a verdict to mean anything: so many, or
    (`is_share`) such a share of it."""

    amount: float
    is_share: bool = False

    def of(self, supervised: float) -> float:
        """The loss where the supervised policy has this Vendi."""
        return self.amount * supervised if self.is_share else self.amount

    def __str__(self) -> str:
        return f"{self.amount:.0%}" if self.is_share else f"{self.amount:g}"


class RewardModel(Protocol):
    """A learned judge of pairs: pure functions, called inside compiled ones (`algorithm.reward_models` has two)."""

    @property
    def augmented(self) -> bool:
        """Whether it learns from augmented batches."""

    def network(self, config: Any, **settings: Any) -> Any:
        """The Flax NNX module of a `config.TransformerConfig`, with the settings dtype, remat and rngs."""

    def loss(self, model: Any) -> Any:
        """The supervised loss (`algorithm.supervised.Loss`) of its network, a `models.Model`."""

    def guessing(self, examples: int) -> float:
        """The loss of one who guesses among so many examples."""

    def score(self, model: Any, params: Params, context: jax.Array, actions: jax.Array) -> jax.Array:
        """[B] float32: how well these parts fit, by one member."""


@runtime_checkable
class Encoder(RewardModel, Protocol):
    """A reward model by whose embeddings diversity can be measured: `RewardsConfig.ENCODER` names that of a task."""

    def embed(self, model: Any, params: Params, context: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """([B, D] embedding of the actions, [B] its similarity to that of the context)."""


class Task(Protocol):
    """A domain whose tokens are known. A task inherits what it does not say: no rules, no role, nothing to count."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """V."""

    @property
    @abstractmethod
    def rest(self) -> int:
        """The token that stands for the action before the first frame."""

    @property
    @abstractmethod
    def reward_models(self) -> Mapping[str, RewardModel]:
        """By the names of their terms in the reward, in the order in which they are fitted."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """What the tokens mean; stored with every checkpoint, which only a task of the same facts reads."""

    @property
    def identity(self) -> dict[str, str]:
        """The same, short."""
        return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in self.facts().items()}

    @property
    def role(self) -> dict[str, str]:
        """What tells agents of the same tokens apart, such as the part that they play; usually nothing."""
        return {}

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what `Domain.load` reads into the folder of a run."""

    def valid_actions(self, previous: jax.Array) -> jax.Array:
        """[...] previous action -> [..., V] bool: the tokens that may follow it."""
        return jnp.ones((*previous.shape, self.vocab_size), bool)

    def valid_context(self, previous: jax.Array) -> jax.Array:
        """[...] previous context -> [..., V] bool: what may be heard after it, which plans of live play imagine."""
        return jnp.ones((*previous.shape, self.vocab_size), bool)

    @property
    def going_on(self) -> np.ndarray:
        """[V] int32: of each token the one by which it goes on in the next frame."""
        return np.arange(self.vocab_size, dtype=np.int32)

    def rule_terms(self, context: jax.Array, actions: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        """Penalties [B, T] float32 by name, before their weights; `mask` [B, T] is 1 where an action counts."""
        return {}

    def is_valid(self, actions: jax.Array, mask: jax.Array) -> jax.Array:
        """[B] bool: examples whose actions can be decoded."""
        return jnp.ones(len(actions), bool)

    @abstractmethod
    def measure(self, context: np.ndarray, actions: np.ndarray, data: np.ndarray) -> dict[str, float]:
        """The task's own metrics of actions [N, T] beside those of the data for the same context; NaN = undefined."""

    def counts(self, context: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Numbers [N] of each song by name, out of which `Domain.statistics` are made."""
        return {}


class Corpus(Protocol):
    """Opened data, a function of its settings and a seed."""

    @property
    def fingerprint(self) -> str:
        """Of all data together."""

    def training_batches(
        self, *, batch_size: int, seed: int, augment: bool, start: int = 0, rows: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Endless batches from number `start` on, of each only the `rows` that this host wants."""

    def evaluation_songs(self, dataset: str, split: str, max_songs: int) -> Any:
        """Fixed examples: `context` and `actions` [N, T], `ids` and `index` [N]; and `seen` [N] bool where it is known
        which of them training hears too."""


class Opened(NamedTuple):
    """What opening the data of an experiment gives."""

    task: Task
    corpus: Corpus
    facts: Mapping[str, Any] = types.MappingProxyType({})  # for run.json
    warnings: Sequence[str] = ()  # for the user


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of what the agent hears, for metrics of how it adapts; a domain adds what it changes."""

    suffix: str = ""  # of the file of results; empty = the usual change, or none


class Domain(Protocol):
    """What all experiments of a task share, before any data is open. A domain inherits what it does not say."""

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Of its results, in the order of tables."""

    @property
    @abstractmethod
    def headline(self) -> Sequence[str]:
        """Metrics of a report's first table."""

    @property
    @abstractmethod
    def table(self) -> Sequence[str]:
        """Metrics of the terminal's table."""

    @property
    @abstractmethod
    def compared(self) -> Sequence[str]:
        """Metrics that a report draws for each arm."""

    @property
    @abstractmethod
    def progress(self) -> Sequence[str]:
        """What the progress bar of post-training shows."""

    @property
    @abstractmethod
    def quality(self) -> str:
        """The metric, from 0 up and higher is better, that a report sets against diversity."""

    @property
    def quality_in_words(self) -> str:
        """What `quality` counts, for readers who know no metric by its name."""
        label = self.metrics[self.quality].label
        return label[:1].lower() + label[1:]

    @property
    def examples(self) -> str:
        """What reports call its examples."""
        return "songs"

    @property
    def seen_in_words(self) -> str:
        """What its corpus means by examples that are `seen`: "3 of 512 songs" + this."""
        return "are in the training sets too"

    @property
    def after_a_run(self) -> str:
        """The command that plays a policy of this domain, with ``{run}`` for its folder; empty where there is none."""
        return ""

    @property
    def collapse(self) -> Collapse:
        """The loss of diversity without which a verdict is void (docs/verdict.md)."""
        return Collapse(0.13, is_share=True)  # the share that 0.8 songs were of accompaniment's first 6.13

    @property
    def statistics(self) -> Mapping[str, tuple[tuple[str, ...], Callable[..., float]]]:
        """Metric: (names of `counts`, function)."""
        return {}

    @property
    def symptoms(self) -> Mapping[str, tuple[Callable[..., str | None], str]]:
        """Its alarms on evaluations: `runtime.health`."""
        return {}

    @property
    def extras(self) -> Sequence[str]:
        """Names of the extra results of `again`: tables by system."""
        return ()

    @property
    def published(self) -> Sequence[Sequence[str]]:
        """A table to stand beside results, its head first; may be empty."""
        return ()

    @property
    def published_rewards(self) -> Sequence[Sequence[str]]:
        """The same for the figures of reward models."""
        return ()

    @abstractmethod
    def open(self, data: Any, folder: Path, run: Path, on_progress: Any) -> Opened:
        """Opens the data of these settings, preparing it in `folder` if need be, with the tokens of `run` where that
        folder has some."""

    @abstractmethod
    def load(self, data: Any, run: Path) -> Task:
        """The task of a run without its data."""

    def assumed(self, data: Any) -> Task:
        """A task of as many tokens as data of these settings is likely to have: for plans without any."""
        raise UserError("this task does not say how many tokens its data has (Domain.assumed): gapt plan needs that")

    def change(self, text: str | None, frames: int) -> Change:
        """What ``--perturb`` says; None = the usual change. Raises UserError."""
        if text:
            raise UserError("--perturb changes nothing in this task: leave it out")
        return Change()

    def again(
        self, evaluator: Any, policy: Params, songs: Any, actions: np.ndarray, sampling: str, change: Any
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Lets a policy that has played `actions` play more: (metrics, extra results by the names of `extras`)."""
        return {}, {}

    def pages(self) -> Pages:
        """What the report shows of this task beside numbers."""
        return NoPages()


class Pages(Protocol):
    """Figures, pictures and sound for the report; figures are `report.drawing.Drawn`, `study` is a `results.Study`.
    Pages inherit what they do not show."""

    @property
    def heading(self) -> str:
        """Of the section."""
        return "Examples"

    @property
    def script(self) -> str:
        """JavaScript that `section` needs; empty = none."""
        return ""

    def figures(self, study: Any) -> Iterator[Any]:
        """Figures of the extra results that `Domain.again` made."""
        return iter(())

    def pictures(self, study: Any) -> Iterator[Any]:
        """A figure for each of the first songs, with what each system played."""
        return iter(())

    def section(self, study: Any, pictures: Sequence[Any]) -> str:
        """HTML that shows the pictures."""
        return ""


class NoPages(Pages):
    """Numbers alone."""
