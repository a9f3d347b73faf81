"""Every metric of a set of songs in one flat dict, and what each one means."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from gapt_jax.evaluation import diversity, harmony, rules
from gapt_jax.evaluation.events import chord_events
from gapt_jax.vocabulary import EOS, PAD, Vocabulary


class Metric(NamedTuple):
    """How to print and read one number."""

    label: str
    unit: str
    better: Literal["higher", "lower", "near data"]
    explanation: str
    depends_on_n: bool = False  # on the number of songs, so that only equal numbers compare


_VENDI = "Effective number of different songs; the encoder is a reward model that "
_JS = "Jensen-Shannon distance (base 2, 0 = as in data, 1 = nothing in common) of "
METRICS: dict[str, Metric] = {
    "note_in_chord": Metric(
        "Note-in-chord", "share of frames", "higher",
        "Frames whose melody pitch class is in the chord, of those where both sound.",
    ),
    "note_in_chord_chance": Metric(
        "Note-in-chord by chance", "share of frames", "near data",
        "The same with the melody moved by 1 to 11 semitones: what chords of this density get for nothing.",
    ),
    "note_in_chord_per_song": Metric(
        "Note-in-chord, per song", "share of frames", "higher", "Mean of each song's share (ReaLchords)."
    ),
    "held_out_coherence": Metric(
        "Held-out coherence", "cosine", "higher",
        "How well chords and melody fit for the reward model that no policy was trained against.",
    ),
    "proxy_coherence": Metric(
        "Proxy coherence", "score", "near data",
        "The same for the reward models that the policy was paid by: mean over members, then over kinds.",
    ),
    "kl": Metric(
        "KL to the MLE", "nats per frame", "lower",
        "Of the policy to the supervised one, exact over the vocabulary, along the policy's own chords.",
    ),
    "sqrt_kl": Metric(
        "Root of the KL", "root nats", "lower", "The axis over which proxy and gold reward are compared."
    ),
    "post_hoc_accuracy": Metric(
        "Told from data after the fact", "share of songs", "lower",
        "Accuracy of a fresh discriminator, fitted on half of the songs, on the other half; 0.5 = as data.", True,
    ),
    "silent_share": Metric(
        "No chord under melody", "share of frames", "near data", "Frames that note-in-chord leaves out."
    ),
    "vendi_independent": Metric(
        "Vendi, independent", "songs", "higher", _VENDI + "no policy was trained against.", True
    ),
    "vendi_published": Metric(
        "Vendi, published", "songs", "higher", _VENDI + "the policy was trained against.", True
    ),
    "same_melody_vendi_independent": Metric(
        "Vendi of one melody", "accompaniments", "higher",
        "The same over 16 accompaniments of one melody, averaged over melodies: 1 = always the same.",
    ),
    "self_similarity_independent": Metric(
        "Self-similarity, independent", "cosine", "lower", "Mean cosine between the embeddings of two songs."
    ),
    "self_similarity_published": Metric(
        "Self-similarity, published", "cosine", "lower", "The same on the encoder of the reward."
    ),
    "quality_entropy": Metric(
        "Quality entropy", "nats", "near data", "Over chord events: which interval set, whatever the root."
    ),
    "chord_entropy": Metric("Chord entropy", "nats", "near data", "Over chord frames. Flicker raises it."),
    "unique_chords": Metric("Unique chords", "chords", "near data", "Different chord symbols played.", True),
    "unique_progressions": Metric(
        "Unique progressions", "windows", "near data",
        "Different windows of 16 beats, by the chord held on each beat. Flicker raises it.", True,
    ),
    "unique_progressions_relative": Metric(
        "Unique progressions, any key", "windows", "near data",
        "The same with roots relative to the first chord.", True
    ),
    "distinct_1": Metric("Distinct-1", "share", "near data", "Different chords per chord event.", True),
    "distinct_2": Metric("Distinct-2", "share", "near data", "Different pairs per pair of events.", True),
    "distinct_3": Metric("Distinct-3", "share", "near data", "Different triples per triple of events.", True),
    "chord_changes_per_beat": Metric(
        "Chord changes", "per beat", "near data", "Events whose chord differs from the one before."
    ),
    "chord_onsets_per_beat": Metric("Chord onsets", "per beat", "near data", "Chord events, repeats too."),
    "pitch_classes_per_chord": Metric("Notes per chord", "pitch classes", "near data", "Over chord frames."),
    "js_unigram": Metric("Distance to data, chords", "0..1", "lower", _JS + "chords."),
    "js_bigram": Metric("Distance to data, pairs", "0..1", "lower", _JS + "pairs of consecutive chords."),
    "js_bigram_relative": Metric(
        "Distance to data, pairs in any key", "0..1", "lower", _JS + "(quality, root step, next quality)."
    ),
    "frechet_independent": Metric(
        "Frechet distance to data", "squared distance", "lower",
        "Between normal distributions fitted to the embeddings that give the independent Vendi.", True,
    ),
    "precision_independent": Metric(
        "Precision", "share of songs", "higher",
        "Songs inside the ball of a song of data up to its 5th nearest neighbour, in the same embedding.", True,
    ),
    "coverage_independent": Metric(
        "Coverage", "share of data", "higher", "Songs of data whose ball holds one of these songs.", True
    ),
    "adaptation_recovery_beats": Metric(
        "Recovery after a change of key", "beats", "lower",
        "Until note-in-chord, over 4 beats, is back to 90 % of its mean before; a lower bound if it never is.",
    ),
    "adaptation_area_lost": Metric(
        "Harmony lost to a change of key", "beats", "lower",
        "Note-in-chord without the change minus with it, summed over the beats after it.",
    ),
    "invalid_share": Metric(
        "Invalid songs", "share of songs", "lower",
        "An early stop, a token of another kind, or a hold without its chord.",),
    "repetition_share": Metric(
        "Repetitive songs", "share of songs", "near data", "More than 4 equal chords in a row."),
    "long_note_share": Metric(
        "Songs with long chords", "share of songs", "near data", "A chord of more than 8 beats."),
    "silence_violation_share": Metric(
        "Songs too silent", "share of songs", "near data", "More than 4 % silence under melody after 2 beats."
    ),
}  # fmt: skip

# What a reader needs first; the order is that of the tables.
HEADLINE = (
    "note_in_chord", "note_in_chord_chance", "silent_share", "vendi_independent", "vendi_published",
    "same_melody_vendi_independent", "quality_entropy", "chord_changes_per_beat", "js_bigram", "post_hoc_accuracy",
    "held_out_coherence", "invalid_share",
)  # fmt: skip


def describe(name: str) -> Metric:
    """The metric's entry; a name without one (a further encoder's, say) stands for itself."""
    return METRICS.get(name, Metric(name.replace("_", " "), "", "near data", ""))


def summarize(
    melody: np.ndarray,
    chords: np.ndarray,
    data_chords: np.ndarray,
    vocabulary: Vocabulary,
    embeddings: dict[str, np.ndarray],
) -> dict[str, float]:
    """All metrics of chords played over melodies (docs/method.md §12); undefined ones are NaN.

    melody, chords: [N, T] int32 tokens. Rows that are all PAD (a filled-up batch) are left out.
    data_chords: [M, T] int32, the chords that distances are measured to: those of the same songs in the data.
    embeddings: name -> [N, D], a row per song of `chords`. "published": a reward model that the policy was
    trained against; "independent": one of a seed that no policy saw. A song whose chords stop at once
    is skipped (docs/method.md §12.3).
    """
    songs = (melody != PAD).any(1)
    melody, chords = melody[songs], np.where(melody == PAD, PAD, chords)[songs]
    tables = vocabulary.tables
    events, data_events = chord_events(chords, tables), chord_events(data_chords, tables)
    coherence = harmony.note_in_chord(melody, chords, tables)
    per_song = coherence.per_song[coherence.frames > 0]
    result: dict[str, float] = {
        "note_in_chord": coherence.pooled,
        "note_in_chord_per_song": per_song.mean() if len(per_song) else float("nan"),
        "note_in_chord_chance": harmony.chance_level(melody, chords, tables),
        "silent_share": harmony.silent_share(melody, chords, tables),
        "pitch_classes_per_chord": harmony.pitch_classes_per_chord(chords, tables),
        "quality_entropy": diversity.quality_entropy(events),
        "chord_entropy": diversity.chord_entropy(chords, tables),
        "unique_chords": diversity.unique_chords(events),
        "unique_progressions": diversity.unique_progressions(chords, tables),
        "unique_progressions_relative": diversity.unique_progressions_relative(chords, tables),
        "chord_changes_per_beat": diversity.chord_changes_per_beat(chords, events),
        "chord_onsets_per_beat": diversity.chord_onsets_per_beat(chords, events),
        "js_unigram": diversity.js_unigram(events, data_events),
        "js_bigram": diversity.js_bigram(events, data_events),
        "js_bigram_relative": diversity.js_bigram_relative(events, data_events),
    }
    result |= {f"distinct_{n}": diversity.distinct(events, n) for n in (1, 2, 3)}
    violations = {
        "invalid_share": rules.invalid(melody, chords, tables),
        "repetition_share": rules.repetition(events, len(melody)),
        "long_note_share": rules.long_note(chords),
        "silence_violation_share": rules.silence(melody, chords, tables),
    }
    result |= {name: broken.mean() if len(broken) else float("nan") for name, broken in violations.items()}
    for name, rows in embeddings.items():
        rows = rows[songs][(chords > EOS).any(1)]
        result |= {
            f"vendi_{name}": diversity.vendi(rows),
            f"self_similarity_{name}": diversity.self_similarity(rows),
        }
    return {name: float(value) for name, value in result.items()}
