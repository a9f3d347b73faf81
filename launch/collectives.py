"""The collectives of a compiled program, read from its HLO text: what goes over the wire, between whom, how often."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Collective:
    """One collective instruction."""

    kind: str  # one of `KINDS`
    bytes: int  # of the whole array: what all-reduce and all-gather leave on a device, what reduce-scatter starts from
    group_size: int  # devices that exchange it with each other; slices, where it is a transfer between slices only
    crosses_slices: bool
    runs: int  # in one run of the program; a loop of unknown length counts as one pass
    is_in_loop: bool

    @property
    def sent(self) -> float:
        """Bytes that one device sends in one run of the program, by the best (ring) algorithm."""
        share = (self.group_size - 1) / self.group_size
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.runs * self.bytes * factor


@dataclass(frozen=True)
class Summary:
    """All collectives of one kind in one run of a program."""

    count: int
    bytes: int
    crossing: int  # how many of `count` go between slices


def summarize(collectives: Iterable[Collective]) -> dict[str, Summary]:
    """By kind, in the order of `KINDS`; a kind that does not occur is left out."""
    found = list(collectives)
    return {
        kind: Summary(
            sum(c.runs for c in found if c.kind == kind),
            sum(c.runs * c.bytes for c in found if c.kind == kind),
            sum(c.runs for c in found if c.kind == kind and c.crosses_slices),
        )
        for kind in KINDS
        if any(c.kind == kind for c in found)
    }


def parse(hlo: str, devices_per_slice: int, slices: int = 1) -> list[Collective]:
    """The collectives of ``compiled.as_text()``, whose devices are numbered slice by slice.

    A start/done pair is one. Both branches of a conditional count. The TPU compiler splits what crosses slices into
    collectives within them and a transfer over DCN, a `send` marked ``megascale``: this is reported under its own kind
    with the bytes of one device's part.
    """
    computations, entry = _computations(hlo)
    devices = int(_search(r"num_partitions=(\d+)", hlo) or 1)

    def visit(name: str, runs: int, is_in_loop: bool) -> Iterator[Collective]:
        for line in computations[name]:
            found = _collective(line, devices, devices_per_slice, slices)
            if found:
                yield Collective(*found, runs, is_in_loop)
            elif line.opcode == "while":
                passes = _trip_count(line, computations[name], computations)
                for called in _called(line):
                    yield from visit(called, runs * passes, True)
            elif not line.opcode.endswith(("-done", "-update")):
                for called in _called(line):
                    yield from visit(called, runs, is_in_loop)

    return list(visit(entry, 1, False))


@dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes
    is_root: bool


_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_DEFINITION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_LAYOUT = re.compile(r"\{[^}]*\}")
_CALLS = re.compile(r"\b(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_CALL_LISTS = re.compile(r"\b(?:branch_computations|called_computations|calls)=\{([^}]*)\}")


def _computations(hlo: str) -> tuple[dict[str, list[_Instruction]], str]:
    """Instructions by computation, and the name of the computation that the program starts with."""
    found: dict[str, list[_Instruction]] = {}
    entry = current = ""
    for line in hlo.splitlines():
        if header := _HEADER.match(line):
            current = header[2]
            found[current] = []
            entry = current if header[1] else entry
        elif current and (definition := _DEFINITION.match(line)):
            shape, rest = _split_shape(definition[3])
            opcode, _, rest = rest.partition("(")
            found[current].append(_Instruction(definition[2], shape, opcode, rest, bool(definition[1])))
    return found, entry


def _split_shape(text: str) -> tuple[str, str]:
    """ "f32[8]{0} add(...)" -> ("f32[8]{0}", "add(...)"); a tuple's shape ends with its own parenthesis."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    depths = itertools.accumulate((letter == "(") - (letter == ")") for letter in text)
    end = 1 + next(place for place, depth in enumerate(depths) if depth == 0)
    return text[:end], text[end:].lstrip()


def _called(line: _Instruction) -> list[str]:
    if line.opcode.removesuffix("-start") in KINDS or line.opcode in ("reduce", "sort", "scatter", "map"):
        return []  # arithmetic on single elements
    lists = [name.strip(" %") for names in _CALL_LISTS.findall(line.rest) for name in names.split(",")]
    return [name for name in _CALLS.findall(line.rest) + lists if name]


