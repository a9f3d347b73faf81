"""The published GAPT system: sizes and settings of the paper and its released code.

Hardware: an accelerator with bfloat16; a third-party run of the published code took about 3.5 h on one H100 for the
1,000 post-training steps (docs/method.md §13). Not run here: no accelerator. Command:

    gapt run gapt --set data.songs=FOLDER

Sources: T = arXiv:2511.17879 by section or equation; C = github.com/lukewys/realchords-pytorch at 75a6324 by path and
line, where `gapt` and `base` are gapt.yml and rl_realchords_base.yml of its configs/single_agent_rl. Widths of heads
and feed-forward: docs/method.md §2.1.
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

ADAM = OptimizerConfig(learning_rate=1e-4, b1=0.9, b2=0.999, clip_norm=1.0)  # docs/method.md §3.1, constant rate


def post_training(learning_rate: float) -> OptimizerConfig:
    """Adam 0.9 / 0.95, clip 1, 800 warm-up updates (100 steps × 8), cosine to 10 % (T C.5; docs/method.md §6.4)."""
    return OptimizerConfig(learning_rate, warmup_steps=800, final_fraction=0.1, b1=0.9, b2=0.95, clip_norm=1.0)


def gapt() -> Experiment:
    return Experiment(
        name="gapt",
        data=DataConfig(
            songs="songs",
            mixture=(("hooktheory", 0.6), ("pop909", 0.3), ("nottingham", 0.1)),  # T B.2
            out_of_domain=("openewld",),  # T B.2: "Wikifonia", of which the public part is OpenEWLD
            max_frames=256,  # T 3.1
            chord_coverage=0.999,  # ours (docs/method.md §1.4); published: all 2,821 names
            transpose=True,  # -6..+6, T B.2
        ),
        models=ModelsConfig(
            policy=TransformerConfig(dim=512, depth=8, heads=8, head_dim=64, ff_mult=4, dropout=0.1),  # T C.1
            anchor=TransformerConfig(dim=512, depth=8, heads=8, head_dim=64, ff_mult=4, dropout=0.1),  # T C.1
            reward=TransformerConfig(dim=512, depth=6, heads=6, head_dim=64, ff_mult=4, dropout=0.1),  # T C.2
            discriminator=TransformerConfig(dim=512, depth=8, heads=8, head_dim=64, ff_mult=4, dropout=0.1),  # T C.6
            compute_dtype="bfloat16",  # base:100; logits, ratios and rewards stay float32 (docs/method.md §9.1)
        ),
        pretrain=PretrainConfig(
            policy=FitConfig(11_000, 64, ADAM),  # T C.1
            anchor=FitConfig(13_000, 64, ADAM),  # T C.1
            contrastive=FitConfig(8_000, 196, ADAM),  # T C.2
            discriminative=FitConfig(3_000, 128, ADAM),  # T C.2
            rhythm_contrastive=FitConfig(2_500, 196, ADAM),  # T C.2
            rhythm_discriminative=FitConfig(3_000, 64, ADAM),  # T C.2
            members=2,  # T 3.4
            held_out=1,  # ours: the independent encoder of the evaluation (docs/method.md §12.3)
        ),
        algorithm=AlgorithmConfig(
            adversarial_weight=1.0,  # T Eq. 6
            steps=1_000,  # T C.5
            batch_size=384,  # T C.5
            minibatch_size=48,  # T C.5
            epochs=1,  # base:22
            discount=1.0,  # base:61
            gae_lambda=0.95,  # base:60
            clip_epsilon=0.2,  # base:57
            kl_coef=0.001,  # T C.5
            entropy_coef=0.01,  # T C.5
            validity_mask=False,  # C realchords/rl/actor.py:202-207
            policy=post_training(5e-6),  # base:66; T C.5 prints the floor of this schedule
            critic=post_training(9e-5),  # base:67, likewise
            discriminator_optimizer=post_training(9e-5),  # T C.6
            rewards=RewardsConfig(ensemble="sum"),  # gapt:20-29: all weights 1 but long_note 0
            discriminator=DiscriminatorConfig(
                reward_form="neg_log_one_minus",  # T 3.3
                label_smoothing=0.1,  # T C.6, in the two-class sense of C realchords/rl/rl_trainer.py:824
                gate_window=3,  # T 3.3
                gate_threshold=1.0,  # T 3.3
                gate_warmup_steps=200,  # T 3.3
                gate_period=5,  # T 3.3
                steps_per_update=8,  # T C.8: one per PPO minibatch
                minibatch_size=48,  # C realchords/rl/rl_trainer.py:892-903: those of PPO
                buffer_rollouts=1,  # likewise: no replay of older rollouts
                schedule_follows_updates=True,  # C realchords/rl/rl_trainer.py:940-945
            ),
        ),
        evaluation=EvaluationConfig(songs=512, sampling="unfiltered", every=200),  # base:8 for `every`
        runtime=RuntimeConfig(checkpoint_every=50),
    )
