"""The published system on TPU pods: the same method and networks, batches that fill the chips.

Nothing here has been run on a TPU. The tables are what `gapt plan` says (docs/plan.md: memory of a device, rooflines,
which are bounds and no forecasts), with JAX 0.10.2 and libtpu 0.0.52, before keys were cached in bfloat16, causal
attention went in blocks and roundings to bfloat16 were counted: make them anew before you rely on them. The mesh is
the default everywhere: all chips share the songs, for 2.6 GiB of state and frozen models need no splitting. Attention
is XLA's: at 512 positions nothing speaks for `models.attention=fused` (docs/plan.md). Rates and warm-up are those of
batch 384: with so much larger ones they are a place to start from, not a result.
"""

import dataclasses

from gapt_jax.experiments.gapt import gapt
from gapt_jax.tasks.accompaniment.config import Experiment


def _filling(name: str, batch_size: int, minibatch_size: int, microbatch_rows: int = 0) -> Experiment:
    """`gapt`, bfloat16 as there, with larger batches and recomputed activations."""
    base = gapt()
    adversary = dataclasses.replace(base.algorithm.discriminator, minibatch_size=minibatch_size)
    return dataclasses.replace(
        base,
        name=name,
        models=dataclasses.replace(base.models, remat=True),
        algorithm=dataclasses.replace(
            base.algorithm, batch_size=batch_size, minibatch_size=minibatch_size, discriminator=adversary
        ),
        evaluation=dataclasses.replace(base.evaluation, batch_size=1024),
        runtime=dataclasses.replace(base.runtime, microbatch_rows=microbatch_rows),
    )


def pod() -> Experiment:
    """v6e-256, or several slices of it: 32 songs a chip on one slice, 8 on four.

        gapt plan pod --topology v6e:16x16 --slices 4

    | phase, 1,024 chips    | memory         | roofline | bound by | collectives                           |
    |-----------------------|----------------|----------|----------|---------------------------------------|
    | rollout               | 2.76 GiB (9%)  | 28.8 ms  | HBM      | none                                  |
    | judge                 | 3.17 GiB (10%) | 8.9 ms   | HBM      | 4 all-reduce                          |
    | estimate              | 2.81 GiB (9%)  | 6.2 ms   | HBM      | 6 all-reduce                          |
    | improve_policy        | 3.90 GiB (12%) | 27.0 ms  | HBM      | 18 all-reduce (8 between slices), 14 all-gather |
    | improve_discriminator | 3.12 GiB (10%) | 11.1 ms  | HBM      | 17 all-reduce (8 between slices), 10 all-gather |

    81.9 ms an iteration or more; weak scaling from 1 chip 74.9 % if nothing overlaps.
    """
    return _filling("pod", 8_192, 1_024)


def v5e_64() -> Experiment:
    """v5e-64: 64 songs a chip, minibatches of 16 a chip in microbatches of 8.

        gapt plan pod:v5e_64 --topology v5e:8x8

    | phase                 | memory         | roofline | bound by | collectives  |
    |-----------------------|----------------|----------|----------|--------------|
    | rollout               | 3.34 GiB (21%) | 307 ms   | HBM      | none         |
    | judge                 | 6.18 GiB (39%) | 130 ms   | HBM      | 2 all-reduce |
    | estimate              | 4.22 GiB (26%) | 92 ms    | HBM      | 3 all-reduce |
    | improve_policy        | 3.74 GiB (23%) | 234 ms   | HBM      | 6 all-reduce |
    | improve_discriminator | 3.24 GiB (20%) | 159 ms   | HBM      | 9 all-reduce |

    923 ms an iteration or more; weak scaling from 1 chip 97.6 % if nothing overlaps.
    """
    return _filling("pod-v5e-64", 4_096, 1_024, microbatch_rows=8)


def v5p_128() -> Experiment:
    """v5p-128, which is 64 chips of two cores: 128 songs a chip.

        gapt plan pod:v5p_128 --topology v5p:4x4x4

    | phase                 | memory         | roofline | bound by | collectives   |
    |-----------------------|----------------|----------|----------|---------------|
    | rollout               | 4.02 GiB (4%)  | 175 ms   | HBM      | none          |
    | judge                 | 9.59 GiB (10%) | 77 ms    | HBM      | 2 all-reduce  |
    | estimate              | 6.03 GiB (6%)  | 54 ms    | HBM      | 3 all-reduce  |
    | improve_policy        | 3.94 GiB (4%)  | 134 ms   | HBM      | 10 all-reduce |
    | improve_discriminator | 3.42 GiB (4%)  | 45 ms    | HBM      | 9 all-reduce  |

    485 ms an iteration or more; weak scaling from 1 chip 97.7 % if nothing overlaps.
    """
    return _filling("pod-v5p-128", 8_192, 1_024)


def two_v5e_256() -> Experiment:
    """2 × v5e-256: 16 songs a chip; between the slices goes one sum of gradients per minibatch, as one vector.

        gapt plan pod:two_v5e_256 --topology v5e:16x16 --slices 2

    | phase                 | memory         | roofline | bound by | collectives                           |
    |-----------------------|----------------|----------|----------|---------------------------------------|
    | rollout               | 2.84 GiB (18%) | 93 ms    | HBM      | none                                  |
    | judge                 | 3.76 GiB (24%) | 34 ms    | HBM      | 4 all-reduce                          |
    | estimate              | 3.26 GiB (20%) | 24 ms    | HBM      | 6 all-reduce                          |
    | improve_policy        | 4.06 GiB (25%) | 80 ms    | HBM      | 18 all-reduce (8 between slices), 14 all-gather |
    | improve_discriminator | 3.21 GiB (20%) | 31 ms    | HBM      | 17 all-reduce (8 between slices), all-gather    |

    262 ms an iteration or more; weak scaling from 1 chip 82.4 % if nothing overlaps.
    """
    return _filling("pod-2-v5e-256", 8_192, 1_024)
