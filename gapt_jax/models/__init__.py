"""Networks as pure functions: `init(key) -> params`, `apply(params, ...) -> outputs`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gapt_jax.config import ModelsConfig
from gapt_jax.models import fused, kernel, networks
from gapt_jax.models.layers import Stack
from gapt_jax.task import RewardModel
from gapt_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Model:
    """A Flax NNX module split once into its static graph and a parameter tree (nested dict of arrays)."""

    graph: Any = dataclasses.field(repr=False)
    init: Callable[[jax.Array], Params]
    has_kernel: bool = False  # whether a CPU decodes it by the compiled kernel
    name: str = "network"  # of its operations in a trace

    @classmethod
    def of(cls, make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
        graph = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
        return cls(graph, jax.jit(lambda key: nnx.to_pure_dict(nnx.split(make(nnx.Rngs(key)))[1])))

    def bind(self, params: Params) -> Any:
        """The module with these parameters."""
        return nnx.merge(self.graph, params)

    def __call__(self, params: Params, *args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(self.name):
            return self.bind(params)(*args, **kwargs)

    def method(self, params: Params, name: str, *args: Any) -> Any:
        """Calls another method of the module, e.g. ``policy.method(params, "decode", tokens, cache, position)``."""
        with jax.named_scope(self.name):
            return getattr(self.bind(params), name)(*args)

    def on_cpu(self) -> Callable[[Any], kernel.Kernel] | None:
        """Makes of the bound module what decodes in its place on a CPU; None where the module does so itself."""
        return kernel.Kernel if self.has_kernel else None


@dataclasses.dataclass(frozen=True)
class Models:
    """Every network of one experiment."""

    policy: Model
    critic: Model
    anchor: Model
    discriminator: Model
    rewards: dict[str, Model]  # by name


def build(
    config: ModelsConfig,
    size: int,
    rewards: Mapping[str, RewardModel] | None = None,
    *,
    has_kernel: bool = False,
    platform: str = "cpu",
) -> Models:
    """The networks for `size` different tokens, with those of a task's reward models.

    `has_kernel` says that `runtime.native` has loaded the decoding kernel: the policy uses it where it suits.
    `platform` is that of the devices, which may have a kernel for attention."""
    dtype = jnp.dtype(config.compute_dtype)
    has_kernel = has_kernel and kernel.suits(config.policy, dtype)
    attention, _ = fused.implementation(config, platform)

    def of(name: str, network: Callable[..., nnx.Module], *args: Any) -> Model:
        def make(rngs: nnx.Rngs) -> nnx.Module:
            made = network(*args, dtype=dtype, remat=config.remat, rngs=rngs)
            stacks = (part for _, part in nnx.iter_graph(made) if isinstance(part, Stack))
            for stack in stacks if attention != fused.XLA else ():
                stack.kernel = attention
            return made

        return dataclasses.replace(Model.of(make), name=name)

    policy = of("policy", networks.Decoder, config.policy, size, size)
    return Models(
        policy=dataclasses.replace(policy, has_kernel=has_kernel),
        critic=of("critic", networks.Decoder, config.policy, size, 1),
        anchor=of("anchor", networks.EncoderDecoder, config.anchor, size),
        discriminator=of("discriminator", networks.Classifier, config.discriminator, size),
        rewards={name: of(name, reward.network, config.reward) for name, reward in (rewards or {}).items()},
    )
