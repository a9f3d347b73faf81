"""A melody agent for policies of `small`: the same songs, sizes and vocabulary, roles swapped (docs/method.md §11).

Its reward models are those of `small` and are reused from ``stages/`` beside the run folder; policy and anchor are
trained. OpenEWLD stays out of its training too. η = 0.002 as published. Hardware: 2 CPU cores. Command:

    gapt run small_melody_agent --set data.songs=FOLDER
    gapt evaluate runs/small --opponent agent --agent runs/small_melody_agent
"""

from dataclasses import replace

from gapt_jax.experiments.small import small
from gapt_jax.tasks.accompaniment.config import Experiment


def small_melody_agent() -> Experiment:
    base = small()
    return replace(
        base,
        name="small_melody_agent",
        data=replace(base.data, part="melody"),
        algorithm=replace(base.algorithm, entropy_coef=0.002),
    )
