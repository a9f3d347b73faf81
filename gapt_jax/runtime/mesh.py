"""Meshes of devices: which axis splits what. The algorithm sees only the `Layout` that this module makes.

Songs are spread over slice × data × fsdp, in forward passes over tensor as well. Parameters and optimiser moments
rest split over fsdp and tensor by one table of names. A gradient is computed from parameters gathered over fsdp, and
reduced once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gapt_jax.algorithm.layout import Layout, pad_rows
from gapt_jax.algorithm.population import MEMBERS, Members
from gapt_jax.config import MeshConfig
from gapt_jax.errors import UserError

P = TypeVar("P")
T = TypeVar("T")
AXES = ("slice", "data", "fsdp", "tensor")
POPULATION = "population"  # the axis in front of them, where members of a population have devices of their own
SONGS = AXES[:3]  # axes that split the songs of an update
NOWHERE, BY_SONG = PartitionSpec(), PartitionSpec(SONGS)

# The end of a parameter's path -> how its last axes are split. A split that does not come out even is left out.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(query|key|value|inner)/kernel", ("fsdp", "tensor")),
    (r"inner/bias", ("tensor",)),
    (r"(out|outer)/kernel", ("tensor", "fsdp")),
    (r"head/kernel", ("fsdp", None)),
    (r"embedding", (None, "fsdp")),
)


def build(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh (slice, data, fsdp, tensor); the slice axis is what DCN connects.

    It covers all devices; on a single host, settings that name every axis may ask for fewer.
    """
    if devices is None:
        asked = config.data * config.fsdp * config.tensor
        devices = jax.devices()[: asked if asked and jax.process_count() == 1 else None]
    slices = len({_slice(device) for device in devices})
    per_slice = len(devices) // slices
    inner = config.fsdp * config.tensor
    data = config.data or per_slice // inner
    if data * inner != per_slice:
        wanted = f"{config.data or '(rest)'} × {config.fsdp} × {config.tensor}"
        raise UserError(
            f"runtime.mesh data × fsdp × tensor = {wanted} does not come out at the {per_slice} devices"
            f"{' of a slice' if slices > 1 else ''}: their product must be {per_slice} (data = 0 takes what is left)"
        )
    shape = (data, config.fsdp, config.tensor)
    if slices > 1:
        grid = mesh_utils.create_hybrid_device_mesh((1, *shape), (slices, 1, 1, 1), devices)
    else:
        grid = mesh_utils.create_device_mesh((1, *shape), devices, allow_split_physical_axes=True)
    return Mesh(np.asarray(grid), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def split(mesh: Mesh, members: int) -> Mesh:
    """The mesh of a population: (population, slice, data, fsdp, tensor), where `mesh` is that of a single run.

    As many groups of devices train members side by side as leave at most a tenth of the work to fill up with; what
    devices a group has are its members' data axis. Slices are divided first: so a gradient crosses them only where
    there are fewer groups than slices. The order of the devices stays.
    """
    slices, data, fsdp, tensor = mesh.devices.shape
    ways = [*_divisors(slices), *(slices * n for n in _divisors(data))]
    groups = max(n for n in ways if -(-members // n) * n <= 1.1 * members)
    own_slices = max(slices // groups, 1)
    grid = mesh.devices.reshape(groups, own_slices, slices * data // (groups * own_slices), fsdp, tensor)
    return Mesh(grid, (POPULATION, *AXES), axis_types=(AxisType.Auto,) * (1 + len(AXES)))


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def build_any(config: MeshConfig) -> Mesh:
    """The mesh of the settings where this machine has the devices for it, else all songs over all devices."""
    try:
        return build(config)
    except UserError:
        return build(MeshConfig())


def _slice(device: Any) -> int:
    # GPUs have an index too, one for each host; their hosts are no slices.
    return (getattr(device, "slice_index", 0) or 0) if device.platform == "tpu" else 0


def shardings(mesh: Mesh, tree: Any) -> Any:
    """The sharding of every leaf of a tree of parameters (or of states that hold some), by `RULES`."""
    return jax.tree_util.tree_map_with_path(lambda path, x: NamedSharding(mesh, _spec(mesh, path, x.shape)), tree)


def _spec(mesh: Mesh, path: tuple[Any, ...], shape: tuple[int, ...]) -> PartitionSpec:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for pattern, axes in RULES:
        if re.search(rf"(^|/){pattern}$", name) and len(shape) >= len(axes):
            sizes = shape[len(shape) - len(axes) :]
            split = [
                a if a and mesh.shape[a] > 1 and n % mesh.shape[a] == 0 else None
                for a, n in zip(axes, sizes, strict=True)
            ]
            return PartitionSpec(*[None] * (len(shape) - len(axes)), *split) if any(split) else NOWHERE
    return NOWHERE


@dataclasses.dataclass(frozen=True)
class MeshLayout(Layout):
    """Rows spread over a mesh; see `Layout` for what the methods promise."""

    mesh: Mesh = dataclasses.field(kw_only=True)

    @property
    def devices(self) -> int:
        return math.prod(self.mesh.shape[axis] for axis in AXES)

    def each(self, fn: Callable[[Any, Any], T], params: Any, rows: Any) -> T:
        by_row = PartitionSpec(AXES)
        spread = jax.shard_map(fn, mesh=self.mesh, in_specs=(NOWHERE, by_row), out_specs=by_row, check_vma=False)
        return self.rows(spread(params, rows))

    def sums(self, fn: Callable[[P, Any], tuple[P, T]], params: P, rows: Any) -> tuple[P, T]:
        specs = jax.tree_util.tree_map_with_path(lambda path, x: _spec(self.mesh, path, x.shape), params)
        fsdp_only = jax.tree.map(lambda spec: PartitionSpec(*[a if a == "fsdp" else None for a in spec]), specs)

        def gather(x: jax.Array, spec: PartitionSpec) -> jax.Array:
            return jax.lax.all_gather(x, "fsdp", axis=tuple(spec).index("fsdp"), tiled=True) if "fsdp" in spec else x

        def scatter(x: jax.Array, spec: PartitionSpec) -> jax.Array:
            return jax.lax.psum_scatter(x, "fsdp", scatter_dimension=tuple(spec).index("fsdp"), tiled=True)

        def local(params: P, rows: Any) -> Any:
            gradient, small = fn(jax.tree.map(gather, params, fsdp_only), rows)
            leaves, treedef = jax.tree.flatten(gradient)
            split = {n: scatter(leaves[n], spec) for n, spec in enumerate(jax.tree.leaves(fsdp_only)) if "fsdp" in spec}
            whole = {n: leaf for n, leaf in enumerate(leaves) if n not in split}
            whole, small = self._reduce((whole, small), SONGS)
            summed = whole | self._reduce(split, ("slice", "data"))
            return jax.tree.unflatten(treedef, [summed[n] for n in range(len(leaves))]), small

        spread = jax.shard_map(
            local,
            mesh=self.mesh,
            axis_names=set(self.mesh.axis_names) - {"tensor"},  # which is left to the compiler
            in_specs=(fsdp_only, BY_SONG),
            out_specs=(fsdp_only, NOWHERE),
            check_vma=False,
        )
        return spread(params, pad_rows(rows, math.prod(self.mesh.shape[axis] for axis in SONGS)))

    def _reduce(self, tree: T, axes: tuple[str, ...]) -> T:
        """Sums a tree of float32 over devices, as one vector: between slices, each message costs its latency."""
        if self.mesh.shape["tensor"] > 1:  # a vector would undo the split over tensor
            return jax.lax.psum(tree, axes)
        flat, restore = ravel_pytree(tree)
        return restore(jax.lax.psum(flat, axes)) if flat.size else tree

    def stored(self, tree: T) -> T:
        return jax.lax.with_sharding_constraint(tree, shardings(self.mesh, tree))

    def rows(self, tree: T, axis: int = 0) -> T:
        return jax.lax.with_sharding_constraint(tree, jax.tree.map(lambda x: self.row_sharding(x.shape, axis), tree))

    def everywhere(self, tree: T) -> T:
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, NOWHERE))

    def place(self, rows: Any, count: int) -> Any:
        # The host has all rows, or only those that `rows_here` names.
        here, filled = self.rows_here(count), self.filled(count)

        def put(x: np.ndarray) -> jax.Array:
            known = here if len(x) == len(here) else np.arange(count)

            def part(index: Any) -> np.ndarray:
                wanted = np.arange(filled)[index[0]]
                real = wanted[wanted < count]
                out = np.zeros((len(wanted), *x.shape[1:]), x.dtype)
                out[: len(real)] = x[np.searchsorted(known, real)]
                return out

            shape = (filled, *x.shape[1:])
            return jax.make_array_from_callback(shape, self.row_sharding(shape), part)

        return jax.tree.map(put, rows)

    def share(self, tree: Any) -> Any:
        everywhere = NamedSharding(self.mesh, NOWHERE)
        return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, everywhere, lambda index: x[index]), tree)

    def rows_here(self, count: int) -> np.ndarray:
        """Which of `count` rows this process's devices hold."""
        shape = (self.filled(count),)
        places = self.row_sharding(shape).addressable_devices_indices_map(shape).values()
        rows = np.unique(np.concatenate([np.arange(shape[0])[index] for index in places]))
        return rows[rows < count]

    def filled(self, count: int) -> int:
        """How many rows `place` makes of so many songs."""
        return -(-count // self.devices) * self.devices

    def start(self, init: Callable[..., T], *args: Any) -> T:
        # Compiled with its shardings, so that no part of it is ever whole on one device.
        return jax.jit(init, out_shardings=shardings(self.mesh, jax.eval_shape(init, *args)))(*args)

    def abstract(self, tree: Any) -> Any:
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            tree,
            shardings(self.mesh, tree),
        )

    def row_sharding(self, shape: tuple[int, ...], axis: int = 0) -> NamedSharding:
        """Rows along `axis` over the axes of songs, where they come out even; else everywhere."""
        even = shape[axis] % math.prod(self.mesh.shape[name] for name in SONGS) == 0
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, SONGS) if even else NOWHERE)


