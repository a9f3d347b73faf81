"""The metrics of accompaniments: what each one means, and those of a set of songs in one flat dict."""

from __future__ import annotations

import numpy as np

from gapt_jax.evaluation import metrics
from gapt_jax.task import Metric
from gapt_jax.tasks.accompaniment import harmony, variety, violations
from gapt_jax.tasks.accompaniment.events import ChordEvents, chord_events
from gapt_jax.vocabulary import PAD, TokenTables, Vocabulary

_JS = "Jensen-Shannon distance (base 2, 0 = as in data, 1 = nothing in common) of "
METRICS: dict[str, Metric] = {
    "note_in_chord": Metric(
        "Note-in-chord", "share of frames", "higher",
        "Frames whose melody pitch class is in the chord, of those where both sound.",
        chance="note_in_chord_chance",
    ),
    "note_in_chord_chance": Metric(
        "Note-in-chord by chance", "share of frames", "near data",
        "The same with the melody moved by 1 to 11 semitones: what chords of this density get for nothing.",
    ),
    "note_in_chord_per_song": Metric(
        "Note-in-chord, per song", "share of frames", "higher", "Mean of each song's share (ReaLchords)."
    ),
    "held_out_coherence": metrics.METRICS["held_out_coherence"],
    "proxy_coherence": metrics.METRICS["proxy_coherence"],
    "kl": metrics.METRICS["kl"],
    "sqrt_kl": metrics.METRICS["sqrt_kl"],
    "post_hoc_accuracy": metrics.METRICS["post_hoc_accuracy"],
    "silent_share": Metric(
        "No chord under melody", "share of frames", "near data", "Frames that note-in-chord leaves out."
    ),
    "vendi_independent": metrics.METRICS["vendi_independent"],
    "vendi_published": metrics.METRICS["vendi_published"],
    "same_melody_vendi_independent": Metric(
        "Vendi of one melody", "accompaniments", "higher",
        "The same over 16 accompaniments of one melody, averaged over melodies: 1 = always the same.",
    ),
    "self_similarity_independent": metrics.METRICS["self_similarity_independent"],
    "self_similarity_published": metrics.METRICS["self_similarity_published"],
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
    "frechet_independent": metrics.METRICS["frechet_independent"],
    "precision_independent": metrics.METRICS["precision_independent"],
    "coverage_independent": metrics.METRICS["coverage_independent"],
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
TABLE = (
    "note_in_chord", "note_in_chord_chance", "vendi_independent", "vendi_published", "quality_entropy",
    "unique_chords", "chord_changes_per_beat", "js_bigram", "silent_share", "invalid_share",
)  # fmt: skip
COMPARED = (
    "vendi_independent", "note_in_chord", "quality_entropy", "chord_changes_per_beat", "js_bigram",
    "held_out_coherence",
)  # fmt: skip
PROGRESS = (
    "reward/total", "reward/contrastive", "reward/discriminative", "reward/adversarial", "kl", "entropy",
    "discriminator/accuracy", "valid/note_in_chord", "valid/vendi_independent",
)  # fmt: skip

PUBLISHED = (  # docs/method.md §13: harmony and Vendi on test, on OpenEWLD, and with a melody agent
    ("System", "Test harmony", "Test Vendi", "OOD harmony", "OOD Vendi", "With melody agent"),
    ("Online MLE", ".368", "29.49", ".362", "16.40", ".650 / 18.07"),
    ("ReaLchords (PPO, no adversary, Hooktheory only)", ".484", "20.97", ".475", "8.42", ".626 / 7.48"),
    ("GAPT without adversary", ".476", "20.81", ".447", "8.03", ".540 / 5.66"),
    ("GAPT", ".497", "26.65", ".470", "11.30", ".648 / 12.91"),
    ("Data", ".727", "27.92", ".784", "10.96", ""),
)
PUBLISHED_REWARDS = (  # docs/method.md §13: on test, retrieval from melody to chords
    ("Reward model", "R@1", "R@5", "R@10", "mAP@10", "Precision", "Recall", "F1"),
    ("GAPT, contrastive 1", ".18", ".41", ".54", ".28", "", "", ""),
    ("GAPT, contrastive 2", ".18", ".41", ".53", ".28", "", "", ""),
    ("GAPT, rhythm contrastive 1", ".04", ".14", ".21", ".08", "", "", ""),
    ("GAPT, rhythm contrastive 2", ".03", ".12", ".19", ".07", "", "", ""),
    ("GAPT, discriminative 1", "", "", "", "", ".86", ".88", ".87"),
    ("GAPT, discriminative 2", "", "", "", "", ".87", ".87", ".87"),
    ("GAPT, rhythm discriminative 1", "", "", "", "", ".73", ".89", ".80"),
    ("GAPT, rhythm discriminative 2", "", "", "", "", ".77", ".82", ".79"),
    ("ReaLchords, contrastive", ".17", "", ".49", ".26", "", "", ""),
    ("ReaLchords, discriminative", "", "", "", "", "~.69", ".91", ".79"),
)


def fit(melody: np.ndarray, chords: np.ndarray, vocabulary: Vocabulary) -> dict[str, float]:
    """How well melody and chords [N, T] fit, whoever played them."""
    coherence = harmony.note_in_chord(melody, chords, vocabulary.tables)
    per_song = coherence.per_song[coherence.frames > 0]
    return {
        "note_in_chord": coherence.pooled,
        "note_in_chord_per_song": float(per_song.mean()) if len(per_song) else float("nan"),
        "note_in_chord_chance": harmony.chance_level(melody, chords, vocabulary.tables),
    }


def broken_rules(heard: np.ndarray, played: np.ndarray, events: ChordEvents, tables: TokenTables) -> dict[str, float]:
    """Shares of the songs in which an agent broke a rule; its events, and the tables of its role."""
    broken = {
        "invalid_share": violations.invalid(heard, played, tables),
        "repetition_share": violations.repetition(events, len(played)),
        "long_note_share": violations.long_note(played),
        "silence_violation_share": violations.silence(heard, played, tables),
    }
    return {name: float(songs.mean()) if len(songs) else float("nan") for name, songs in broken.items()}


def summarize(
    melody: np.ndarray, chords: np.ndarray, data_chords: np.ndarray, vocabulary: Vocabulary
) -> dict[str, float]:
    """All metrics of chords played over melodies (docs/method.md §12); undefined ones are NaN.

    melody, chords: [N, T] int32 tokens. Rows that are all PAD (a filled-up batch) are left out.
    data_chords: [M, T] int32, the chords that distances are measured to: those of the same songs in the data.
    """
    songs = (melody != PAD).any(1)
    melody, chords = melody[songs], np.where(melody == PAD, PAD, chords)[songs]
    tables = vocabulary.tables
    events, data_events = chord_events(chords, tables), chord_events(data_chords, tables)
    result: dict[str, float] = {
        **fit(melody, chords, vocabulary),
        "silent_share": harmony.silent_share(melody, chords, tables),
        "pitch_classes_per_chord": harmony.pitch_classes_per_chord(chords, tables),
        "quality_entropy": variety.quality_entropy(events),
        "chord_entropy": variety.chord_entropy(chords, tables),
        "unique_chords": variety.unique_chords(events),
        "unique_progressions": variety.unique_progressions(chords, tables),
        "unique_progressions_relative": variety.unique_progressions_relative(chords, tables),
        "chord_changes_per_beat": variety.chord_changes_per_beat(chords, events),
        "chord_onsets_per_beat": variety.chord_onsets_per_beat(chords, events),
        "js_unigram": variety.js_unigram(events, data_events),
        "js_bigram": variety.js_bigram(events, data_events),
        "js_bigram_relative": variety.js_bigram_relative(events, data_events),
    }
    result |= {f"distinct_{n}": variety.distinct(events, n) for n in (1, 2, 3)}
    result |= broken_rules(melody, chords, events, tables)
    return {name: float(value) for name, value in result.items()}
