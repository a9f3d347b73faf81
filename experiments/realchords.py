"""ReaLchords as the authors re-implemented it for the GAPT paper: PPO against the ensemble, no adversary.

Hooktheory only, no entropy bonus, everything else as in `gapt` (reference.md §4.1, §5.5). Hardware and time as there;
not run here. Command:

    gapt run realchords --set data.songs=FOLDER
"""

from dataclasses import replace

from experiments.gapt import ADAM, gapt
from gapt_jax.config import Experiment, FitConfig


def realchords() -> Experiment:
    base = gapt()
    return replace(
        base,
        name="realchords",
        data=replace(base.data, mixture=(("hooktheory", 1.0),)),  # reference §3.8
        pretrain=replace(
            base.pretrain,
            anchor=FitConfig(10_000, 64, ADAM),  # reference §4.8: checkpoints used
            discriminative=FitConfig(1_500, 64, ADAM),  # reference §4.8, §3.5
            rhythm_contrastive=FitConfig(2_000, 196, ADAM),  # reference §4.8
        ),
        algorithm=replace(base.algorithm, adversarial_weight=0.0, entropy_coef=0.0),  # reference §4.1, §5.5
    )
