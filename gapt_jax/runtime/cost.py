"""FLOPs and HBM traffic of a traced program, loops counted as often as they run (XLA's own analysis counts them once).

The model, meant as a lower bound of what a device does:

- Inside `shard_map` shapes are per device already. Axes that it leaves to the compiler are taken to split its work
  evenly. Work outside `shard_map` counts whole, as if every device did all of it.
- `flops` are those of matmuls, 2 · batch · M · N · K. `vector_flops` are one per element that any other operation
  makes (or, in a reduction, reads); the roofline does not use them.
- HBM bytes: operands and results of matmuls; what a reduction or a sort reads; the rows that a gather or a slice
  reads; what an update in place writes, or a scatter (twice: it reads it first). Element-wise work is taken to be fused
  into these. It costs bytes only at the border of a loop body or of the program: what it reads from there and what it
  leaves there, once per array and pass. So an optimiser's update counts; a cast or a change of shape does not.
- A `cond` counts as its most expensive branch, one that asks for the platform as its cheapest. A `while`
  of unknown length counts as one pass, reported in `unknown_loops`.
- The decoding kernel is counted by its own formula (`models.kernel.work`). A Pallas kernel counts what its body
  computes at every point of its grid, those that a mask leaves out too, and moves its operands and results once; so
  does the attention of cuDNN, which counts 2 products forwards and 5 backwards, half of each if it is causal.

Weights and caches that stay in the VMEM of a TPU from one pass of a loop to the next cost less than this.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core
from jax.sharding import AxisType

from gapt_jax.models import kernel


@dataclass(frozen=True)
class Cost:
    """Work of one device."""

    flops: float = 0.0
    vector_flops: float = 0.0
    bytes: float = 0.0
    unknown_loops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.vector_flops + other.vector_flops,
            self.bytes + other.bytes,
            self.unknown_loops + other.unknown_loops,
        )

    def times(self, number: float) -> Cost:
        return Cost(self.flops * number, self.vector_flops * number, self.bytes * number, self.unknown_loops)


def of(program: core.ClosedJaxpr) -> Cost:
    """Cost of one run of a program, as ``jax.jit(f).trace(...).jaxpr`` or ``jax.make_jaxpr(f)(...)`` gives it."""
    return _body(program.jaxpr)


def traced(iteration: Callable[..., Any], *inputs: Any) -> dict[str, Any]:
    """The phases of `learner.iteration` by name, traced for arrays or for their shapes; nothing is computed."""
    found: dict[str, Any] = {}

    def trace(phase: Any, *arguments: Any) -> Any:
        found[phase.__name__] = phase.trace(*arguments)
        return found[phase.__name__].out_info

    iteration(*inputs, trace)
    return found


def largest_array(program: core.ClosedJaxpr) -> str:
    """The largest array that a device computes, such as "float32[48,8,512,512]"; fusion may do without it."""
    largest = max(_computed(program.jaxpr), key=_bytes)
    return f"{largest.aval.dtype}[{','.join(map(str, largest.aval.shape))}]"


def _computed(jaxpr: core.Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name != "shard_map":  # whose results are those of all devices
            yield from equation.outvars
        for body in _inner(equation):
            yield from _computed(body)


# Change how one array is looked at: no work, no traffic of their own.
_VIEWS = {
    "broadcast_in_dim", "convert_element_type", "copy", "expand_dims", "pvary", "random_unwrap", "random_wrap",
    "reduce_precision", "reshape", "rev", "sharding_constraint", "slice", "split", "squeeze", "stop_gradient",
    "transpose",
}  # fmt: skip
_READS = {
    "argmax", "argmin", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "reduce", "reduce_and", "reduce_max",
    "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "sort", "top_k",
}  # fmt: skip
_COLLECTIVES = {
    "all_gather", "all_gather_invariant", "all_to_all", "pmax", "pmin", "ppermute", "psum", "psum_invariant",
    "reduce_scatter",
}  # fmt: skip


@dataclass(eq=False)
class _Array:
    """Where an array comes from: the border of a body, a fused computation, or HBM, where its maker has put it."""

    size: float  # bytes
    at_border: bool = False
    is_fused: bool = False
    is_read: bool = False


@dataclass
class _Walk:
    """Arrays met on the way through one body, and the cost so far."""

    arrays: dict[Any, _Array] = field(default_factory=dict)
    cost: Cost = Cost()

    def find(self, atom: Any) -> _Array:
        if isinstance(atom, core.Literal):
            return _Array(0.0)
        return self.arrays[atom]

    def read_fused(self, atoms: Sequence[Any]) -> None:
        for array in map(self.find, atoms):
            if array.at_border and not array.is_read:
                array.is_read = True
                self.cost += Cost(bytes=array.size)


def _body(jaxpr: core.Jaxpr) -> Cost:
    """Cost of one pass through the body of a loop, or of a program."""
    walk = _Walk()
    for var in (*jaxpr.constvars, *jaxpr.invars):
        walk.arrays[var] = _Array(_bytes(var), at_border=True)
    _through(jaxpr, walk)
    left = {id(array): array for array in map(walk.find, jaxpr.outvars)}
    return walk.cost + Cost(bytes=sum(array.size for array in left.values() if array.is_fused))


def _through(jaxpr: core.Jaxpr, walk: _Walk) -> None:
    for equation in jaxpr.eqns:
        _equation(equation, walk)


def _equation(equation: Any, walk: _Walk) -> None:
    name, inputs, outputs = equation.primitive.name, equation.invars, equation.outvars
    is_fused = False
    if name == "scan":
        cost = _body(_inner(equation)[0]).times(equation.params["length"])
    elif name == "while":
        cost = sum(map(_body, _inner(equation)), Cost(unknown_loops=1))
    elif name == "cond":
        pick = min if equation.params.get("branches_platforms") else max
        cost = pick(map(_body, _inner(equation)), key=_order)
    elif name == "shard_map":
        cost = _body(_inner(equation)[0]).times(_whole(equation))
    elif name == "dot_general":
        cost = Cost(flops=_dot_flops(equation), bytes=sum(map(_bytes, (*inputs, *outputs))))
    elif name == "ffi_call" and equation.params["target_name"] == kernel.TARGET:
        flops, moved = kernel.work([x.aval.shape for x in inputs])
        cost = Cost(flops=flops, bytes=moved)
    elif name == "pallas_call":
        inside = _body(_inner(equation)[0]).times(math.prod(equation.params["grid_mapping"].grid))
        cost = dataclasses.replace(inside, bytes=sum(map(_bytes, (*inputs, *outputs))))
    elif name.startswith("dot_product_attention_"):  # of jax.nn by cuDNN
        cost = Cost(flops=_attention_flops(equation), bytes=sum(map(_bytes, (*inputs, *outputs))))
    elif name == "gather":
        cost = Cost(bytes=_bytes(outputs[0]) + _bytes(inputs[1]))
    elif name.startswith("scatter"):
        cost = Cost(vector_flops=_elements(inputs[2]), bytes=2 * _bytes(inputs[2]) + _bytes(inputs[1]))
    elif name == "dynamic_slice":
        cost = Cost(bytes=_bytes(outputs[0]))
    elif name == "dynamic_update_slice":
        cost = Cost(bytes=_bytes(inputs[1]))
    elif name in _READS:
        cost = Cost(vector_flops=sum(map(_elements, inputs)), bytes=sum(map(_bytes, inputs)))
    elif name in _COLLECTIVES:
        cost = Cost()
    elif name in _VIEWS:
        walk.arrays |= dict.fromkeys(outputs, walk.find(inputs[0]))
        return
    elif (inner := _inner(equation)) and len(inner[0].invars) == len(inputs):
        _call(inner[0], inputs, outputs, walk)
        return
    elif inner:  # several functions with arguments of their own, as in `custom_linear_solve`, of which one runs
        cost = max(map(_body, inner), key=_order)
    else:
        walk.read_fused(inputs)
        cost, is_fused = Cost(vector_flops=sum(map(_elements, outputs))), True
    walk.cost += cost
    walk.arrays |= {var: _Array(_bytes(var), is_fused=is_fused) for var in outputs}


def _order(cost: Cost) -> tuple[float, float, float]:
    return cost.flops, cost.bytes, cost.vector_flops


def _call(jaxpr: core.Jaxpr, inputs: Sequence[Any], outputs: Sequence[Any], walk: _Walk) -> None:
    """Walks into a jit, remat or custom-derivative call as if its body stood here."""
    inside = _Walk({var: _Array(_bytes(var), at_border=True) for var in jaxpr.constvars}, walk.cost)
    inside.arrays |= {var: walk.find(atom) for var, atom in zip(jaxpr.invars, inputs, strict=True)}
    _through(jaxpr, inside)
    walk.cost = inside.cost
    walk.arrays |= {var: inside.find(atom) for var, atom in zip(outputs, jaxpr.outvars, strict=True)}


def _inner(equation: Any) -> list[core.Jaxpr]:
    """What an equation runs, in the order of its parameters' names: body, branches or (while) body and condition."""
    found = []
    for _, value in sorted(equation.params.items()):
        for entry in value if isinstance(value, tuple | list) else (value,):
            if isinstance(entry, core.ClosedJaxpr):
                found.append(entry.jaxpr)
            elif isinstance(entry, core.Jaxpr):
                found.append(entry)
    return found


