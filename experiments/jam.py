"""A band to play with: 32 beats of memory, crops on bar lines, songs whose licences allow that the weights are shipped.

Hardware: 2 CPU cores, other jobs beside it. Time: 61 min for the supervised stages, 39 of them for the policy's, then
20 min for each λ. Result: docs/live.md, and the bundles in gapt_jax/bands. Command (a folder with pop909, openewld,
lily_pd and, to be evaluated on alone, nottingham .jsonl.gz):

    gapt run jam --set data.songs=FOLDER
    gapt run jam --set data.songs=FOLDER --set algorithm.adversarial_weight=0 --workdir runs/jam-lambda0

The policy has 555,360 parameters; `chord_coverage` gives 13 interval sets, 156 chords and 572 tokens. Training sets:
POP909 (MIT), OpenEWLD and `lily_pd` (public domain), weighted by their beats (0.76, 0.20, 0.04) but for a shift to the
smaller two, of which a player's tunes are more likely to be. Settings are those of `small` but for its sizes, steps,
batches and evaluation, and what goes with songs twice as long: gae_lambda and kl_coef.
"""

from dataclasses import replace

from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.experiments.small import TINY, small, supervised
from gapt_jax.tasks.accompaniment.config import DataConfig, Experiment

AGENT = TransformerConfig(dim=96, depth=3, heads=3, head_dim=32, dropout=0.0)


def jam() -> Experiment:
    base = small()
    return replace(
        base,
        name="jam",
        data=DataConfig(
            songs="songs",
            mixture=(("pop909", 0.65), ("openewld", 0.28), ("lily_pd", 0.07)),
            out_of_domain=("nottingham",),
            max_frames=128,
            crops_on="bars",  # the live engine counts from a bar line
            chord_coverage=0.985,
        ),
        models=ModelsConfig(policy=AGENT, anchor=AGENT, reward=TINY, discriminator=TINY),
        pretrain=replace(
            base.pretrain,
            policy=supervised(4_500, batch_size=32),
            anchor=supervised(900, batch_size=32),
            contrastive=supervised(500),
            discriminative=supervised(600),
        ),
        algorithm=replace(base.algorithm, steps=300, gae_lambda=0.975, kl_coef=0.002),
        evaluation=replace(base.evaluation, songs=256, every=50, monitor_songs=64),
    )
