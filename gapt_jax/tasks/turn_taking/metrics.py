"""The metrics of turn-taking: what each one means, and those of a set of conversations in one flat dict."""

from __future__ import annotations

import numpy as np

from gapt_jax.evaluation import metrics
from gapt_jax.evaluation.statistics import share
from gapt_jax.task import PAD, Metric
from gapt_jax.tasks.turn_taking import timing, tokens, violations
from gapt_jax.tasks.turn_taking.stretches import Heard, heard, shifted

SHIFTS = tuple(k / 8 for k in range(1, 8))  # of the agent against the others, as shares of a conversation

_JS = "Jensen-Shannon distance (base 2, 0 = as in data, 1 = nothing in common) of "
_CHANCE = "The same with the agent moved in time against the others: what so much speech gets for nothing."


def _of_conversations(about: Metric) -> Metric:
    """A metric that every task has, in this one's words."""
    unit, explanation = (text.replace("song", "conversation") for text in (about.unit, about.explanation))
    return about._replace(unit=unit, explanation=explanation.replace("Song", "Conversation"))


_EVERY_TASK = {name: _of_conversations(about) for name, about in metrics.METRICS.items()}

METRICS: dict[str, Metric] = {
    "clear_speech": Metric(
        "Speaks while others are silent", "share of speech", "higher",
        "Frames of the agent's speech in which nobody else speaks.",
        chance="clear_speech_chance",
    ),
    "clear_speech_chance": Metric("Speaks while others are silent, by chance", "share of speech", "near data", _CHANCE),
    "prompt_answers": Metric(
        "Answers within 400 ms", "share of ends", "near data",
        "Where all others fall silent and the agent is silent too, it begins to speak in this frame or the next.",
        chance="prompt_answers_chance",
    ),
    "prompt_answers_chance": Metric("Answers within 400 ms, by chance", "share of ends", "near data", _CHANCE),
    "speaking_share": Metric("Speaks", "share of time", "near data", "Turns and backchannels."),
    "overlap_share": Metric("Speaks over others", "share of time", "near data", "The agent and somebody else speak."),
    "silence_share": Metric("Nobody speaks", "share of time", "near data", "Neither the agent nor anybody else."),
    "transfer_seconds": Metric(
        "Floor-transfer offset", "s", "near data",
        "Median time from the end of the others to the turn by which the agent takes the floor; below 0 it begins "
        "before they end.",
    ),
    "js_transfer": Metric("Distance to data, floor transfers", "0..1", "lower", _JS + "floor-transfer offsets."),
    "turn_seconds": Metric("Length of turns", "s", "near data", "Mean, of turns that begin and end in the excerpt."),
    "js_turns": Metric("Distance to data, turns", "0..1", "lower", _JS + "lengths of turns, in logarithmic bins."),
    "pause_seconds": Metric("Length of pauses", "s", "near data", "Mean, from one stretch of speech to the next."),
    "js_pauses": Metric("Distance to data, pauses", "0..1", "lower", _JS + "lengths of pauses, in logarithmic bins."),
    "onsets_per_minute": Metric("Stretches", "per minute", "near data", "Turns, backchannels and vocal sounds."),
    "interruptions_per_minute": Metric(
        "Interruptions", "per minute", "near data", "Turns that begin while somebody else goes on speaking."
    ),
    "backchannels_per_minute": Metric(
        "Backchannels", "per minute", "near data", "Stretches of speech up to 1 s, apart from longer ones."
    ),
    "backchannels_over_speech": Metric(
        "Backchannels under speech", "share of backchannels", "near data",
        "Those that begin while somebody else speaks.",
    ),
    "vocal_per_minute": Metric("Vocal sounds", "per minute", "near data", "Laughs, coughs and the like."),
    "held_out_coherence": _EVERY_TASK["held_out_coherence"],
    "proxy_coherence": _EVERY_TASK["proxy_coherence"],
    "kl": _EVERY_TASK["kl"],
    "sqrt_kl": _EVERY_TASK["sqrt_kl"],
    "post_hoc_accuracy": _EVERY_TASK["post_hoc_accuracy"],
    "vendi_independent": _EVERY_TASK["vendi_independent"],
    "vendi_published": _EVERY_TASK["vendi_published"],
    "same_context_vendi_independent": Metric(
        "Vendi of one context", "plays", "higher",
        "The same over 16 plays beside the same others, averaged over conversations: 1 = always the same.",
    ),
    "self_similarity_independent": _EVERY_TASK["self_similarity_independent"],
    "self_similarity_published": _EVERY_TASK["self_similarity_published"],
    "frechet_independent": _EVERY_TASK["frechet_independent"],
    "precision_independent": _EVERY_TASK["precision_independent"],
    "coverage_independent": _EVERY_TASK["coverage_independent"],
    "mute_share": Metric("Says nothing", "share of conversations", "near data", "In the whole excerpt."),
    "monologue_share": Metric("Monologues", "share of conversations", "near data", "A turn of more than 22.4 s."),
    "chatter_share": Metric(
        "Chatter", "share of conversations", "near data", "More than 4 stretches begin within 10 s."),
    "invalid_share": Metric(
        "Invalid conversations", "share of conversations", "lower",
        "An early stop, a token of another kind, or a hold without its onset.",
    ),
}  # fmt: skip

