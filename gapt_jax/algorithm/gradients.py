"""Gradients of means over ragged songs, accumulated exactly: sums and counts are added, the division comes last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gapt_jax.algorithm.layout import Layout, pad_rows
from gapt_jax.masked import Ratio
from gapt_jax.types import Metrics, Params

RowLoss = Callable[[Params, Any], tuple[Ratio, dict[str, Ratio]]]


def of_rows(loss: RowLoss, layout: Layout, params: Params, rows: Any) -> tuple[jax.Array, Metrics, Params]:
    """(loss, metrics, gradient) of a mean over rows; there is one reduction over devices.

    ``loss(params, rows) -> (Ratio, {name: Ratio})``; its counts must not depend on `params`, and rows of zeros must
    add nothing: microbatches and devices are filled up with them.
    """

    def total(params: Params, chunk: Any) -> tuple[jax.Array, Any]:
        value, metrics = loss(params, chunk)
        return value.total, (value, metrics)

    def local(params: Params, rows: Any) -> Any:
        def sums_of(chunk: Any) -> Any:
            (_, measured), gradient = jax.value_and_grad(total, has_aux=True)(params, chunk)
            return gradient, measured

        size = layout.microbatch_rows
        if not 0 < size < len(jax.tree.leaves(rows)[0]):
            return sums_of(rows)
        chunks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), pad_rows(rows, size))
        shapes = jax.eval_shape(sums_of, jax.tree.map(lambda x: x[0], chunks))
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(lambda sums, chunk: (jax.tree.map(jnp.add, sums, sums_of(chunk)), None), empty, chunks)[0]

    gradient, (value, metrics) = layout.sums(local, params, rows)
    values = {name: metric.value() for name, metric in metrics.items()}
    return value.value(), values, jax.tree.map(lambda g: g / jnp.maximum(value.number, 1.0), gradient)
