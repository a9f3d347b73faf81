"""When to speak in a meeting, on a laptop: 25.6 s, 0.2 M parameters, one contrastive and one discriminative reward.

Hardware: 2 CPU cores. Time: 20 min for the supervised stages, then 40 min for 24 agents, evaluation included.
Result, six seeds, AMI test: nothing collapses, the verdict is void; λ = 0 becomes a reflex that answers 90 % of the
ends within 400 ms (people: 9 %), λ = 2 16 % (docs/turn_taking.md). Command, with a folder of RTTM files:

    gapt run turns --set data.songs=FOLDER
    gapt ablate turns --lambdas 0,0.5,1,2 --seeds 6 --set data.songs=FOLDER

Excerpts are twice as long as those of `small`: as much of a reward at the end reaches the first frame (0.975 over 128
frames, 0.95 over 64), and the KL of a whole excerpt weighs as much. docs/turn_taking.md says how the rest was chosen.
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

TINY = TransformerConfig(dim=64, depth=2, heads=2, head_dim=32, dropout=0.0)
REWARD = TransformerConfig(dim=64, depth=2, heads=4, head_dim=32, dropout=0.0)


def supervised(steps: int, *, batch_size: int = 32) -> FitConfig:
    return FitConfig(steps, batch_size, OptimizerConfig(2e-3, warmup_steps=100, final_fraction=0.05))


def turns() -> Experiment:
    return Experiment(
        name="turns",
        data=DataConfig(songs="conversations", max_frames=128),
        models=ModelsConfig(policy=TINY, anchor=TINY, reward=REWARD, discriminator=TINY),
        pretrain=PretrainConfig(
            policy=supervised(500),
            anchor=supervised(200),
            contrastive=supervised(1_000, batch_size=64),
            discriminative=supervised(400),
            members=1,
        ),
        algorithm=AlgorithmConfig(
            steps=60,
            batch_size=32,
            minibatch_size=8,
            gae_lambda=0.975,
            kl_coef=0.002,
            entropy_coef=0.0,
            validity_mask=True,
            policy=OptimizerConfig(3e-4, 10, 1.0, 0.9, 0.95),
            critic=OptimizerConfig(1e-3, 20, 1.0, 0.9, 0.95),
            discriminator_optimizer=OptimizerConfig(1e-3, 20, 1.0, 0.9, 0.95),
            rewards=RewardsConfig(
                contrastive=2.0, discriminative=2.0, rhythm_contrastive=0.0, rhythm_discriminative=0.0
            ),
            discriminator=DiscriminatorConfig(
                gate_warmup_steps=60,
                steps_per_update=40,
                minibatch_size=16,
                buffer_rollouts=5,
                schedule_follows_updates=False,
            ),
        ),
        evaluation=EvaluationConfig(songs=512, sampling="masked", every=20, monitor_songs=64),
        runtime=RuntimeConfig(checkpoint_every=40, microbatch_rows=4),
    )
