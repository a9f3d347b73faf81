"""Texts of a bundle: the model card, and a configuration for Triton."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, NamedTuple

from gapt_jax.config import TransformerConfig
from gapt_jax.export.functions import state_names
from gapt_jax.export.verify import PAST, PRESENT

_METRICS = ("note_in_chord", "vendi_independent", "js_bigram", "unique_chords")


class TrainingSet(NamedTuple):
    """A dataset that a policy was trained on. Licence, as its source states it, and source are empty where unknown."""

    name: str
    weight: float
    licence: str
    source: str


@dataclasses.dataclass(frozen=True)
class Training:
    """What a run tells beside what is in a manifest; empty where it is not known."""

    sets: tuple[TrainingSet, ...] = ()
    command: str = ""
    licence: str = ""  # of the weights, as whoever exports them states it


def title(origin: dict[str, Any]) -> str:
    """What a reader calls the policy: ``smoke, λ = 1``; an arm that its λ does not name keeps its name."""
    weight, system = origin["adversarial_weight"], origin["system"]
    if weight is None:
        return f"{origin['experiment']}, {'supervised' if system == 'mle' else system}"
    arm = "" if system == f"gapt_lambda={weight:g}" else f"{system}, "
    return f"{origin['experiment']}, {arm}λ = {weight:g}"


def short_name(origin: dict[str, Any]) -> str:
    """The same for programs, as ``smoke-lambda1``."""
    name = f"{origin['experiment']}-{origin['system'].replace('gapt_lambda=', 'lambda')}"
    return re.sub("[^A-Za-z0-9._-]+", "-", name)


def without_folders(command: str) -> str:
    """A command that names no folder of the machine it ran on: of absolute paths their last part alone."""
    return re.sub(r"(?<![^\s='\"])[~/](?:[^\s'\"]*/)?(?=[^\s/'\"])", "", command)


def model_card(
    manifest: dict[str, Any], evaluation: dict[str, Any] | None, has_onnx: bool, training: Training | None = None
) -> str:
    """README.md of a bundle, with the YAML head that model hubs read."""
    told = training or Training()
    origin, parameters = manifest["origin"], manifest["parameters"]
    weight = origin["adversarial_weight"]
    if weight is not None:
        how = f"post-trained with λ = {weight:g}, step {origin['step']}"
    else:
        how = "supervised only" if origin["system"] == "mle" else f"imported from `{origin['run']}`"
    onnx = "In any other\nlanguage: `onnx/commit_frame.onnx` by ONNX Runtime. " if has_onnx else ""
    rows = _metric_rows(origin["system"], evaluation)
    measured = f"\n## Measured\n\n| set | metric | mean |\n|---|---|---|\n{rows}" if rows else ""
    licence = f"license: {json.dumps(told.licence, ensure_ascii=False)}\n" if told.licence else ""
    return f"""---
{licence}library_name: gapt-jax
pipeline_tag: other
tags: [music, accompaniment, real-time, jax{", onnx" if has_onnx else ""}]
---

# {title(origin)}

Plays a chord for each sixteenth note of a melody before that note is heard. A decoder of {parameters:,} parameters,
{how}; weights in {manifest["dtype"]}, {manifest["vocabulary_size"]:,} tokens, sessions of up to
{manifest["max_frames"]} frames ({manifest["frames_per_beat"]} a beat).

## Use

`manifest.json` has every function with its inputs and outputs, `vocabulary.json` the chords behind the token ids.
`gapt verify DIR` proves that the files are whole and play the policy that was trained; `gapt serve DIR` speaks the Open
Inference Protocol. In Python, with JAX alone: the folder `gapt_jax/export/verify` reads a bundle. {onnx}The
compiled functions are readable until {manifest["expires"]}; `gapt export refresh DIR` rebuilds them from the weights.

## Limits

It knows the chords of its vocabulary and sixteenth notes, no tempo, no metre, no dynamics. It was trained on the songs
with the fingerprint `{origin["data_fingerprint"]}`, whose licences bind whoever uses it.
{_training(told)}{measured}"""


def _training(told: Training) -> str:
    rows = "".join(
        f"| {one.name} | {one.weight:g} | {one.licence or 'not known'} | {one.source or 'not known'} |\n"
        for one in told.sets
    )
    head = "| training set | weight | licence, as its source states it | source |\n|---|---|---|---|\n"
    parts = [
        head + rows if rows else "",
        f"The run was made by\n\n    {told.command}\n" if told.command else "",
        f"Licence of the weights: {told.licence or 'not stated'}.\n" if told.sets or told.licence else "",
    ]
    return "".join(f"\n{part}" for part in ["## Training\n" if any(parts) else "", *parts] if part)


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