@dataclasses.dataclass(frozen=True)
class MeshMembers(Members):
    """A population spread over the first axis of a mesh that `split` made; see `Members` for what it promises."""

    mesh: Mesh = dataclasses.field(kw_only=True)

    @classmethod
    def of(cls, mesh: Mesh) -> MeshMembers:
        """On a CPU members that have a device each are computed one after the other: so each fits into its cache."""
        single = mesh.size == mesh.shape[POPULATION]
        return cls(is_vectorised=not (single and mesh.devices.flat[0].platform == "cpu"), mesh=mesh)

    def layout(self, microbatch_rows: int) -> Layout:
        """How the songs of one member are spread."""
        together = MEMBERS if self.is_vectorised else None
        if self.mesh.size == self.mesh.shape[POPULATION]:
            return Layout(microbatch_rows, together)
        return MeshLayout(microbatch_rows, together, mesh=self.mesh)

    def each(self, fn: Callable[[Any, Any], T], members: Any, shared: Any) -> T:
        if self.mesh.size > self.mesh.shape[POPULATION]:
            spread = jax.vmap(fn, in_axes=(0, None), axis_name=MEMBERS, spmd_axis_name=POPULATION)
            return spread(members, shared)
        by_member = PartitionSpec(POPULATION)
        here = functools.partial(Members(self.is_vectorised).each, fn)
        specs = by_member, NOWHERE
        spread = jax.shard_map(here, mesh=self.mesh, in_specs=specs, out_specs=by_member, check_vma=False)
        return spread(members, shared)

    def filled(self, count: int) -> int:
        """How many members are computed for so many: every group of devices has as many."""
        groups = self.mesh.shape[POPULATION]
        return -(-count // groups) * groups

    def rows_filled(self, count: int) -> int:
        """How many rows the songs of one member are filled up to."""
        group = self.mesh.size // self.mesh.shape[POPULATION]
        return -(-count // group) * group

    def shardings(self, members: Any) -> Any:
        """The sharding of every leaf [P, ...]: each group of devices holds its members, and splits each by `RULES`."""

        def of(path: tuple[Any, ...], x: Any) -> NamedSharding:
            return NamedSharding(self.mesh, PartitionSpec(POPULATION, *_spec(self.mesh, path, x.shape[1:])))

        return jax.tree_util.tree_map_with_path(of, members)

    def place(self, members: Any) -> Any:
        """Members' arrays [P, ...], in host memory or on devices -> spread over the groups of devices."""
        return jax.device_put(members, self.shardings(members))

    def members_here(self, count: int) -> np.ndarray:
        """Which of `filled(count)` members this process's devices hold, or hold a part of."""
        return self.members_of(jax.process_index(), count)

    def members_of(self, process: int, count: int) -> np.ndarray:
        """Which of `filled(count)` members the devices of a process hold, or hold a part of."""
        groups = [n for n, group in enumerate(self.mesh.devices) if any(d.process_index == process for d in group.flat)]
        return np.arange(self.filled(count)).reshape(self.mesh.shape[POPULATION], -1)[groups].ravel()

    def place_here(self, members: Sequence[Any], count: int) -> Any:
        """Songs in host memory of the members that `members_here` names -> arrays [P, ...], as `place` spreads them."""
        here, filled = self.members_here(count), np.arange(self.filled(count))

        def put(*known: np.ndarray) -> jax.Array:
            def part(index: Any) -> np.ndarray:
                return np.stack([known[n] for n in np.searchsorted(here, filled[index[0]])])

            return jax.make_array_from_callback((len(filled), *known[0].shape), self._by_member, part)

        return jax.tree.map(put, *members)

    def together(self, members: Iterable[T], count: int) -> T:
        """Puts `count` trees into arrays [P, ...], as `place` spreads them; copies of the last one fill up. They come
        one after the other, so that no device ever holds all of them whole."""
        trees = iter(members)
        first = next(trees)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.filled(count), *x.shape), x.dtype), first)
        shardings = self.shardings(shapes)
        together = jax.jit(functools.partial(_copies, self.filled(count)), out_shardings=shardings)(first)
        put = jax.jit(_put, out_shardings=shardings, donate_argnums=0)
        del first
        for number, tree in enumerate(trees, start=1):
            together = put(together, number, tree)
        return together

    def one(self, members: T, number: int) -> T:
        """The tree of one member, whole on every device."""
        return _one(members, number, self.whole)

    @property
    def _by_member(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(POPULATION))

    @property
    def whole(self) -> NamedSharding:
        """Of what every device holds whole."""
        return NamedSharding(self.mesh, NOWHERE)

    def everywhere(self, tree: Any) -> Any:
        """Gathers a tree so that every device holds it whole."""
        return jax.device_put(tree, self.whole)


def _copies(count: int, tree: T) -> T:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), tree)


def _put(members: T, number: int, member: T) -> T:
    """Members' arrays [P, ...] with `member` from `number` on."""

    def put(all_of: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.where(_numbers(all_of) >= number, x, all_of)

    return jax.tree.map(put, members, member)


@functools.partial(jax.jit, static_argnames="sharding")
def _one(members: T, number: int, sharding: NamedSharding) -> T:
    def one(x: jax.Array) -> jax.Array:
        # x[number] would gather all members on every device. The sum is one of bits: it has no other terms but 0.
        bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")
        its = jnp.sum(jnp.where(_numbers(bits) == number, bits, 0), axis=0, dtype=bits.dtype)
        return jax.lax.with_sharding_constraint(jax.lax.bitcast_convert_type(its, x.dtype), sharding)

    return jax.tree.map(one, members)


def _numbers(x: jax.Array) -> jax.Array:
    """The number of each member of x [P, ...], with as many axes."""
    return jnp.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1))
