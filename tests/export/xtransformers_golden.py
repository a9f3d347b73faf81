"""Outputs of the public x-transformers package, for `test_torch_import.py`.

Needs torch and x-transformers, which are no dependencies of this project; from an environment of their own:

    python tests/export/xtransformers_golden.py           # writes xtransformers_golden.json beside this file
    python tests/export/xtransformers_golden.py tiny.pth  # writes a file of torch.save with tensors of many kinds

Weights are drawn from the name and the shape of each tensor, so that only outputs need to be kept.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).with_suffix(".json")
KINDS = ("policy", "anchor", "contrastive", "discriminative", "rhythm_contrastive", "rhythm_discriminative")
DIM, DEPTH, HEADS, SIZE, RHYTHM_SIZE = 64, 2, 2, 40, 6
LENGTH = 150  # beyond the last bucket of relative positions
SHOWN = (0, 1, 2, 19, 64, 149)  # positions whose logits are kept
FACTOR = 10.0  # of normalised queries and keys; x-transformers 2.31 has another beside gains, 2.11 and before this one


def is_constant(name: str) -> bool:
    """Whether the tensor follows from the architecture."""
    return name.endswith("inv_freq")


def frequencies(count: int) -> np.ndarray:
    """What a constant tensor holds: rotary frequencies, base 10000, [count] float32."""
    return (10000.0 ** (-np.arange(count) / count)).astype(np.float32)


def weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """float32 weights of these names and shapes."""
    return {
        name: frequencies(*shape) if is_constant(name) else _weight(name, tuple(shape))
        for name, shape in shapes.items()
    }


def _weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("_scale"):  # gains, and the logarithm of the similarity scale
        drawn = 1 + 0.2 * drawn
    elif name.endswith("bias"):
        drawn = 0.3 * drawn
    elif not name.endswith(("emb.weight", "relative_attention_bias.weight")):
        drawn = drawn / math.sqrt(shape[-1])
    return np.asarray(drawn, np.float32)


def inputs(kind: str) -> list[np.ndarray]:
    """Tokens [2, LENGTH] int64; PAD at the end of the second row, in the middle of it for pairs."""
    rng = np.random.default_rng(7)
    tokens = rng.integers(3, RHYTHM_SIZE if kind.startswith("rhythm") else SIZE, (2, 2, LENGTH))
    tokens[..., 0] = 1
    if kind in ("anchor", "contrastive", "rhythm_contrastive"):
        tokens[0, 1, 100:] = 0
    if "discriminative" in kind:
        tokens[0, 1, 40:90] = 0
    return list(tokens) if kind in ("anchor", "contrastive", "rhythm_contrastive") else [tokens[0]]


def build(kind: str) -> Any:
    """A torch module with the architecture and the names of the published implementation."""
    from torch import nn
    from x_transformers import Decoder, Encoder, TransformerWrapper

    def stack(layers: Any, *, relative: bool = False, **more: Any) -> Any:
        return layers(
            **dict(dim=DIM, depth=DEPTH, heads=HEADS, ff_glu=True, ff_swish=True, use_simple_rmsnorm=True),
            **dict(attn_qk_norm=True, attn_qk_norm_dim_scale=True, attn_qk_norm_scale=FACTOR),
            **dict(rel_pos_bias=relative, rotary_pos_emb=not relative, attn_flash=not relative),
            **more,
        )

    def wrapped(layers: Any, size: int = SIZE, **more: Any) -> Any:
        return TransformerWrapper(num_tokens=size, max_seq_len=LENGTH, attn_layers=layers, **more)

    def projection() -> Any:
        return nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))

    size = RHYTHM_SIZE if kind.startswith("rhythm") else SIZE
    module = nn.Module()
    if kind == "policy":
        module.decoder = wrapped(stack(Decoder))
    elif kind == "anchor":
        module.encoder = wrapped(stack(Encoder, relative=True), return_only_embed=True)
        module.decoder = nn.Module()
        module.decoder.decoder = wrapped(stack(Decoder, relative=True, cross_attend=True))
    elif kind.endswith("contrastive"):
        module.chord_encoder = wrapped(stack(Encoder), size, return_only_embed=True)
        module.melody_encoder = wrapped(stack(Encoder), size, return_only_embed=True)
        module.chord_emb_proj, module.melody_emb_proj = projection(), projection()
        import torch

        module.logit_scale = nn.Parameter(torch.zeros([]))
    else:
        module.encoder = wrapped(stack(Encoder), size, return_only_embed=True)
        module.out_proj = nn.Linear(DIM, 2)
    for part in module.modules():
        if hasattr(part, "attend"):
            part.attend.scale = FACTOR
    return module.eval()


def outputs(kind: str, module: Any) -> dict[str, np.ndarray]:
    """What the module says about `inputs`, as the published implementation puts its parts together."""
    import torch
    from torch.nn.functional import normalize

    first, *rest = map(torch.from_numpy, inputs(kind))
    mask = first != 0
    if kind == "policy":
        found = {"logits": module.decoder(first)[:, SHOWN]}
    elif kind == "anchor":
        context = module.encoder(first, mask=mask)
        found = {"logits": module.decoder.decoder(rest[0], context=context, context_mask=mask)[:, SHOWN]}
    elif kind.endswith("contrastive"):
        melody = module.melody_emb_proj(module.melody_encoder(first, mask=mask))
        chords = module.chord_emb_proj(module.chord_encoder(rest[0], mask=rest[0] != 0))
        found = {
            "melody": normalize(melody, dim=-1)[:, 0],
            "chords": normalize(chords, dim=-1)[:, 0],
            "scale": module.logit_scale.exp(),
        }
    else:
        found = {"logits": module.out_proj(module.encoder(first, mask=mask))[:, 0]}
    return {name: value.numpy() for name, value in found.items()}


def golden() -> dict[str, Any]:
    """Names and shapes of the tensors, and outputs, by kind; and what made them."""
    import importlib.metadata

    import torch

    found: dict[str, Any] = {"made_with": {p: importlib.metadata.version(p) for p in ("torch", "x-transformers")}}
    for kind in KINDS:
        module = build(kind)
        shapes = {name: list(value.shape) for name, value in module.state_dict().items()}
        module.load_state_dict({name: torch.from_numpy(value) for name, value in weights(shapes).items()})
        with torch.no_grad():
            shown = outputs(kind, module)
        found[kind] = {"shapes": shapes, "outputs": {name: np.round(v, 6).tolist() for name, v in shown.items()}}
    return found


def tiny_tensors() -> dict[str, np.ndarray]:
    """What `tiny.pth` holds, as float32 and int64; all values are exact in bfloat16."""
    table = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
    return {
        "whole": table,
        "rounded": table / 4,
        "half": table / 2,
        "transposed": table.T,
        "row": table[1],
        "parameter": table[:, 1:3],
        "scalar": np.float32(0.5) * np.ones(()),
        "counts": np.arange(5) * 10**12,
        "empty": np.zeros((0, 4), np.float32),
    }


def write_tiny(path: Path) -> None:
    """A checkpoint as Lightning nests it, with views, a parameter, and bfloat16, float16, float32 and int64 tensors."""
    import collections

    import torch

    held = {name: torch.from_numpy(np.array(value)) for name, value in tiny_tensors().items()}
    table = held["whole"]
    held |= {"rounded": held["rounded"].bfloat16(), "half": held["half"].half()}
    held |= {"transposed": table.T, "row": table[1], "parameter": torch.nn.Parameter(table[:, 1:3])}
    settings = {"depth": 8, "names": ["a", None, True], "rate": 0.1, "betas": (0.9, 0.95)}
    optimiser = [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}]
    whole = {"epoch": 3, "hyper_parameters": settings, "optimizer_states": optimiser}
    torch.save(whole | {"state_dict": collections.OrderedDict(held)}, path)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_tiny(Path(sys.argv[1]))
    else:
        GOLDEN.write_text(json.dumps(golden(), separators=(",", ":")) + "\n", encoding="utf-8")
