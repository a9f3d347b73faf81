"""How rows (songs) are spread over devices: the algorithm says which results are per row and which are sums."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

P = TypeVar("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Everything on one device. `runtime.mesh.MeshLayout` has the same methods for a mesh of devices."""

    microbatch_rows: int = 0  # rows per device and gradient computation; 0 = all at once
    members: str | None = None  # axis of a population whose members are computed in one vectorised pass

    @property
    def devices(self) -> int:
        return 1

    def each(self, fn: Callable[[Any, Any], T], params: Any, rows: Any) -> T:
        """Maps fn(params, rows) over the devices, each on its own rows; a row's result depends on that row alone.

        The number of rows is one that `place` gives.
        """
        return fn(params, rows)

    def each_in_chunks(self, fn: Callable[[Any, Any], T], size: int, params: Any, rows: Any) -> T:
        """`each`, where a device computes at most `size` of its rows at a time."""
        return self.each(lambda params, rows: in_chunks(functools.partial(fn, params), size, rows), params, rows)

    def sums(self, fn: Callable[[P, Any], tuple[P, T]], params: P, rows: Any) -> tuple[P, T]:
        """Adds up fn(params, rows) -> (a tree like `params`, small ones), which are sums over rows.

        Each device sums over its own rows; the partial sums are added once, at the end.
        """
        return fn(params, rows)

    def when(self, is_true: jax.Array, yes: Callable[..., T], no: Callable[..., T], *args: Any) -> T:
        """yes(*args) or no(*args), only one of which is computed; of members in one vectorised pass, `yes` is computed
        for all where any of them needs it."""
        if self.members is None:
            return jax.lax.cond(is_true, yes, no, *args)
        is_true_for_any = jax.lax.pmax(is_true.astype(jnp.int32), self.members) > 0
        found = jax.lax.cond(is_true_for_any, yes, no, *args)
        return jax.tree.map(lambda new, old: jnp.where(is_true, new, old), found, no(*args))

    def stored(self, tree: T) -> T:
        """Constrains a tree of parameters, or one that holds such trees, to its storage sharding."""
        return tree

    def rows(self, tree: T, axis: int = 0) -> T:
        """Spreads a tree of row arrays over the devices, along `axis`."""
        return tree

    def start(self, init: Callable[..., T], *args: Any) -> T:
        """Runs init(*args), which returns a tree of parameters, and creates them already sharded."""
        return init(*args)

    def abstract(self, tree: Any) -> Any:
        """Returns shapes, dtypes and shardings of such a tree: enough to restore it."""
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)

    def place(self, rows: Any, count: int) -> Any:
        """Puts `count` rows of host memory on the devices, and adds songs without a frame until every device has as
        many."""
        return rows

    def share(self, tree: Any) -> Any:
        """Copies arrays from host memory to every device, whole."""
        return tree

    def everywhere(self, tree: T) -> T:
        """Gathers a tree so that every device holds it whole."""
        return tree


ONE_DEVICE = Layout()


def pad_rows(rows: Any, multiple: int) -> Any:
    """Fills up with zero rows, which are songs without a frame, to a multiple of `multiple`."""
    count = len(jax.tree.leaves(rows)[0])
    return jax.tree.map(lambda x: jnp.pad(x, [(0, -count % multiple)] + [(0, 0)] * (x.ndim - 1)), rows)


def in_chunks(fn: Callable[[Any], T], size: int, rows: Any) -> T:
    """fn(rows) for at most `size` rows at a time, so that [rows, T, V] arrays never exist for all of them."""
    count = len(jax.tree.leaves(rows)[0])
    chunks = -(-count // size)
    size = -(-count // chunks)
    padded = jax.tree.map(lambda x: x.reshape(chunks, size, *x.shape[1:]), pad_rows(rows, size))
    out = jax.lax.map(fn, padded)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], out)
