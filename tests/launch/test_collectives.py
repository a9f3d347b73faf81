"""Collectives of programs compiled for eight CPU devices, and of HLO as the TPU compiler writes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gapt_jax.launch.collectives import Collective, Summary, parse, summarize

ROWS, NOWHERE = P("data"), P()
X = jnp.zeros((8 * 16, 32))


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:8]), ("data",), axis_types=(AxisType.Auto,))


def of_shard_map(function, out_specs=NOWHERE, per_slice=8) -> list[Collective]:
    spread = jax.shard_map(function, mesh=mesh(), in_specs=ROWS, out_specs=out_specs, check_vma=False)
    return parse(jax.jit(spread).lower(X).compile().as_text(), per_slice)


def test_psum():
    (found,) = of_shard_map(lambda x: jax.lax.psum(x, "data"))
    assert found == Collective("all-reduce", 16 * 32 * 4, 8, crosses_slices=False, runs=1, is_in_loop=False)
    assert found.sent == 2 * 7 / 8 * 16 * 32 * 4


def test_each_kind_with_the_bytes_of_the_whole_array():
    def everything(x):
        gathered = jax.lax.all_gather(x, "data", tiled=True)
        own = jax.lax.psum_scatter(jnp.sin(gathered), "data", tiled=True)
        turned = jax.lax.all_to_all(jnp.cos(own), "data", 0, 0, tiled=True)
        return jax.lax.ppermute(turned * 2, "data", [(i, (i + 1) % 8) for i in range(8)])

    part, whole = 16 * 32 * 4, 8 * 16 * 32 * 4
    found = {c.kind: (c.bytes, round(c.sent)) for c in of_shard_map(everything, ROWS)}
    assert found == {
        "all-gather": (whole, whole * 7 // 8),
        "reduce-scatter": (whole, whole * 7 // 8),
        "all-to-all": (part, part * 7 // 8),
        "collective-permute": (part, part),
    }


def test_a_loop_multiplies_and_nested_loops_multiply_again():
    def loops(x):
        def outer(x, _):
            x = jax.lax.scan(lambda x, _: (jax.lax.psum(jnp.sin(x), "data"), None), x, length=3)[0]
            return jax.lax.pmax(jnp.cos(x), "data"), None

        return jax.lax.scan(outer, x, length=5)[0]

    found = of_shard_map(loops, ROWS)
    assert sorted(c.runs for c in found) == [5, 15]
    assert all(c.is_in_loop for c in found)
    assert summarize(found) == {"all-reduce": Summary(count=20, bytes=20 * 16 * 32 * 4, crossing=0)}


def test_groups_that_cross_slices():
    (found,) = of_shard_map(lambda x: jax.lax.psum(x, "data"), per_slice=4)
    assert found.crosses_slices
    within = [[0, 1, 2, 3], [4, 5, 6, 7]]
    (found,) = of_shard_map(lambda x: jax.lax.psum(x, "data", axis_index_groups=within), ROWS, per_slice=4)
    assert (found.group_size, found.crosses_slices) == (4, False)


def test_both_branches_of_a_conditional_count():
    def program(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: jax.lax.psum(x, "data"), lambda x: x * 2, x)

    assert [c.runs for c in of_shard_map(program, ROWS)] == [1]


def test_gradient_of_replicated_parameters_under_jit():
    rows, everywhere = NamedSharding(mesh(), ROWS), NamedSharding(mesh(), P())
    gradient = jax.jit(jax.grad(lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2)), out_shardings=everywhere)
    w = jax.device_put(jnp.ones((32, 4)), everywhere)
    found = parse(gradient.lower(w, jax.device_put(X, rows)).compile().as_text(), 8)
    assert summarize(found) == {"all-reduce": Summary(count=1, bytes=32 * 4 * 4, crossing=0)}


def test_a_program_without_collectives():
    assert of_shard_map(lambda x: jnp.tanh(x), ROWS) == []


def module(*body: str, devices: int = 16, extra: str = "") -> str:
    """HLO of a program whose entry consists of these instructions."""
    lines = "\n".join(f"  {line}" for line in body)
    header = f"HloModule jit_f, is_scheduled=true, num_partitions={devices}"
    return f"{header}\n\n{extra}\nENTRY %main (p: f32[8]) -> f32[8] {{\n{lines}\n}}\n"


@pytest.mark.parametrize(
    ("groups", "size", "crosses"),
    [
        ("{{0,1,2,3},{4,5,6,7},{8,9,10,11},{12,13,14,15}}", 4, False),
        ("{{0,8},{1,9},{2,10},{3,11},{4,12},{5,13},{6,14},{7,15}}", 2, True),
        ("{}", 16, True),
        ("[2,8]<=[16]", 8, False),
        ("[8,2]<=[2,8]T(1,0)", 2, True),
        ("[4,4]<=[2,2,4]T(2,0,1)", 4, True),
        ("mesh['axis_0'=16] {'axis_0'}", 16, True),
        ("mesh['a'=2,'b'=8] {'b'}", 8, False),
        ("mesh['a'=2,'b'=8] {'a'}", 2, True),
    ],
)
def test_replica_groups(groups, size, crosses):
    text = module(f"ROOT %r = f32[8]{{0:T(128)}} all-reduce(%p), channel_id=1, replica_groups={groups}, to_apply=%add")
    (found,) = parse(text, devices_per_slice=8)
    assert (found.group_size, found.crosses_slices) == (size, crosses)


@pytest.mark.parametrize(
    ("start", "kind", "size"),
    [
        ("(f32[8]{0:T(128)}, f32[128]{0:T(128)S(1)}) all-gather-start(%p)", "all-gather", 512),
        ("((f32[8], bf16[8]), (f32[128], bf16[128])) all-gather-start(%p, %q)", "all-gather", 512 + 256),
        ("f32[8]{0} all-reduce-start(%p)", "all-reduce", 32),
        ("(f32[8]{0}, bf16[8]{0}) all-reduce-start(%p, %q)", "all-reduce", 32 + 16),
        ("((f32[128]), f32[8], u32[]) reduce-scatter-start(%p)", "reduce-scatter", 512),
    ],
)
def test_asynchronous_forms_count_once_with_their_result(start, kind, size):
    text = module(
        f"%s = {start}, replica_groups=[1,16]<=[16], to_apply=%add",
        f"ROOT %d = f32[8]{{0}} {kind}-done(%s)",
    )
    (found,) = parse(text, 16)
    assert (found.kind, found.bytes, found.runs) == (kind, size, 1)


def test_collective_wrapped_into_async_start_counts_once():
    extra = (
        "%wrapped (q: f32[128]) -> f32[8] {\n"
        "  ROOT %rs = f32[8]{0} reduce-scatter(%q), replica_groups=[1,16]<=[16], dimensions={0}, to_apply=%add\n}\n"
    )
    text = module(
        "%s = ((f32[128]{0}), f32[8]{0}, u32[]) async-start(%p), calls=%wrapped",
        "ROOT %d = f32[8]{0} async-done(%s), calls=%wrapped",
        extra=extra,
    )
    assert [(c.kind, c.bytes) for c in parse(text, 16)] == [("reduce-scatter", 512)]


def test_permute_start_has_its_operand_in_its_shape():
    text = module(
        "%s = (f32[64,512]{1,0:T(8,128)}, f32[64,512]{1,0:T(8,128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) "
        "collective-permute-start(%p), channel_id=1, source_target_pairs={{0,8},{8,0}}",
        "ROOT %d = f32[64,512]{1,0:T(8,128)S(1)} collective-permute-done(%s)",
    )
    assert parse(text, 8) == [Collective("collective-permute", 64 * 512 * 4, 2, True, 1, False)]


def test_loop_of_the_tpu_compiler_is_counted_by_its_bound():
    extra = (
        "%body (b: (s32[], f32[8])) -> (s32[], f32[8]) {\n"
        "  %r = f32[8]{0:T(128)} all-reduce(%x), replica_groups={}, to_apply=%add\n"
        "  ROOT %t = (s32[], f32[8]) tuple(%i, %r)\n}\n\n"
        "%cond (c: (s32[], f32[8])) -> pred[] {\n"
        "  %constant.16 = s32[]{:T(128)} constant(5)\n"
        "  %i = s32[]{:T(128)} get-tuple-element(%c), index=0\n"
        "  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.16), direction=LT\n}\n"
    )
    loop = "ROOT %w = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%t), condition=%cond, body=%body"
    (found,) = parse(module(loop, extra=extra), 16)
    assert (found.runs, found.is_in_loop) == (5, True)
    said = ', backend_config={"known_trip_count":{"n":"7"}}'
    assert [c.runs for c in parse(module(loop + said, extra=extra), 16)] == [7]
    endless = extra.replace("direction=LT", "direction=NE")
    assert [c.runs for c in parse(module(loop, extra=endless), 16)] == [1]
    peeled = (
        "%one = s32[]{:T(128)} constant(1)",
        "%copied = s32[]{:T(128)} copy(%one)",
        "%t = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%copied, %p)",
    )
    assert [c.runs for c in parse(module(*peeled, loop, extra=extra), 16)] == [4]
    taken_out = "  %i = s32[]{:T(128)} get-tuple-element(%c), index=0\n"
    by_place = extra.replace(taken_out, "").replace("compare(%i,", "compare(%c#0,")  # as since JAX 0.12
    assert by_place.count("%i,") == 1  # in the body alone
    assert [c.runs for c in parse(module(*peeled, loop, extra=by_place), 16)] == [4]


def test_transfer_between_slices_is_a_collective_of_its_own():
    text = module(
        "%s = (f32[4,8,128]{2,1,0:T(8,128)}, u32[], token[]) send(%p, %a), channel_id=2, is_host_transfer=true, "
        'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",'
        '_xla_megascale_target="{1,2}x{0:15}",_xla_megascale_transfer_type="ALL_REDUCE"}',
        "ROOT %d = token[] send-done(%s), channel_id=2, is_host_transfer=true",
    )
    (found,) = parse(text, devices_per_slice=16, slices=4)
    assert found == Collective("all-reduce", 4 * 8 * 128 * 4, 4, crosses_slices=True, runs=1, is_in_loop=False)
    assert found.sent == 2 * 3 / 4 * 4 * 8 * 128 * 4
