"""Accelerators by name: ``v5p-128`` is 64 chips, because v4, v5p and tpu7x are named after their TensorCores.

Sources, read November 2026: docs.cloud.google.com/tpu/docs (pages v4, v5e, v5p, v6e, tpu7x, runtimes) and the table of
slices of google/xpk (src/xpk/core/system_characteristics.py), which has one shape per number of chips, as here.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from dataclasses import dataclass

from gapt_jax.config import did_you_mean
from gapt_jax.errors import UserError

_LONGEST_SIDE = 256  # chips; the longest side that google/xpk lists is 244
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Generation:
    """One kind of accelerator."""

    name: str
    dimensions: int  # of the grid of chips; 1 = GPUs, which have none
    max_chips: int  # of one slice
    counts_cores: bool = False  # N of NAME-N counts TensorCores, of which there are two per chip
    devices_per_chip: int = 1  # as JAX sees them: v4 and v5p join the two TensorCores of a chip, tpu7x does not
    chips_per_vm: int = 4
    cloud_name: str = ""  # of the type on TPU VMs, if it is not `name`
    gke_accelerator: str = ""  # the node label cloud.google.com/gke-tpu-accelerator
    machine_type: str = ""  # of GKE node pools; NAME-Nt has N chips
    runtime_version: str = ""  # of TPU VMs; empty where they are not offered so


GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation(
            "v4", 3, 4096, True,
            gke_accelerator="tpu-v4-podslice", machine_type="ct4p-hightpu", runtime_version="tpu-ubuntu2204-base",
        ),
        Generation(
            "v5e", 2, 256, cloud_name="v5litepod",
            gke_accelerator="tpu-v5-lite-podslice", machine_type="ct5lp-hightpu", runtime_version="v2-alpha-tpuv5-lite",
        ),
        Generation(
            "v5p", 3, 8960, True,
            gke_accelerator="tpu-v5p-slice", machine_type="ct5p-hightpu", runtime_version="v2-alpha-tpuv5",
        ),
        Generation(
            "v6e", 2, 256,
            gke_accelerator="tpu-v6e-slice", machine_type="ct6e-standard", runtime_version="v2-alpha-tpuv6e",
        ),
        Generation("tpu7x", 3, 9216, True, 2, gke_accelerator="tpu7x", machine_type="tpu7x-standard"),
        Generation("a100", 1, 1024, chips_per_vm=8),
        Generation("h100", 1, 1024, chips_per_vm=8),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """Chips that one fast network connects; for GPUs, those of whole nodes."""

    generation: Generation
    shape: Shape

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """Devices that JAX shows."""
        return self.chips * self.generation.devices_per_chip

    @property
    def chips_per_vm(self) -> int:
        return min(self.chips, self.generation.chips_per_vm)

    @property
    def vms(self) -> int:
        """Machines on GKE and SLURM; on TPU VMs, v5e-8 and v6e-8 are one machine instead of two."""
        return self.chips // self.chips_per_vm

    @property
    def name(self) -> str:
        """``v5e-64``; with the number that the generation counts."""
        return f"{self.generation.name}-{_count(self.generation, self.chips)}"

    @property
    def topology(self) -> str:
        """``8x8``; for GPUs their number."""
        return "x".join(map(str, self.shape))

    @property
    def cloud_type(self) -> str:
        """The accelerator type of a TPU VM, ``v5litepod-64``."""
        return f"{self.generation.cloud_name or self.generation.name}-{_count(self.generation, self.chips)}"

    @property
    def machine_type(self) -> str:
        return f"{self.generation.machine_type}-{self.chips_per_vm}t"

    def describe(self) -> str:
        """``v5p-128: 64 chips (4x4x4) on 16 machines``."""
        grid = f" ({self.topology})" if self.generation.dimensions > 1 else ""
        chips, machines = _plural(self.chips, "chip"), _plural(self.vms, "machine")
        return f"{self.name}: {chips}{grid} on {machines}"


def parse(text: str) -> Slice:
    """The slice that ``v5e-64``, ``v5litepod-64`` or ``v5e:8x8`` names; the error names the nearest possible ones."""
    match = re.fullmatch(r"([a-z0-9]+)(?:-(\d{1,6})|:(\d{1,4}(?:x\d{1,4})*))", text)
    if not match:
        raise UserError(f"'{text}' is not an accelerator: write it as in v5e-64, v5p-128 or v5e:8x8")
    generation = _generation(match[1])
    if match[3]:
        return _from_shape(generation, tuple(int(side) for side in match[3].split("x")))
    count, per_chip = int(match[2]), 2 if generation.counts_cores else 1
    shape = shapes(generation).get(count // per_chip) if count % per_chip == 0 else None
    if shape is None:
        cores = (
            f" (the number of {generation.name} counts TensorCores, two per chip)" if generation.counts_cores else ""
        )
        raise UserError(f"there is no {text}{cores}; {_nearest(generation, count / per_chip)}")
    return Slice(generation, shape)


def _from_shape(generation: Generation, shape: Shape) -> Slice:
    chips = math.prod(shape)
    known = shapes(generation).get(chips)
    if known is None or sorted(known) != sorted(shape):
        grid = "x".join(map(str, shape))
        raise UserError(f"there is no {generation.name} of {grid} chips; {_nearest(generation, chips)}")
    return Slice(generation, known)


@functools.cache
def shapes(generation: Generation) -> dict[int, Shape]:
    """Chips -> shape of every slice that can be had, by size."""
    if generation.dimensions == 1:
        nodes = generation.max_chips // generation.chips_per_vm
        return {n: (n,) for n in (1, 2, 4, *(generation.chips_per_vm * node for node in range(1, nodes + 1)))}
    if generation.dimensions == 2:
        sides = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
        return {math.prod(shape): shape for shape in sides}
    found: dict[int, Shape] = {math.prod(shape): shape for shape in ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))}
    if generation.name == "tpu7x":
        found[1] = (1, 1, 1)
    cubes = itertools.combinations_with_replacement(range(4, _LONGEST_SIDE + 1, 4), 3)
    for shape in sorted((shape for shape in cubes if math.prod(shape) <= generation.max_chips), key=sum):
        found.setdefault(math.prod(shape), shape)  # of equal sizes the one most like a cube
    return dict(sorted(found.items()))


def _generation(name: str) -> Generation:
    by_name = GENERATIONS | {g.cloud_name: g for g in GENERATIONS.values() if g.cloud_name}
    if name not in by_name:
        raise UserError(f"there is no accelerator '{name}'{did_you_mean(name, by_name)} (known: {', '.join(by_name)})")
    return by_name[name]


def _nearest(generation: Generation, chips: float) -> str:
    """The possible slices on either side of an impossible number of chips."""
    possible = shapes(generation)
    below = max((n for n in possible if n <= chips), default=None)
    above = min((n for n in possible if n >= chips), default=None)
    around = dict.fromkeys(n for n in (below, above) if n is not None)
    return "the nearest: " + " or ".join(Slice(generation, possible[n]).describe() for n in around)


def _count(generation: Generation, chips: int) -> int:
    return chips * 2 if generation.counts_cores else chips


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
