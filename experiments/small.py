"""Real songs on a laptop: 16 beats, 0.2 M parameters, one contrastive and one discriminative reward with weight 2.

Hardware: 2 CPU cores. Time: 23 min (median steps) for the supervised stages, then 4.6 min for each λ (docs/small.md).
Result, three seeds, Hooktheory test: Vendi 6.13 (MLE), 3.76 (λ = 0), 4.83 (λ = 1) at note-in-chord 0.31, 0.47, 0.43.
Command (a folder with hooktheory, pop909, nottingham and openewld .jsonl.gz):

    gapt run small --set data.songs=FOLDER
    gapt run small --set data.songs=FOLDER --set algorithm.adversarial_weight=0 --workdir runs/small-lambda0
    gapt report runs/small runs/small-lambda0

A prototype chose sizes, rates, KL and entropy coefficients and the discriminator's buffer so that the collapse shows
(docs/method.md §8.3); the gate, the PPO constants and the reward form are the published ones.
"""

from gapt_jax.config import (
    DiscriminatorConfig,
    FitConfig,
    ModelsConfig,
    OptimizerConfig,
    RuntimeConfig,
    TransformerConfig,
)
from gapt_jax.tasks.accompaniment.config import (
    AlgorithmConfig,
    DataConfig,
    EvaluationConfig,
    Experiment,
    PretrainConfig,
    RewardsConfig,
)

TINY = TransformerConfig(dim=64, depth=2, heads=2, head_dim=32, dropout=0.0)


def supervised(steps: int, *, batch_size: int = 64) -> FitConfig:
    return FitConfig(steps, batch_size, OptimizerConfig(2e-3, warmup_steps=100, final_fraction=0.05))


def small() -> Experiment:
    return Experiment(
        name="small",
        data=DataConfig(
            songs="songs",
            mixture=(("hooktheory", 0.6), ("pop909", 0.3), ("nottingham", 0.1)),
            out_of_domain=("openewld",),
            max_frames=64,
            chord_coverage=0.96,
        ),
        models=ModelsConfig(policy=TINY, anchor=TINY, reward=TINY, discriminator=TINY),
        pretrain=PretrainConfig(
            policy=supervised(3_000),
            anchor=supervised(1_200),
            contrastive=supervised(800, batch_size=128),
            discriminative=supervised(1_200),
            members=1,
        ),
        algorithm=AlgorithmConfig(
            steps=400,
            batch_size=64,
            minibatch_size=16,
            kl_coef=0.004,
            entropy_coef=0.0,
            validity_mask=True,
            policy=OptimizerConfig(3e-4, 20, 1.0, 0.9, 0.95),
            critic=OptimizerConfig(1e-3, 20, 1.0, 0.9, 0.95),
            discriminator_optimizer=OptimizerConfig(1e-3, 20, 1.0, 0.9, 0.95),
            rewards=RewardsConfig(
                contrastive=2.0, discriminative=2.0, rhythm_contrastive=0.0, rhythm_discriminative=0.0
            ),
            discriminator=DiscriminatorConfig(
                steps_per_update=40, minibatch_size=32, buffer_rollouts=5, schedule_follows_updates=False
            ),
        ),
        evaluation=EvaluationConfig(songs=512, sampling="masked", every=25, monitor_songs=128),
        runtime=RuntimeConfig(checkpoint_every=50, microbatch_rows=4),
    )
