"""Texts of a bundle: the model card, and a configuration for Triton."""

from __future__ import annotations

from typing import Any

from gapt_jax.config import TransformerConfig
from gapt_jax.export.functions import state_names
from gapt_jax.export.verify import PAST, PRESENT

_METRICS = ("note_in_chord", "vendi_independent", "js_bigram", "unique_chords")


def model_card(manifest: dict[str, Any], evaluation: dict[str, Any] | None) -> str:
    """README.md of a bundle, with the YAML head that model hubs read."""
    origin, parameters = manifest["origin"], manifest["parameters"]
    weight = origin.get("adversarial_weight")
    training = "supervised only" if weight is None else f"post-trained with λ = {weight:g}, step {origin['step']}"
    rows = _metric_rows(origin["system"], evaluation)
    measured = f"\n## Measured\n\n| set | metric | mean |\n|---|---|---|\n{rows}" if rows else ""
    return f"""---
library_name: gapt-jax
pipeline_tag: other
tags: [music, accompaniment, real-time, jax, onnx]
---

# {manifest["name"]}

Plays a chord for each sixteenth note of a melody before that note is heard. A decoder of {parameters:,} parameters,
{training}; weights in {manifest["dtype"]}, {manifest["vocabulary_size"]:,} tokens, sessions of up to
{manifest["max_frames"]} frames ({manifest["frames_per_beat"]} a beat).

## Use

`manifest.json` has every function with its inputs and outputs, `vocabulary.json` the chords behind the token ids.
`gapt verify DIR` proves that the files are whole and play the policy that was trained; `gapt serve DIR` speaks the Open
Inference Protocol. In Python, with JAX alone: `gapt_jax/export/verify.py` is one file that reads a bundle. In any other
language: `onnx/commit_frame.onnx` by ONNX Runtime. The compiled functions are readable until {manifest["expires"]};
`gapt export refresh DIR` rebuilds them from the weights.

## Limits

It knows the chords of its vocabulary and sixteenth notes, no tempo, no metre, no dynamics. It was trained on the songs
with the fingerprint `{origin["data_fingerprint"]}`, whose licences bind whoever uses it.
{measured}"""


def _metric_rows(system: str, evaluation: dict[str, Any] | None) -> str:
    sets = (evaluation or {}).get("systems", {}).get(system, {})
    return "".join(
        f"| {name} | {metric} | {entries[metric]['mean']:.3f} |\n"
        for name, entries in sets.items()
        for metric in _METRICS
        if entries.get(metric, {}).get("mean") is not None
    )


def triton_config(name: str, config: TransformerConfig, size: int, length: int) -> str:
    """``config.pbtxt`` for Triton's ONNX Runtime backend: the caches stay in the server as state of a sequence."""
    shapes = [(1, config.heads, config.head_dim, length), (1, config.heads, length, config.head_dim)] * config.depth
    states = ",\n".join(
        f'    {{ input_name: "{past}" output_name: "{present}" data_type: TYPE_FP32 '
        f"dims: [ {', '.join(map(str, shape))} ] }}"
        for past, present, shape in zip(
            state_names(config.depth, PAST), state_names(config.depth, PRESENT), shapes, strict=True
        )
    )
    return f"""name: "{name}"
backend: "onnxruntime"
max_batch_size: 0
input [
  {{ name: "tokens" data_type: TYPE_INT32 dims: [ 1, 2 ] }},
  {{ name: "position" data_type: TYPE_INT32 dims: [ 1 ] }}
]
output [ {{ name: "logits" data_type: TYPE_FP32 dims: [ 1, {size} ] }} ]
sequence_batching {{
  max_sequence_idle_microseconds: 60000000
  state [
{states}
  ]
}}
"""