# What a reader needs first; the order is that of the tables.
HEADLINE = (
    "clear_speech", "clear_speech_chance", "speaking_share", "vendi_independent", "vendi_published",
    "same_context_vendi_independent", "prompt_answers", "prompt_answers_chance", "transfer_seconds", "js_transfer",
    "js_turns", "js_pauses", "backchannels_per_minute", "interruptions_per_minute", "post_hoc_accuracy",
    "held_out_coherence", "mute_share", "invalid_share",
)  # fmt: skip
TABLE = (
    "clear_speech", "clear_speech_chance", "speaking_share", "overlap_share", "vendi_independent", "vendi_published",
    "prompt_answers", "js_transfer", "js_turns", "onsets_per_minute", "mute_share", "invalid_share",
)  # fmt: skip
COMPARED = (
    "vendi_independent", "clear_speech", "speaking_share", "js_transfer", "js_turns", "backchannels_per_minute",
    "prompt_answers", "held_out_coherence",
)  # fmt: skip
PROGRESS = (
    "reward/total", "reward/contrastive", "reward/discriminative", "reward/adversarial", "kl", "entropy",
    "discriminator/accuracy", "valid/clear_speech", "valid/vendi_independent",
)  # fmt: skip


def clear_speech(context: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frames of speech in which nobody else speaks, frames of speech), each [N]."""
    return _clear(heard(context, actions))


def _clear(found: Heard) -> tuple[np.ndarray, np.ndarray]:
    return (found.speech & (found.others == 0)).sum(1), found.speech.sum(1)


def fit(context: np.ndarray, actions: np.ndarray) -> dict[str, float]:
    """How well a participant [N, T] fits what he hears [N, T], and how well by chance."""
    found = heard(context, actions)
    moved = [heard(context, shifted(actions, found.lengths, by)) for by in SHIFTS]
    result = {}
    for name, counts in (("clear_speech", _clear), ("prompt_answers", timing.prompt_answers)):
        result[name] = share(*(part.sum() for part in counts(found)))
        by_chance = np.array([[part.sum() for part in counts(other)] for other in moved]).sum(0)
        result[f"{name}_chance"] = share(*by_chance)
    return result


def times(found: Heard, data: Heard) -> dict[str, float]:
    """How long and how often, beside the data."""
    offsets, turns, pauses = timing.transfer_offsets(found), timing.turn_lengths(found), timing.pauses(found)
    under, backchannels = timing.backchannels(found)
    counts = timing.length_counts
    rates = {
        "onsets_per_minute": len(found.stretches.row),
        "interruptions_per_minute": timing.interruptions(found),
        "backchannels_per_minute": backchannels,
        "vocal_per_minute": int((found.stretches.kind == tokens.VOCAL).sum()),
    }
    return {
        "transfer_seconds": float(np.median(offsets)) * tokens.FRAME_SECONDS if len(offsets) else float("nan"),
        "js_transfer": timing.distance(timing.offset_counts(found), timing.offset_counts(data)),
        "turn_seconds": timing.seconds(turns),
        "js_turns": timing.distance(counts(turns), counts(timing.turn_lengths(data))),
        "pause_seconds": timing.seconds(pauses),
        "js_pauses": timing.distance(counts(pauses), counts(timing.pauses(data))),
        **{name: share(number, found.minutes) for name, number in rates.items()},
        "backchannels_over_speech": share(under, backchannels),
    }


def summarize(context: np.ndarray, actions: np.ndarray, data: np.ndarray) -> dict[str, float]:
    """All metrics of what agents did beside the others of `context`, and of the data for the same; undefined ones are
    NaN. All [N, T] int32 tokens; rows that are all PAD (a filled-up batch) are left out."""
    rows = (context != PAD).any(1)
    context, actions, data = context[rows], actions[rows], data[rows]
    found, frames = heard(context, actions), float((context != PAD).sum())
    broken = {
        "mute_share": violations.mute(found),
        "monologue_share": violations.monologue(context, actions),
        "chatter_share": violations.chatter(found),
        "invalid_share": violations.invalid(context, actions),
    }
    return {
        **fit(context, actions),
        "speaking_share": share(found.speech.sum(), frames),
        "overlap_share": share((found.speech & (found.others > 0)).sum(), frames),
        "silence_share": share((found.is_in & ~found.speech & (found.others == 0)).sum(), frames),
        **times(found, heard(context, data)),
        **{name: share(conversations.sum(), len(context)) for name, conversations in broken.items()},
    }
