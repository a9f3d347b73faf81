"""Weights of the published PyTorch implementation in our networks, without PyTorch.

    found = import_checkpoint(Path("actor.pth"))
    vocabulary = torch_chords.read_vocabulary(Path("chord_names_augmented.json"), found.size)

Its networks are those of the x-transformers package with simple RMSNorm, normalised queries and keys with learned
gains, SwiGLU, and rotary positions or T5's relative bias (docs/method.md §2). Ours are the same functions of the same
numbers: linear weights are transposed ([out, in] -> [in, out]), nothing else moves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gapt_jax.config import TransformerConfig
from gapt_jax.errors import UserError
from gapt_jax.export.torch_file import BFLOAT16, State, read_state_dict
from gapt_jax.types import Params
from gapt_jax.vocabulary import RHYTHM_SIZE


class Imported(NamedTuple):
    """A network of ours with foreign weights."""

    kind: str  # field of `models.Models`; the discriminative reward has the form of the GAIL discriminator, too
    config: TransformerConfig  # the sizes that the weights have
    size: int  # V: tokens of the alphabet
    params: Params  # as the network's `init` returns them, NumPy float32
    notes: tuple[str, ...]  # sentences on what differs from the foreign network


_Path = tuple[str | int, ...]  # through a tree of ours


class _Row(NamedTuple):
    theirs: str
    ours: _Path
    shape: tuple[int, ...]  # theirs
    turned: bool = False  # [out, in] there, [in, out] here


class _Tower(NamedTuple):
    """One stack with its embedding."""

    theirs: str
    embed: _Path
    stack: _Path
    is_rotary: bool = True
    has_cross: bool = False


_TOWERS = {
    "policy": (_Tower("decoder.", ("embed",), ("stack",)),),
    "anchor": (
        _Tower("encoder.", ("source_embed",), ("encoder",), is_rotary=False),
        _Tower("decoder.decoder.", ("target_embed",), ("decoder",), is_rotary=False, has_cross=True),
    ),
    "contrastive": (
        _Tower("melody_encoder.", ("melody_tower", "embed"), ("melody_tower", "stack")),
        _Tower("chord_encoder.", ("chord_tower", "embed"), ("chord_tower", "stack")),
    ),
    "discriminative": (_Tower("encoder.", ("embed",), ("stack",)),),
}
_PREFIX = re.compile(r"\A(?:(?:model|module)\.)+")
_IN_STACK = re.compile(r"(?:token_emb|attn_layers)\.")
_BASE = 10000.0  # of rotary positions
_ROUNDED = (
    "The rotary frequencies of this file are rounded to bfloat16, ours are exact: angles differ by up to 0.4 %, "
    "which tells at late positions."
)


def bare_name(name: str) -> str:
    """The name of a tensor without what Lightning, DeepSpeed and torch.compile wrap around the module.

    ``"model._orig_mod.decoder.to_logits.weight" -> "decoder.to_logits.weight"``
    """
    return _PREFIX.sub("", name.replace("_orig_mod.", ""))


def import_checkpoint(path: Path) -> Imported:
    """The network whose weights a file holds; see `read_state_dict` and `import_state_dict`."""
    return import_state_dict(read_state_dict(path), str(path))


def import_state_dict(state: Mapping[str, np.ndarray], source: str = "the state dict") -> Imported:
    """The network whose weights these are; its kind, sizes and alphabet follow from names and shapes.

    A tensor that is missing, of another shape, not finite or not known is a `UserError` that names it.
    """
    tensors: State = {}
    for name, tensor in state.items():
        if bare_name(name) in tensors:
            raise UserError(f"{source} holds {bare_name(name)!r} twice, under different prefixes")
        tensors[bare_name(name)] = np.asarray(tensor)
    try:
        return _imported(tensors)
    except _Misfit as error:
        raise UserError(f"{source} {error}") from None


class _Misfit(Exception):
    """What is wrong with a state dict, as a sentence that lacks its subject."""


def _imported(tensors: State) -> Imported:
    kind = _kind(tensors)
    towers = _TOWERS[kind]
    size, config = _sizes(tensors, towers[-1])
    outputs = _shape(tensors, "decoder.to_logits.weight", 2)[0] if kind == "policy" else size
    rows = [row for tower in towers for row in _tower_rows(tower, config, size)]
    rows += _head_rows(kind, config.dim, outputs)
    rotary = [f"{tower.theirs}attn_layers.rotary_pos_emb.inv_freq" for tower in towers if tower.is_rotary]
    for name in sorted(tensors.keys() - {row.theirs for row in rows} - set(rotary)):
        raise _Misfit(f"holds {name!r}, which has no place in our {kind} network: it is another architecture")
    params: dict[str | int, Any] = {}
    for row in rows:
        tensor = _taken(tensors, row.theirs, row.shape)
        _put(params, row.ours, np.ascontiguousarray(tensor.T) if row.turned else tensor)
    is_rounded = [_is_rounded(name, _taken(tensors, name, (config.head_dim // 4,))) for name in rotary]
    if kind == "policy" and outputs == 1:
        kind = "critic"
    elif kind in ("contrastive", "discriminative") and size == RHYTHM_SIZE:
        kind = f"rhythm_{kind}"
    return Imported(kind, config, size, params, (_ROUNDED,) if any(is_rounded) else ())


def _kind(tensors: State) -> str:
    stacks = {name[: match.start()] for name in tensors if (match := _IN_STACK.search(name))}
    for kind, towers in _TOWERS.items():
        if stacks == {tower.theirs for tower in towers}:
            return kind
    shown = ", ".join(map(repr, sorted(tensors)[:3]))
    raise _Misfit(f"holds no policy, anchor or reward model of the published implementation: it begins with {shown}")


def _shape(tensors: State, name: str, rank: int) -> tuple[int, ...]:
    if name not in tensors:
        raise _Misfit(f"lacks the tensor {name}")
    shape = tensors[name].shape
    if len(shape) != rank or 0 in shape:
        raise _Misfit(f"holds {name} with the shape {list(shape)}, where {rank} dimensions are expected")
    return shape


def _sizes(tensors: State, tower: _Tower) -> tuple[int, TransformerConfig]:
    """V and the sizes of a stack."""
    layer, cycle = f"{tower.theirs}attn_layers.layers.", 3 if tower.has_cross else 2
    size, dim = _shape(tensors, f"{tower.theirs}token_emb.emb.weight", 2)
    heads, _, head_dim = _shape(tensors, f"{layer}0.1.qk_norm_q_scale", 3)
    outer = f"{layer}{cycle - 1}.1.ff.2.weight"
    inner = _shape(tensors, outer, 2)[1]
    if inner % dim or head_dim % 4:
        raise _Misfit(f"has heads of {head_dim} and {outer} of width {inner} beside {dim}, which our network cannot be")
    numbers = {name.removeprefix(layer).partition(".")[0] for name in tensors if name.startswith(layer)}
    depth = math.ceil(len(numbers) / cycle)
    return size, TransformerConfig(dim=dim, depth=depth, heads=heads, head_dim=head_dim, ff_mult=inner // dim)


def _tower_rows(tower: _Tower, config: TransformerConfig, size: int) -> Iterable[_Row]:
    """Layers of x-transformers count sub-layers: attention, (cross-attention,) feed-forward of each block in turn."""
    dim, inner, gains = config.dim, config.heads * config.head_dim, (config.heads, 1, config.head_dim)
    yield _Row(f"{tower.theirs}token_emb.emb.weight", (*tower.embed, "embedding"), (size, dim))
    if not tower.is_rotary:
        name = f"{tower.theirs}attn_layers.rel_pos.relative_attention_bias.weight"
        yield _Row(name, (*tower.stack, "relative"), (32, config.heads))
    parts = ("attention", "cross", "feed_forward") if tower.has_cross else ("attention", "feed_forward")
    for number in range(config.depth * len(parts)):
        block, part = divmod(number, len(parts))
        theirs = f"{tower.theirs}attn_layers.layers.{number}.1."
        ours: _Path = (*tower.stack, "blocks", block, parts[part])
        if parts[part] == "feed_forward":
            wide = dim * config.ff_mult
            yield from _linear(f"{theirs}ff.0.proj", (*ours, "inner"), (2 * wide, dim), bias=True)
            yield from _linear(f"{theirs}ff.2", (*ours, "outer"), (dim, wide), bias=True)
            continue
        for name, linear in (("to_q", "query"), ("to_k", "key"), ("to_v", "value")):
            yield from _linear(f"{theirs}{name}", (*ours, linear), (inner, dim))
        yield from _linear(f"{theirs}to_out", (*ours, "out"), (dim, inner))
        yield _Row(f"{theirs}qk_norm_q_scale", (*ours, "query_gain"), gains)
        yield _Row(f"{theirs}qk_norm_k_scale", (*ours, "key_gain"), gains)


def _head_rows(kind: str, dim: int, outputs: int) -> Iterable[_Row]:
    if kind == "policy":
        yield from _linear("decoder.to_logits", ("head",), (outputs, dim))
    elif kind == "anchor":
        yield from _linear("decoder.decoder.to_logits", ("head",), (outputs, dim))
    elif kind == "discriminative":
        yield from _linear("out_proj", ("head",), (2, dim), bias=True)
    else:
        for part in ("melody", "chord"):
            for number, linear in ((0, "inner"), (2, "outer")):
                yield from _linear(f"{part}_emb_proj.{number}", (f"{part}_tower", linear), (dim, dim), bias=True)
        yield _Row("logit_scale", ("log_scale",), ())


def _linear(theirs: str, ours: _Path, shape: tuple[int, int], bias: bool = False) -> Iterable[_Row]:
    yield _Row(f"{theirs}.weight", (*ours, "kernel"), shape, turned=True)
    if bias:
        yield _Row(f"{theirs}.bias", (*ours, "bias"), shape[:1])


def _taken(tensors: State, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of that name as finite float32 of that shape."""
    if name not in tensors:
        raise _Misfit(f"lacks the tensor {name}")
    if tensors[name].shape != shape:
        raise _Misfit(f"holds {name} with the shape {list(tensors[name].shape)} instead of {list(shape)}")
    if tensors[name].dtype.kind != "f" and tensors[name].dtype != BFLOAT16:
        raise _Misfit(f"holds {name} as {tensors[name].dtype}, which weights are not")
    tensor = tensors[name].astype(np.float32)
    if not np.isfinite(tensor).all():
        raise _Misfit(f"holds numbers in {name} that are not finite")
    return tensor


def _put(tree: dict[str | int, Any], path: _Path, leaf: np.ndarray) -> None:
    for step in path[:-1]:
        tree = tree.setdefault(step, {})
    tree[path[-1]] = leaf


def _is_rounded(name: str, stored: np.ndarray) -> bool:
    """Whether the rotary frequencies are ours but for rounding; casting a module to bfloat16 rounds them, too."""
    exact = _BASE ** (-np.arange(len(stored)) / len(stored))
    if not np.allclose(stored, exact, rtol=2**-8, atol=0):
        raise _Misfit(f"holds {name} of other rotary positions than ours (base {_BASE:.0f}, half of each head)")
    return not np.allclose(stored, exact, rtol=1e-5, atol=0)
