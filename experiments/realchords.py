"""ReaLchords as the authors re-implemented it for the GAPT paper: PPO against the ensemble, no adversary.

Hooktheory only, no entropy bonus, everything else as in `gapt` (arXiv:2511.17879, §4.2). Line numbers below are those
of configs/single_agent_rl/realchords.yml in github.com/lukewys/realchords-pytorch at 75a6324. Hardware and time as
there; not run here. Command:

    gapt run realchords --set data.songs=FOLDER
"""

from dataclasses import replace

from gapt_jax.config import FitConfig
from gapt_jax.experiments.gapt import ADAM, gapt
from gapt_jax.tasks.accompaniment.config import Experiment


def realchords() -> Experiment:
    base = gapt()
    return replace(
        base,
        name="realchords",
        data=replace(base.data, mixture=(("hooktheory", 1.0),)),  # line 2
        pretrain=replace(
            base.pretrain,
            anchor=FitConfig(10_000, 64, ADAM),  # line 30: the checkpoint that it uses
            discriminative=FitConfig(1_500, 64, ADAM),  # lines 10-11, ../reward_models/discriminative_reward.yml:22
            rhythm_contrastive=FitConfig(2_000, 196, ADAM),  # lines 13-14
        ),
        algorithm=replace(base.algorithm, adversarial_weight=0.0, entropy_coef=0.0),  # lines 19-42 set neither
    )
