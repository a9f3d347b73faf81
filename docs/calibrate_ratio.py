"""What rounding and what planted faults make of |ratio - 1| before any update: the limits of the alarm `ratio`.

python docs/calibrate_ratio.py RUN   (a finished run; nothing in it is changed)

The run's supervised and trained policies play songs of the run in float32 and in bfloat16, over all tokens and over the
valid ones, and `learner.estimate` computes the log-probabilities of what was played. Healthy: as in training. A stale
policy: played before the update, judged after it, at the peak rate of the run. A shifted mask: the mask of the frame
before. Prints the table of docs/health.md.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax import models
from gapt_jax.algorithm import learner, ppo
from gapt_jax.algorithm.rollout import before, distribution, valid_along
from gapt_jax.algorithm.state import Spec, init_state
from gapt_jax.config import OptimizerConfig
from gapt_jax.masked import select
from gapt_jax.models.networks import interleave
from gapt_jax.runtime.console import Console
from gapt_jax.training import measure
from gapt_jax.training.job import frozen_of
from gapt_jax.types import Batch

SEEDS = 3  # batches of songs


def behind(name: str, spec: Spec, frozen, params, songs: Batch, seed: int) -> dict[str, float]:
    """|ratio - 1| of one batch with the fault `name`."""
    state = init_state(spec, params, seed, songs.context.shape[1])
    played = learner.rollout(spec, state, songs)
    judged, terms = params, learner.judge(spec, state, frozen, songs, played)[0]
    if name == "stale policy":
        experience, _ = learner.estimate(spec, state, frozen, played, terms)
        judged = learner.improve_policy(spec, state, experience)[0].policy
    valid = None
    if spec.config.validity_mask:
        previous = before(played.actions, spec.task.rest)
        valid = spec.task.valid_actions(before(previous, spec.task.rest) if name == "shifted mask" else previous)
    elif name == "shifted mask":  # the training pass masks what the rollout did not
        valid = valid_along(spec.task, played.actions)
    states = spec.models.policy.method(judged, "states", interleave(played.actions, played.context)[:, :-1])
    log_p = select(distribution(spec.models.policy.method(judged, "head", states), valid), played.actions)
    if name == "shifted log-probabilities":
        log_p = jnp.roll(log_p, 1, axis=1)
    return {key: float(x) for key, x in ppo.ratio_deviation(log_p, played.log_probs, played.mask).items()}


def main(run: Path) -> None:
    job, upstream, (_, trained) = measure.load_run(run, Console(), None)
    algorithm = job.experiment.algorithm
    rate = algorithm.policy.learning_rate
    algorithm = dataclasses.replace(algorithm, policy=OptimizerConfig(rate, 0, 1.0, 0.9, 0.95))
    frozen = jax.device_get(frozen_of(job, upstream))
    policies = {"supervised": jax.device_get(upstream.policy), "trained": jax.device_get(trained)}
    batches = job.batches(7)(algorithm.batch_size, 0)
    songs = [jax.tree.map(np.asarray, next(batches)) for _ in range(SEEDS)]
    print("| compute | tokens | policy | fault | mean | one action of 1,000 | largest |\n|---|---|---|---|---|---|---|")
    for dtype in ("float32", "bfloat16"):
        networks = models.build(
            dataclasses.replace(job.experiment.models, compute_dtype=dtype),
            job.spec.task.vocab_size,
            job.spec.task.reward_models,
            has_kernel=job.spec.models.policy.has_kernel,
        )
        for masked in (False, True):
            spec = Spec(networks, dataclasses.replace(algorithm, validity_mask=masked), job.spec.task)
            for name, params in policies.items():
                for fault in ("none", "stale policy", "shifted mask", "shifted log-probabilities"):
                    found = [behind(fault, spec, frozen, params, batch, seed) for seed, batch in enumerate(songs)]
                    row = (np.array([x[key] for x in found]) for key in ("mean", "high", "largest"))
                    cells = " | ".join(f"{x.min():.1e}–{x.max():.1e}" for x in row)
                    print(f"| {dtype} | {'valid' if masked else 'all'} | {name} | {fault} | {cells} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
