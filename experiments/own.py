"""All songs of a folder of yours, on a laptop: `small` with fewer steps.

The folder holds ABC, MusicXML, MIDI, POP909 or Hooktheory files, or *.jsonl.gz records (docs/data.md).
Hardware: 2 CPU cores. Trained results: none; with a few dozen songs a policy learns them by heart. Command:

    gapt run own --set data.songs=FOLDER
"""

from dataclasses import replace

from experiments.small import small, supervised
from gapt_jax.config import DataConfig, Experiment, FitConfig


def own() -> Experiment:
    base = small()
    return replace(
        base,
        name="own",
        data=DataConfig(songs="songs", mixture=(("all", 1.0),), out_of_domain=(), max_frames=64, chord_coverage=0.99),
        pretrain=replace(
            base.pretrain,
            policy=short(600),
            anchor=short(300),
            contrastive=short(200),
            discriminative=short(300),
        ),
        algorithm=replace(base.algorithm, steps=100),
        runtime=replace(base.runtime, checkpoint_every=25),
    )


def short(steps: int) -> FitConfig:
    fit = supervised(steps, batch_size=32)
    return replace(fit, optimizer=replace(fit.optimizer, warmup_steps=20))
