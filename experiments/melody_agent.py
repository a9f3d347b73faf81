"""The learned melody agent of the published evaluation: the recipe of `gapt`, roles swapped (docs/method.md §11).

It hears chords and plays notes; a policy plays with it through `gapt evaluate RUN --opponent agent --agent THIS_RUN`.
Differences to `gapt`: η = 0.002, four training sets, the anchor's 10,000 steps (docs/method.md §11.1).
Both must have one vocabulary, and this mixture would make another one: copy that of the policy before the first start.
Hardware and time as for `gapt`; not run here. Command:

    mkdir -p runs/melody_agent && cp runs/gapt/vocabulary.json runs/melody_agent/
    gapt run melody_agent --set data.songs=FOLDER
"""

from dataclasses import replace

from gapt_jax.config import FitConfig
from gapt_jax.experiments.gapt import ADAM, gapt
from gapt_jax.tasks.accompaniment.config import Experiment


def melody_agent() -> Experiment:
    base = gapt()
    return replace(
        base,
        name="melody_agent",
        data=replace(
            base.data,
            part="melody",
            mixture=(("hooktheory", 0.5), ("pop909", 0.2), ("nottingham", 0.1), ("openewld", 0.2)),
            out_of_domain=(),  # so it has heard what the policy's out-of-domain set is made of
        ),
        pretrain=replace(base.pretrain, anchor=FitConfig(10_000, 64, ADAM)),
        algorithm=replace(base.algorithm, entropy_coef=0.002),
        evaluation=replace(base.evaluation, every=100),
    )
