"""What goes wrong with turn-taking while it is learnt: symptoms as in `gapt_jax.runtime.health`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gapt_jax.runtime.health import Row, share_of_first
from gapt_jax.tasks.turn_taking.config import Experiment

SPEAKING, ONSETS = "valid/speaking_share", "valid/onsets_per_minute"


def never_speaks(history: Sequence[Row], experiment: Experiment) -> str | None:
    share = share_of_first(SPEAKING, history)
    if share is None or share >= experiment.health.min_speaking:
        return None
    return (
        f"the agent speaks {history[-1][SPEAKING]:.1%} of the time, {share:.0%} of the first policy's: raise "
        "algorithm.rewards.mute, λ or the KL coefficient, and look at which reward pays for silence"
    )


def always_speaks(history: Sequence[Row], experiment: Experiment) -> str | None:
    first, now = history[0].get(SPEAKING), history[-1].get(SPEAKING)
    if first is None or now is None or now <= first + experiment.health.max_added_speaking:
        return None
    return (
        f"the agent speaks {now:.0%} of the time ({first:.0%} at first): raise algorithm.rewards.monologue, λ or the "
        "KL coefficient, and look at which reward pays for speech"
    )


def chatters(history: Sequence[Row], experiment: Experiment) -> str | None:
    share = share_of_first(ONSETS, history)
    if share is None or share <= experiment.health.max_onsets:
        return None
    return (
        f"{history[-1][ONSETS]:.1f} stretches begin a minute, {share:.1f} times the first policy's: raise "
        "algorithm.rewards.chatter, λ or the KL coefficient"
    )


def ignores_partners(history: Sequence[Row], experiment: Experiment) -> str | None:
    now = history[-1]
    clear, chance = now.get("valid/clear_speech"), now.get("valid/clear_speech_chance")
    if clear is None or chance is None or clear >= experiment.health.min_clear_ratio * chance:
        return None
    return (
        f"{clear:.1%} of the agent's speech has no other speech beside it, where so much speech gets {chance:.1%} by "
        "chance, so the policy ignores its partners: lower λ or raise the weights of the coherence rewards"
    )


ON_EVALUATIONS: dict[str, tuple[Callable[..., str | None], str]] = {
    "never_speaks": (never_speaks, "fast_evaluations"),
    "always_speaks": (always_speaks, "fast_evaluations"),
    "chatters": (chatters, "fast_evaluations"),
    "ignores_partners": (ignores_partners, "fast_evaluations"),
}
