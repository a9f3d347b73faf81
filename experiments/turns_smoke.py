"""When to speak, end to end on simulated conversations: does everything work, and is the adversary felt?

Hardware: 2 CPU cores. Time: 3 min. Result, one seed, λ = 1: 0.88 of the speech is in others' silence (by chance 0.56;
MLE 0.57 and 0.50), independent Vendi 2.16 (MLE 2.11). Command:

    gapt run turns_smoke
"""

from gapt_jax.config import (
    DiscriminatorConfig,
    FitConfig,
    ModelsConfig,
    OptimizerConfig,
    RuntimeConfig,
    TransformerConfig,
)
from gapt_jax.tasks.turn_taking.config import (
    AlgorithmConfig,
    DataConfig,
    EvaluationConfig,
    Experiment,
    PretrainConfig,
    RewardsConfig,
)

TINY = TransformerConfig(dim=32, depth=2, heads=2, head_dim=16, dropout=0.0)


def supervised(steps: int) -> FitConfig:
    return FitConfig(steps, 32, OptimizerConfig(4e-3, warmup_steps=20, final_fraction=0.05))


def turns_smoke() -> Experiment:
    return Experiment(
        name="turns_smoke",
        data=DataConfig(songs="simulated", max_frames=64),
        models=ModelsConfig(policy=TINY, anchor=TINY, reward=TINY, discriminator=TINY),
        pretrain=PretrainConfig(
            policy=supervised(200),
            anchor=supervised(80),
            contrastive=supervised(120),
            discriminative=supervised(120),
            members=1,
        ),
        algorithm=AlgorithmConfig(
            steps=30,
            batch_size=32,
            minibatch_size=16,
            kl_coef=0.004,
            entropy_coef=0.0,
            validity_mask=True,
            policy=OptimizerConfig(1e-3, 10, 0.1, 0.9, 0.95),
            critic=OptimizerConfig(2e-3, 10, 0.1, 0.9, 0.95),
            discriminator_optimizer=OptimizerConfig(2e-3, 10, 0.1, 0.9, 0.95),
            rewards=RewardsConfig(
                contrastive=2.0, discriminative=2.0, rhythm_contrastive=0.0, rhythm_discriminative=0.0
            ),
            discriminator=DiscriminatorConfig(
                steps_per_update=10, minibatch_size=16, buffer_rollouts=5, schedule_follows_updates=False
            ),
        ),
        evaluation=EvaluationConfig(songs=128, sampling="masked", every=15, monitor_songs=64),
        runtime=RuntimeConfig(checkpoint_every=15),
    )
