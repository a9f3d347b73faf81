"""FLOPs and bytes against numbers worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from gapt_jax.models import layers
from gapt_jax.runtime import cost
from gapt_jax.runtime.cost import Cost

M, K, N = 8, 16, 4
A, B = jnp.zeros((M, K)), jnp.zeros((K, N))
DOT = 2 * M * K * N
DOT_BYTES = 4 * (M * K + K * N + M * N)


def of(function, *args) -> Cost:
    return cost.of(jax.jit(function).trace(*args).jaxpr)


def test_matmul():
    assert of(jnp.dot, A, B) == Cost(flops=DOT, bytes=DOT_BYTES)


def test_matmul_of_bfloat16_moves_half_the_bytes():
    assert of(jnp.dot, A.astype(jnp.bfloat16), B.astype(jnp.bfloat16)).bytes == DOT_BYTES / 2


def test_batched_matmul_by_einsum_and_by_vmap():
    left, right = jnp.zeros((3, M, K)), jnp.zeros((3, K, N))
    assert of(lambda x, y: jnp.einsum("bmk,bkn->bmn", x, y), left, right).flops == 3 * DOT
    assert of(jax.vmap(jnp.dot), left, right) == Cost(flops=3 * DOT, bytes=3 * DOT_BYTES)
    assert of(jax.vmap(jnp.dot, (0, None)), left, B).flops == 3 * DOT


def test_element_wise_work_costs_bytes_at_the_border_only():
    found = of(lambda x, y: jnp.tanh(x + y) * 2, A, A + 1)
    assert found == Cost(vector_flops=3 * M * K, bytes=3 * 4 * M * K)  # two read, one written
    assert of(lambda x: x * x + x, A).bytes == 2 * 4 * M * K  # read once, written once


def test_a_bias_and_an_activation_are_fused_into_the_matmul_before_them():
    found = of(lambda x, w, b: jnp.sum(jnp.tanh(x @ w + b)), A, B, jnp.zeros(N))
    assert found.flops == DOT
    assert found.bytes == DOT_BYTES + 4 * N + 4 * M * N  # bias; input of the sum


def test_casts_and_reshapes_cost_nothing_and_keep_where_an_array_comes_from():
    assert of(lambda x: x.reshape(K, M).T.astype(jnp.bfloat16), A) == Cost()
    assert of(lambda x: x.reshape(K, M) + 1, A).bytes == 2 * 4 * M * K


def test_weights_that_are_rounded_in_every_pass_are_read_as_they_are_rounded():
    def passes(w, x):
        return jax.lax.scan(lambda x, _: (x @ layers.rounded(w, jnp.bfloat16), None), x, length=3)

    w, x = jnp.zeros((K, K)), jnp.zeros((M, K), jnp.bfloat16)
    assert of(passes, w, x) == Cost(flops=3 * 2 * M * K * K, bytes=3 * 2 * (M * K + K * K + M * K))


def test_what_depends_on_the_platform_counts_as_its_cheapest_way():
    def program(x, y):
        def twice(x, y):
            return x @ y + x @ (2 * y)

        return jax.lax.platform_dependent(x, y, cpu=jnp.matmul, default=twice)

    assert of(program, A, B).flops == DOT


def test_scan_multiplies_by_its_length():
    w = jnp.zeros((K, K))

    def program(x, w):
        return jax.lax.scan(lambda h, _: (h @ w, None), x, length=7)[0]

    assert of(program, A, w) == Cost(flops=7 * 2 * M * K * K, bytes=7 * 4 * (2 * M * K + K * K))
    assert of(lambda x, w: jax.lax.scan(lambda h, _: (program(h, w), None), x, length=3)[0], A, w).flops == (
        3 * 7 * 2 * M * K * K
    )


def test_optimizer_in_a_scan_reads_and_writes_its_state_each_pass():
    def step(carry, gradient):
        parameter, moment = carry
        moment = 0.9 * moment + gradient
        return (parameter - moment, moment), None

    found = of(lambda p, m, g: jax.lax.scan(step, (p, m), g)[0], A, A, jnp.zeros((5, M, K)))
    assert found.bytes == 5 * 5 * 4 * M * K  # parameter and moment in and out, gradient in
    assert found.vector_flops == 5 * 3 * M * K


def test_cache_of_a_decoder_is_written_in_place():
    cache = jnp.zeros((100, K))

    def frame(cache, t):
        cache = jax.lax.dynamic_update_slice(cache, jnp.ones((1, K)), (t, 0))
        return cache, cache @ jnp.zeros(K)

    found = of(lambda cache: jax.lax.scan(frame, cache, jnp.arange(10)), cache)
    writes, reads, scores = 4 * K, 4 * (100 * K + K), 4 * 100
    assert found.flops == 10 * 2 * 100 * K
    assert found.bytes == pytest.approx(10 * (writes + reads + scores), rel=0.01)  # and the frame number


def test_fori_loop_of_known_length_multiplies_and_a_while_loop_is_reported():
    assert of(lambda x: jax.lax.fori_loop(0, 6, lambda _, h: h @ jnp.eye(K), x), A).flops == 6 * 2 * M * K * K
    found = of(lambda x: jax.lax.while_loop(lambda h: h[0, 0] < 1, lambda h: h @ jnp.eye(K), x), A)
    assert (found.flops, found.unknown_loops) == (2 * M * K * K, 1)


def test_cond_counts_its_most_expensive_branch():
    def program(x, w, choice):
        return jax.lax.switch(choice, [lambda: x, lambda: x @ w, lambda: x @ w @ w])

    w = jnp.zeros((K, K))
    assert of(program, A, w, 0).flops == 2 * 2 * M * K * K


def test_a_solver_of_linear_equations_counts_and_stops_no_run():
    found = cost.of(jax.make_jaxpr(jnp.linalg.inv)(jnp.eye(4)))
    assert found.vector_flops > 0 and found.unknown_loops == 0


def test_remat_computes_the_forward_pass_again():
    def loss(x, w):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w))

    w = jnp.zeros((K, K))
    one = 2 * M * K * K
    assert of(jax.grad(loss, 1), A, w).flops == (2 + 3) * one  # forward 2; backward 2 for the second, 1 for the first
    assert of(jax.grad(jax.checkpoint(loss), 1), A, w).flops == (2 + 2 + 3) * one


def test_custom_derivatives_are_entered():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (product(x, w), (x, w)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))
    assert of(product, A, B).flops == DOT
    assert of(jax.grad(lambda x, w: product(x, w).sum(), (0, 1)), A, B).flops == 3 * DOT
    assert of(jax.nn.silu, A).vector_flops > 0  # custom_jvp


def test_gather_and_scatter_move_the_rows_they_touch():
    table, rows = jnp.zeros((1000, K)), jnp.arange(5)
    taken = of(lambda t, r: t.at[r].get(mode="promise_in_bounds"), table, rows)
    assert taken.bytes == pytest.approx(4 * 5 * K, rel=0.3)
    added = of(lambda t, r: t.at[r].add(1.0, mode="promise_in_bounds"), table, rows)
    assert added.bytes == pytest.approx(2 * 4 * 5 * K, rel=0.3)
    assert added.vector_flops < 1000


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "tensor"))


def test_shard_map_counts_the_work_of_one_device():
    rows = jnp.zeros((8 * M, K))
    by_row = P(("data", "tensor"))
    spread = functools.partial(jax.shard_map, mesh=mesh(), in_specs=(by_row, P()), out_specs=by_row, check_vma=False)
    assert of(spread(jnp.dot), rows, B) == Cost(flops=DOT, bytes=DOT_BYTES)
    assert of(jnp.dot, rows, B).flops == 8 * DOT  # outside: as if every device did it all


def test_axes_left_to_the_compiler_split_the_work():
    spread = jax.shard_map(
        jnp.dot, mesh=mesh(), axis_names={"data"}, in_specs=(P("data"), P()), out_specs=P("data"), check_vma=False
    )
    assert of(spread, jnp.zeros((4 * M, K)), B).flops == DOT / 2
