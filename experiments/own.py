"""All songs of a folder of yours, on a laptop: the sizes and steps of `smoke`, 16 beats a song.

The folder holds ABC, MusicXML, MIDI, POP909 or Hooktheory files, or *.jsonl.gz records (docs/data.md).
Hardware: 2 CPU cores. Trained results: none; of a few dozen songs a policy learns much by heart. Command:

    gapt run own --set data.songs=FOLDER
"""

from dataclasses import replace

from gapt_jax.experiments.smoke import smoke
from gapt_jax.tasks.accompaniment.config import DataConfig, Experiment


def own() -> Experiment:
    base = smoke()
    rewards = replace(base.algorithm.rewards, rhythm_contrastive=0.0, rhythm_discriminative=0.0)
    return replace(
        base,
        name="own",
        data=DataConfig(songs="songs", mixture=(("all", 1.0),), out_of_domain=(), max_frames=64, chord_coverage=0.99),
        algorithm=replace(base.algorithm, rewards=rewards),
    )
