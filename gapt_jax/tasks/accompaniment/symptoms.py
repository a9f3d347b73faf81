"""What goes wrong with accompaniments while they are learnt: symptoms as in `gapt_jax.runtime.health`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gapt_jax.runtime.health import Row, share_of_first
from gapt_jax.tasks.accompaniment.config import Experiment


def few_progressions(history: Sequence[Row], experiment: Experiment) -> str | None:
    share = share_of_first("valid/unique_progressions", history)
    if share is None or share >= experiment.health.min_progressions:
        return None
    return (
        f"songs share {history[-1]['valid/unique_progressions']:.0f} progressions, {share:.0%} of the first policy's: "
        "the policy loops, raise λ or the KL coefficient"
    )


def ignores_melody(history: Sequence[Row], experiment: Experiment) -> str | None:
    now = history[-1]
    hits, chance = now.get("valid/note_in_chord"), now.get("valid/note_in_chord_chance")
    if hits is None or chance is None or hits >= experiment.health.min_melody_ratio * chance:
        return None
    return (
        f"note-in-chord is {hits:.3f} where chords of this density get {chance:.3f} by chance, so the policy ignores "
        "the melody: lower λ or raise the weights of the coherence rewards"
    )


def silence(history: Sequence[Row], experiment: Experiment) -> str | None:
    name = "valid/silent_share"
    first, now = history[0].get(name), history[-1].get(name)
    if first is None or now is None or now <= first + experiment.health.max_added_silence:
        return None
    return (
        f"no chord sounds under {now:.0%} of the melody ({first:.0%} at first): raise "
        "algorithm.rewards.silence, and look at which reward pays for silence"
    )


ON_EVALUATIONS: dict[str, tuple[Callable[..., str | None], str]] = {
    "few_progressions": (few_progressions, "fast_evaluations"),
    "ignores_melody": (ignores_melody, "fast_evaluations"),
    "silence": (silence, "fast_evaluations"),
}
