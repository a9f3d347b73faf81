"""Ablations whose arms name rewards of this task (`training.presets` has the others)."""

from __future__ import annotations

from gapt_jax.training.presets import PRESETS as OF_ALL_TASKS
from gapt_jax.training.presets import REWARDS, WEIGHT, Arm, of_lambda

# Two seeds of weight 1 count as the one seed of weight 2 that `small` has; all arms share these supervised stages.
_SHARED = ("pretrain.members=2", f"{REWARDS}.contrastive=1", f"{REWARDS}.discriminative=1")
# From `small` towards the published settings, one at a time: name -> what readers call it, settings.
_FACTORS = {
    "eight_rewards": ("all eight rewards", (f"{REWARDS}.rhythm_contrastive=1", f"{REWARDS}.rhythm_discriminative=1")),
    "weights_1": ("weights 1", (f"{REWARDS}.ensemble=mean",)),
    "no_mask": ("no mask", ("algorithm.validity_mask=false",)),
    "entropy_bonus": ("η = 0.01", ("algorithm.entropy_coef=0.01",)),
    "longer": (
        "1,000 steps at a third of the rates",
        ("algorithm.steps=1000", "algorithm.policy.learning_rate=1e-4", "algorithm.critic.learning_rate=3.3e-4"),
    ),
    "slow_discriminator": (
        "the published schedule of D",
        (
            "algorithm.discriminator.schedule_follows_updates=true",
            "algorithm.discriminator_optimizer.warmup_steps=1600",  # a tenth of all updates
            "algorithm.discriminator_optimizer.final_fraction=0.1",
        ),
    ),
}


def _with(factor: str, weight: float) -> Arm:
    label, settings = _FACTORS[factor]
    name = f"{factor},lambda={weight:g}"
    return Arm(name, f"λ = {weight:g}, {label}", (*_SHARED, *settings, f"{WEIGHT}={weight!r}"))


_BASE = tuple(Arm(arm.name, arm.label, (*_SHARED, *arm.settings)) for arm in map(of_lambda, (0.0, 1.0)))
PRESETS = {
    "published": (
        *_BASE,
        *(
            _with(factor, weight)
            for factor in _FACTORS
            for weight in (0.0, 1.0)
            if factor != "slow_discriminator" or weight  # without an adversary it makes no difference
        ),
    ),
    "weights": (
        *OF_ALL_TASKS["weights"],
        Arm(
            "weights=1,invalid,1",
            "1 · coherence + validity + 1 · realism",
            (f"{WEIGHT}=1", *(f"{REWARDS}.{rule}=0" for rule in ("early_stop", "silence", "repetition"))),
        ),
    ),
}