def _collective(line: _Instruction, devices: int, per_slice: int, slices: int) -> tuple[str, int, int, bool] | None:
    """(kind, bytes, group size, whether it crosses slices), or None for another instruction."""
    kind = line.opcode.removesuffix("-start")
    transfer = _search(r'_xla_megascale_transfer_type="(\w+)"', line.rest)
    if line.opcode == "send" and transfer:
        kind = transfer.lower().replace("_", "-")
        return (kind if kind in KINDS else "collective-permute"), _size(_parts(line.shape)[0]), slices, True
    if kind not in KINDS:
        return None
    if kind == "collective-permute":
        groups = np.array(_numbers(_search(r"source_target_pairs=(\{.*?\}\})", line.rest) or "")).reshape(-1, 2)
    else:
        groups = _groups(line.rest, devices)
    is_pair = line.opcode.endswith("-start") and kind != "all-reduce"  # then the shape is (operands, results, ...)
    size = _size(_parts(line.shape)[1] if is_pair else line.shape)
    size *= groups.shape[1] if kind == "reduce-scatter" else 1
    return kind, size, groups.shape[1], _crosses(groups, per_slice)


def _parts(shape: str) -> list[str]:
    """The shapes at the top of a tuple's shape, without their layouts."""
    parts, depth = [""], 0
    for letter in _LAYOUT.sub("", shape)[1:-1]:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _size(shape: str) -> int:
    """Bytes of all arrays of a shape."""
    arrays = _ARRAY.findall(_LAYOUT.sub("", shape))
    return sum(_item_bits(dtype) * math.prod(_numbers(dims)) // 8 for dtype, dims in arrays)


def _item_bits(dtype: str) -> int:
    """32 for f32, 8 for pred, 16 for bf16, 8 for f8e4m3fn."""
    width = _search(r"\d+", dtype)
    return int(width) if width else 8 * (dtype == "pred")  # a token has no size


def _groups(attributes: str, devices: int) -> np.ndarray:
    """[groups, size] of device numbers, from any of the ways in which HLO writes replica groups."""
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        shape, bounds, order = ([int(n) for n in part.split(",")] if part else None for part in iota.groups())
        return np.arange(math.prod(bounds or [])).reshape(bounds).transpose(order).reshape(shape)
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\](?:<=\[.*?\])? \{(.*?)\}", attributes):
        return _mesh_groups(mesh[1], mesh[2])
    listed = _search(r"replica_groups=(\{(?:\{[\d,]*\},?)*\})", attributes)
    numbers = _numbers(listed or "")
    if not numbers:
        return np.arange(devices)[None]
    return np.array(numbers).reshape((listed or "").count("{") - 1, -1)


def _mesh_groups(axes: str, grouped: str) -> np.ndarray:
    """``mesh['a'=2,'b'=4] {'b'}``: groups along the axes in braces."""
    sizes = {name: int(size) for name, size in re.findall(r"'?(\w+)'?=(\d+)", axes)}
    along = re.findall(r"\w+", grouped)
    names = list(sizes)
    order = [names.index(name) for name in names if name not in along] + [names.index(name) for name in along]
    width = math.prod(sizes[name] for name in along)
    return np.arange(math.prod(sizes.values())).reshape(list(sizes.values())).transpose(order).reshape(-1, width)


def _crosses(groups: np.ndarray, per_slice: int) -> bool:
    slices = groups // per_slice
    return bool((slices != slices[:, :1]).any())


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _trip_count(loop: _Instruction, caller: Sequence[_Instruction], computations: dict[str, list[_Instruction]]) -> int:
    """How often a loop runs: as the compiler says, else from its bound; 1 where neither is there.

    The TPU compiler says nothing; the loop is then taken to count by ones, as `scan` does, from where it starts: 0, or
    later where the compiler has taken the first passes out.
    """
    if said := _search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(said)
    condition = {line.name: line for line in computations[_search(r"condition=%?([\w.\-]+)", loop.rest) or ""]}
    root = next(line for line in condition.values() if line.is_root)
    if root.opcode != "compare" or "direction=LT" not in root.rest:
        return 1
    counter, limit = _operands(root)
    # `param#0` since JAX 0.12; an instruction that takes the number out of the parameter before.
    place = _search(r"#(\d+)", counter) or _search(r"index=(\d+)", condition[counter].rest)
    bound = _constant(limit, condition)
    if bound is None or place is None:
        return 1
    before = {line.name: line for line in caller}
    start = before.get(_operands(loop)[0])
    first = _constant(_operands(start)[int(place)], before) if start else None
    return bound - (first or 0)


def _constant(name: str, lines: dict[str, _Instruction]) -> int | None:
    """The whole number that a name stands for, copies followed."""
    while name in lines and lines[name].opcode in ("copy", "bitcast"):
        name = _operands(lines[name])[0]
    found = lines.get(name)
    is_number = found is not None and found.opcode == "constant" and re.match(r"-?\d+\)", found.rest)
    return int(found.rest.partition(")")[0]) if found is not None and is_number else None


def _operands(line: _Instruction) -> list[str]:
    return re.findall(r"%?([\w.\-#]+)", re.sub(r"/\*.*?\*/", "", line.rest.partition(")")[0]))


def _search(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return (found[1] if found.re.groups else found[0]) if found else None
