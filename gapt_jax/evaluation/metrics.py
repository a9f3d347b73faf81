"""What each metric means that every task has, in the order of tables; a task adds its own (`task.Domain.metrics`)."""

from __future__ import annotations

from collections.abc import Mapping

from gapt_jax.task import Metric

_VENDI = "Effective number of different songs; the encoder is a reward model that "
METRICS: dict[str, Metric] = {
    "held_out_coherence": Metric(
        "Held-out coherence", "cosine", "higher",
        "How well actions and context fit for the reward model that no policy was trained against.",
    ),
    "proxy_coherence": Metric(
        "Proxy coherence", "score", "near data",
        "The same for the reward models that the policy was paid by: mean over seeds, then over models.",
    ),
    "kl": Metric(
        "KL to the MLE", "nats per frame", "lower",
        "Of the policy to the supervised one, exact over all tokens, along the policy's own actions.",
    ),
    "sqrt_kl": Metric(
        "Root of the KL", "root nats", "lower", "The axis over which proxy and gold reward are compared."
    ),
    "post_hoc_accuracy": Metric(
        "Told from data after the fact", "share of songs", "lower",
        "Accuracy of a fresh discriminator, fitted on half of the songs, on the other half; 0.5 = as data.", True,
    ),
    "vendi_independent": Metric(
        "Vendi, independent", "songs", "higher", _VENDI + "no policy was trained against.", True
    ),
    "vendi_published": Metric(
        "Vendi, published", "songs", "higher", _VENDI + "the policy was trained against.", True
    ),
    "self_similarity_independent": Metric(
        "Self-similarity, independent", "cosine", "lower", "Mean cosine between the embeddings of two songs."
    ),
    "self_similarity_published": Metric(
        "Self-similarity, published", "cosine", "lower", "The same on the encoder of the reward."
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
}  # fmt: skip


def describe(metrics: Mapping[str, Metric], name: str) -> Metric:
    """The entry of a metric; a name without one (a further encoder's, say) stands for itself."""
    return metrics.get(name, Metric(name.replace("_", " "), "", "near data", ""))


def titled(metrics: Mapping[str, Metric], name: str) -> str:
    """The label of a metric, with an arrow where more or less of it is better."""
    about = describe(metrics, name)
    return about.label + {"higher": "\u00a0↑", "lower": "\u00a0↓"}.get(about.better, "")
