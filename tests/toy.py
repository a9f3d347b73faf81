"""The settings of a whole run in seconds, and the command line in this process."""

from gapt_jax.commands.main import main

NETWORKS = [
    f"models.{net}.{key}={value}"
    for net in ("policy", "anchor", "reward", "discriminator")
    for key, value in {"dim": 16, "depth": 1, "heads": 2, "head_dim": 8}.items()
]
STAGES = ("policy", "anchor", "contrastive", "discriminative", "rhythm_contrastive", "rhythm_discriminative")
FITS = [f"pretrain.{stage}.{key}={value}" for stage in STAGES for key, value in {"steps": 4, "batch_size": 8}.items()]
# Songs in any key, a set out of the domain and all kinds of reward, which `smoke` has not.
SONGS = ['data.mixture=[["grammar",1.0]]', 'data.out_of_domain=["grammar_modal"]', "data.transpose=true"]
KINDS = [f"algorithm.rewards.rhythm_{kind}=1" for kind in ("contrastive", "discriminative")]
TOY = [
    *NETWORKS, *FITS, *SONGS, *KINDS, "data.max_frames=16", "algorithm.steps=6", "algorithm.batch_size=16",
    "algorithm.minibatch_size=8", "algorithm.discriminator.minibatch_size=8",
    "algorithm.discriminator.steps_per_update=3", "evaluation.songs=24", "evaluation.batch_size=16",
    "evaluation.every=3", "evaluation.monitor_songs=16", "runtime.checkpoint_every=2",
    "evaluation.same_melody_songs=2", "evaluation.adaptation_songs=8", "evaluation.post_hoc_steps=2",
    "runtime.mesh.data=1",
]  # fmt: skip


def gapt(*arguments: str) -> int:
    """Exit code of one command."""
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0
