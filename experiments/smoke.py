"""End to end on the built-in grammar songs: does everything work, and is the adversary felt?

Hardware: 2 CPU cores. Time: 4 min for `make demo` after the installation, both λ and all compilation included.
Result, one seed, test split of songs in C major and A minor: Vendi 2.71 (MLE), 1.03 (λ = 0), 2.58 (λ = 1) at
note-in-chord 0.44, 0.54, 0.44, by chance 0.27, 0.31, 0.27. In any key the policy stays at chance, also after 2,000
supervised steps (0.28): two bars of melody and a network of this size do not tell it the key.
Command:

    gapt run smoke
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

TINY = TransformerConfig(dim=32, depth=2, heads=2, head_dim=16, dropout=0.0)


def supervised(steps: int) -> FitConfig:
    return FitConfig(steps, 64, OptimizerConfig(4e-3, warmup_steps=20, final_fraction=0.05))


def smoke() -> Experiment:
    return Experiment(
        name="smoke",
        data=DataConfig(
            songs="grammar",
            mixture=(("grammar_c", 1.0),),
            out_of_domain=(),
            max_frames=32,
            chord_coverage=0.97,
            transpose=False,
        ),
        models=ModelsConfig(policy=TINY, anchor=TINY, reward=TINY, discriminator=TINY),
        pretrain=PretrainConfig(
            policy=supervised(500),
            anchor=supervised(250),
            contrastive=supervised(200),
            discriminative=supervised(200),
            members=1,
        ),
        algorithm=AlgorithmConfig(
            steps=80,
            batch_size=64,
            minibatch_size=16,
            kl_coef=0.004,
            entropy_coef=0.0,
            validity_mask=True,
            policy=OptimizerConfig(1e-3, 20, 0.1, 0.9, 0.95),
            critic=OptimizerConfig(2e-3, 20, 0.1, 0.9, 0.95),
            discriminator_optimizer=OptimizerConfig(2e-3, 20, 0.1, 0.9, 0.95),
            rewards=RewardsConfig(
                contrastive=2.0, discriminative=2.0, rhythm_contrastive=0.0, rhythm_discriminative=0.0
            ),
            discriminator=DiscriminatorConfig(
                steps_per_update=30, minibatch_size=32, buffer_rollouts=5, schedule_follows_updates=False
            ),
        ),
        evaluation=EvaluationConfig(songs=256, sampling="masked", every=20, monitor_songs=128),
        runtime=RuntimeConfig(checkpoint_every=40),
    )
