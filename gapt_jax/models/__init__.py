"""Networks as pure functions: `init(key) -> params`, `apply(params, ...) -> outputs`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gapt_jax.config import ModelsConfig
from gapt_jax.models import networks
from gapt_jax.types import Params
from gapt_jax.vocabulary import RHYTHM_SIZE

REWARD_KINDS = ("contrastive", "discriminative", "rhythm_contrastive", "rhythm_discriminative")


@dataclasses.dataclass(frozen=True)
class Model:
    """A Flax NNX module split once into its static graph and a parameter tree (nested dict of arrays)."""

    graph: Any = dataclasses.field(repr=False)
    init: Callable[[jax.Array], Params]

    @classmethod
    def of(cls, make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
        graph = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
        return cls(graph, lambda key: nnx.to_pure_dict(nnx.split(make(nnx.Rngs(key)))[1]))

    def bind(self, params: Params) -> Any:
        """The module with these parameters."""
        return nnx.merge(self.graph, params)

    def __call__(self, params: Params, *args: Any, **kwargs: Any) -> Any:
        return self.bind(params)(*args, **kwargs)

    def method(self, params: Params, name: str, *args: Any) -> Any:
        """Calls another method of the module, e.g. ``policy.method(params, "decode", tokens, cache, position)``."""
        return getattr(self.bind(params), name)(*args)


@dataclasses.dataclass(frozen=True)
class Models:
    """Every network of one experiment."""

    policy: Model
    critic: Model
    anchor: Model
    contrastive: Model
    discriminative: Model
    rhythm_contrastive: Model
    rhythm_discriminative: Model
    discriminator: Model

    def reward(self, kind: str) -> Model:
        """The reward model of one of `REWARD_KINDS`."""
        return getattr(self, kind)


def build(config: ModelsConfig, size: int) -> Models:
    """The networks for a vocabulary of `size` tokens."""
    dtype = jnp.dtype(config.compute_dtype)

    def of(network: Callable[..., nnx.Module], *args: Any) -> Model:
        return Model.of(lambda rngs: network(*args, dtype=dtype, remat=config.remat, rngs=rngs))

    return Models(
        policy=of(networks.Decoder, config.policy, size, size),
        critic=of(networks.Decoder, config.policy, size, 1),
        anchor=of(networks.EncoderDecoder, config.anchor, size),
        contrastive=of(networks.Contrastive, config.reward, size),
        discriminative=of(networks.Classifier, config.reward, size),
        rhythm_contrastive=of(networks.Contrastive, config.reward, RHYTHM_SIZE),
        rhythm_discriminative=of(networks.Classifier, config.reward, RHYTHM_SIZE),
        discriminator=of(networks.Classifier, config.discriminator, size),
    )
