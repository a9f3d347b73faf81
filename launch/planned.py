"""What a plan holds: phases with their memory, work and traffic, and the bound on their speed.

The roofline of a phase is the longest of its times for matmuls, HBM and network, each at the ceiling of the chip
(`runtime.chips`, `runtime.cost`, `launch.collectives`): a bound, not a forecast. Assumptions: docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gapt_jax.launch import collectives
from gapt_jax.launch.collectives import Collective
from gapt_jax.runtime.chips import Chip
from gapt_jax.runtime.cost import Cost


@dataclass(frozen=True)
class Phase:
    """One phase on one device."""

    name: str
    bytes: int  # everything on the device while it runs
    largest_array: str  # of those it computes, such as "f32[48,8,512,512]"
    cost: Cost
    collectives: Sequence[Collective]
    song_share: float  # of the rows that are computed; the others only fill up the devices
    compile_seconds: float
    chip: Chip

    @property
    def times(self) -> dict[str, float]:
        """Seconds at the ceilings of the chip, by what they are spent on."""
        within, between = (sum(c.sent for c in self.collectives if c.crosses_slices is far) for far in (False, True))
        return {
            "matmuls": self.cost.flops / self.chip.flops,
            "HBM": self.cost.bytes / self.chip.hbm_bandwidth,
            "ICI": within / self.chip.ici_bandwidth,
            "DCN": between / self.chip.dcn_bandwidth,
        }

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(self.times, key=lambda name: self.times[name])

    @property
    def roofline(self) -> float:
        """Seconds, everything overlapping."""
        return self.times[self.bound]

    @property
    def sent(self) -> float:
        """Bytes that a device sends."""
        return sum(collective.sent for collective in self.collectives)

    @property
    def alone(self) -> float:
        """Seconds without a network."""
        return max(self.times["matmuls"], self.times["HBM"])


@dataclass(frozen=True)
class Plan:
    """What was found, up to the first phase that does not fit."""

    experiment: str
    topology: str
    slices: int
    devices: int
    members: int  # runs that train as one program
    hosts: int
    members_per_host: int  # at most; those that fill up included
    chip: Chip
    vocabulary: int  # V, assumed
    state_bytes: int  # per device: learner, frozen models and batch, there in all phases
    phases: Sequence[Phase]
    problem: str | None  # one sentence: what does not fit, and what would help

    @property
    def fits(self) -> bool:
        return self.problem is None

    @property
    def efficiency(self) -> dict[str, float]:
        """Weak scaling from one chip that has as many rows: Σ alone / Σ (alone + network), and Σ alone / Σ roofline."""
        alone = sum(phase.alone for phase in self.phases)
        network = sum(phase.times["ICI"] + phase.times["DCN"] for phase in self.phases)
        overlapping = sum(phase.roofline for phase in self.phases)
        return {"without_overlap": alone / (alone + network), "with_overlap": alone / overlapping}

    def to_json(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment,
            "topology": self.topology,
            "slices": self.slices,
            "devices": self.devices,
            "members": self.members,
            "hosts": self.hosts,
            "members_per_host": self.members_per_host,
            "chip": self.chip.name,
            "hbm_bytes": self.chip.hbm_bytes,
            "assumed_vocabulary": self.vocabulary,
            "state_bytes_per_device": self.state_bytes,
            "fits": self.fits,
            "problem": self.problem,
            "efficiency": self.efficiency if self.fits else None,
            "phases": {phase.name: _phase_json(phase) for phase in self.phases},
        }


def _phase_json(phase: Phase) -> dict[str, Any]:
    kinds = collectives.summarize(phase.collectives)
    return {
        "bytes_per_device": phase.bytes,
        "flops": phase.cost.flops,
        "vector_flops": phase.cost.vector_flops,
        "hbm_traffic": phase.cost.bytes,
        "network_bytes": phase.sent,
        "unknown_loops": phase.cost.unknown_loops,
        "collectives": {kind: summary.count for kind, summary in kinds.items()},
        "collective_bytes": {kind: summary.bytes for kind, summary in kinds.items()},
        "between_slices": {kind: summary.crossing for kind, summary in kinds.items() if summary.crossing},
        "roofline_ms": 1e3 * phase.roofline,
        "bound": phase.bound,
        "times_ms": {name: 1e3 * seconds for name, seconds in phase.times.items()},
        "song_share": phase.song_share,
        "compile_seconds": phase.compile_seconds,
    }
