"""The published GAPT system: sizes and settings of the paper and its released code.

Hardware: an accelerator with bfloat16; a third-party run of the published code took about 3.5 h on one H100 for the
1,000 post-training steps (method.md §7). Not run here: no accelerator. Command:

    gapt run gapt --set data.songs=FOLDER

Sources: T = the paper's text, C = the released code (research/papers.md, research/reference.md).
"""

from gapt_jax.config import (
    AlgorithmConfig,
    DataConfig,
    DiscriminatorConfig,
    EvaluationConfig,
    Experiment,
    FitConfig,
    ModelsConfig,
    OptimizerConfig,
    PretrainConfig,
    RewardsConfig,
    RuntimeConfig,
    TransformerConfig,
)

ADAM = OptimizerConfig(learning_rate=1e-4, b1=0.9, b2=0.999, clip_norm=1.0)  # C reference §3.1, constant rate


def post_training(learning_rate: float) -> OptimizerConfig:
    """Adam 0.9 / 0.95, clip 1, 800 warm-up updates (100 steps × 8), cosine to 10 % (T C.5, C reference §4.1)."""
    return OptimizerConfig(learning_rate, warmup_steps=800, final_fraction=0.1, b1=0.9, b2=0.95, clip_norm=1.0)


def gapt() -> Experiment:
    return Experiment(
        name="gapt",
        data=DataConfig(
            songs="songs",
            mixture=(("hooktheory", 0.6), ("pop909", 0.3), ("nottingham", 0.1)),  # T B.2, C reference §1.6
            out_of_domain=("openewld",),  # T B.2: "Wikifonia", of which the public part is OpenEWLD
            max_frames=256,  # T 3.1
            chord_coverage=0.999,  # ours (method.md §1); published: all 2,821 names
            transpose=True,  # -6..+6, T B.2
        ),
        models=ModelsConfig(
            policy=TransformerConfig(dim=512, depth=8, heads=8, head_dim=64, ff_mult=4, dropout=0.1),  # T C.1, C §2.2
            anchor=TransformerConfig(dim=512, depth=8, heads=8, head_dim=64, ff_mult=4, dropout=0.1),  # T C.1, C §2.3
            reward=TransformerConfig(dim=512, depth=6, heads=6, head_dim=64, ff_mult=4, dropout=0.1),  # T C.2, C §2.4
            discriminator=TransformerConfig(dim=512, depth=8, heads=8, head_dim=64, ff_mult=4, dropout=0.1),  # T C.6
            compute_dtype="bfloat16",  # C §2.9; logits, ratios and rewards stay float32 (design.md §4)
        ),
        pretrain=PretrainConfig(
            policy=FitConfig(11_000, 64, ADAM),  # T C.1
            anchor=FitConfig(13_000, 64, ADAM),  # T C.1
            contrastive=FitConfig(8_000, 196, ADAM),  # T C.2
            discriminative=FitConfig(3_000, 128, ADAM),  # T C.2
            rhythm_contrastive=FitConfig(2_500, 196, ADAM),  # T C.2
            rhythm_discriminative=FitConfig(3_000, 64, ADAM),  # T C.2
            members=2,  # T 3.4
            held_out=1,  # ours: the independent encoder of the evaluation (method.md §6)
        ),
        algorithm=AlgorithmConfig(
            adversarial_weight=1.0,  # T Eq. 6
            steps=1_000,  # T C.5
            batch_size=384,  # T C.5
            minibatch_size=48,  # T C.5
            epochs=1,  # C §4.1
            discount=1.0,  # C §4.1
            gae_lambda=0.95,  # C §4.1
            clip_epsilon=0.2,  # C §4.1
            kl_coef=0.001,  # T C.5
            entropy_coef=0.01,  # T C.5
            validity_mask=False,  # C §4.2
            policy=post_training(5e-6),  # C §4.1; the paper prints the floor of this schedule (papers.md a6)
            critic=post_training(9e-5),  # C §4.1, likewise
            discriminator_optimizer=post_training(9e-5),  # T C.6
            rewards=RewardsConfig(ensemble="sum"),  # C §4.4: all weights 1 but long_note 0
            discriminator=DiscriminatorConfig(
                reward_form="neg_log_one_minus",  # T 3.3
                label_smoothing=0.1,  # T C.6, two-class sense C §5.2
                gate_window=3,  # T 3.3
                gate_threshold=1.0,  # T 3.3
                gate_warmup_steps=200,  # T 3.3
                gate_period=5,  # T 3.3
                steps_per_update=8,  # T C.8: one per PPO minibatch
                minibatch_size=48,  # C §5.1
                buffer_rollouts=1,  # C §5.1: no replay of older rollouts
                schedule_follows_updates=True,  # C §5.2
            ),
        ),
        evaluation=EvaluationConfig(songs=512, sampling="unfiltered", every=200),  # C §4.9 for `every`
        runtime=RuntimeConfig(checkpoint_every=50),
    )