def _whole(equation: Any) -> float:
    """What turns the work of a `shard_map`'s body into that of a device; of one within another, into that of all
    devices over its axes, which the other one left to the compiler."""
    manual = next(axes for name, axes in equation.params.items() if name.endswith("manual_axes"))  # jax 0.10: newly_...
    mesh = equation.params["mesh"]
    if AxisType.Manual in mesh.axis_types:
        return float(math.prod(mesh.shape[axis] for axis in manual))
    return 1 / math.prod(size for axis, size in mesh.shape.items() if axis not in manual)


def _attention_flops(equation: Any) -> float:
    (songs, length, heads, width), keys = equation.invars[0].aval.shape, equation.invars[1].aval.shape[1]
    products = 2 if "_fwd" in equation.primitive.name else 5
    is_causal = "CAUSAL" in str(equation.params["mask_type"])
    return products * 2.0 * songs * heads * length * keys * width / (2 if is_causal else 1)


def _dot_flops(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 2.0 * depth * _elements(equation.outvars[0])


def _elements(atom: Any) -> float:
    return float(math.prod(getattr(atom.aval, "shape", ())))


def _bytes(atom: Any) -> float:
    dtype = getattr(atom.aval, "dtype", None)  # a token has none
    return 0.0 if dtype is None else _elements(atom) * dtype.itemsize
