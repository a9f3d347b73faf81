"""Kernels for attention beside what XLA computes: splash attention interpreted on a CPU, cuDNN's by its definition.

Tolerances: float32 differs by the order of additions, bfloat16 by a rounding of outputs and gradients (2^-8 of them).
"""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import AxisType, Mesh, NamedSharding

from gapt_jax import models
from gapt_jax.config import MeshConfig, ModelsConfig, TransformerConfig
from gapt_jax.launch import plan as planning
from gapt_jax.models import fused, layers, networks
from gapt_jax.runtime import cost, mesh
from gapt_jax.runtime.devices import compiling_anew
from gapt_jax.task import PAD

STACK = TransformerConfig(dim=16, depth=2, heads=2, head_dim=8, dropout=0.1)
SIZES = ModelsConfig(STACK, STACK, STACK, STACK)
FUSED = dataclasses.replace(SIZES, attention="fused")
TOLERANCE = {"float32": 1e-5, "bfloat16": 1.5e-2}  # of the largest number


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(fused, "INTERPRETED", True)
    monkeypatch.setattr(fused, "MOST_BLOCK", 128)  # so that short sequences have several blocks


def inputs(length: int, keys: int, dtype: str):
    """Queries, keys and values of two songs with three heads of 16, as `layers.Attention` makes them."""
    draws = jax.random.split(jax.random.key(length), 3)
    q, k, v = (jax.random.normal(draw, (2, 3, n, 16)) for draw, n in zip(draws, (length, keys, keys), strict=True))
    q, k = layers.l2_normalise(q), layers.l2_normalise(k).swapaxes(-1, -2)
    return tuple(layers.rounded(x, jnp.dtype(dtype)) for x in (q, k, v))


def shown(keys: int) -> jax.Array:
    """A song with padding in its middle and one with padding at its end."""
    places = jnp.arange(keys)
    return jnp.stack([(places < keys // 3) | (places >= keys // 2), places < keys // 4])


def by_xla(q, k, v, mask, *, causal):
    attention = layers.Attention(STACK, rotary=False, dtype=q.dtype, rngs=layers.nnx.Rngs(0))
    bias = jnp.zeros((1, 1, q.shape[2], v.shape[2])) if mask is None else jnp.where(mask, 0, -1e30)[:, None, None]
    hidden = jnp.triu(jnp.ones(bias.shape[2:], bool), 1) if causal else False
    return attention._mixed(q, k, v, jnp.where(hidden, -1e30, bias), None)


def with_gradient(attend, q, k, v, mask, causal):
    def weighed(q, k, v):
        mixed = attend(q, k, v, mask, causal=causal)
        return jnp.sum(mixed * jnp.cos(jnp.arange(mixed.size).reshape(mixed.shape))), mixed

    gradient, mixed = jax.jit(jax.grad(weighed, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return mixed, *gradient


def assert_close(found, expected, dtype):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * np.abs(b).max())


CASES = pytest.mark.parametrize(
    ("length", "keys", "causal", "dtype"),
    [(150, 150, True, "float32"), (70, 150, False, "float32"), (150, 150, True, "bfloat16")],
)


@CASES
def test_splash_attention_and_its_gradient_are_those_of_xla(length, keys, causal, dtype):
    data, mask = inputs(length, keys, dtype), None if causal else shown(keys)
    found = with_gradient(functools.partial(fused.attend, fused.SPLASH), *data, mask, causal)
    assert found[0].dtype == jnp.float32 and found[0].shape == data[0].shape
    assert_close(found, with_gradient(by_xla, *data, mask, causal), dtype)


@CASES
def test_what_cudnn_is_asked_for_is_what_xla_computes(monkeypatch, length, keys, causal, dtype):
    asked = jax.nn.dot_product_attention

    def in_float32(*qkv, **options):  # in bfloat16 XLA's way to compute it rounds as each version of JAX likes
        found = asked(*(x.astype(jnp.float32) for x in qkv), **options | {"implementation": "xla"})
        return found.astype(qkv[0].dtype)

    monkeypatch.setattr(jax.nn, "dot_product_attention", in_float32)
    data, mask = inputs(length, keys, dtype), None if causal else shown(keys)
    found = with_gradient(functools.partial(fused.attend, fused.CUDNN), *data, mask, causal)
    assert_close(found, with_gradient(by_xla, *data, mask, causal), dtype)


@pytest.mark.parametrize(("length", "causal"), [(512, True), (517, False), (257, False)])
def test_cudnn_takes_the_shapes_and_its_work_is_counted(monkeypatch, length, causal):
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91100)
    data, mask = inputs(length, length, "bfloat16"), None if causal else shown(length)
    attend = functools.partial(fused.attend, fused.CUDNN, mask=mask, causal=causal)
    program = jax.make_jaxpr(jax.grad(lambda *x: attend(*x).sum(), argnums=(0, 1, 2)))(*data)
    padded = -(-length // 8) * 8
    assert cost.of(program).flops == 7 * 2 * 2 * 3 * padded**2 * 16 / (2 if causal else 1)


@pytest.fixture
def spread():
    """Songs over two devices, heads over two that are left to the compiler, as in the gradient of an update."""
    devices = Mesh(np.array(jax.devices()[:4]).reshape(1, 2, 1, 2), mesh.AXES, axis_types=(AxisType.Auto,) * 4)
    return mesh.MeshLayout(mesh=devices)


def tokens(length: int) -> jax.Array:
    drawn = jax.random.randint(jax.random.key(length), (4, length), 1, 9)
    return jnp.where(jnp.arange(length) < jnp.array([[length], [5], [9], [length]]), drawn, PAD)


INPUTS = {"policy": (tokens(12),), "anchor": (tokens(12), tokens(10)), "discriminator": (tokens(12),)}


def summed(layout, config: ModelsConfig, name: str):
    """What a sum over songs of a network's outputs changes with its parameters, and those outputs: (how, from what)."""
    model = getattr(models.build(config, 9, platform="tpu"), name)

    def local(params, rows):
        def loss(params):
            found = model(params, *rows)
            return jnp.sum(jnp.sin(found)), jnp.sum(found, axis=0)

        return jax.grad(loss, has_aux=True)(params)

    return functools.partial(layout.sums, local), (model.init(jax.random.key(1)), INPUTS[name])


def gradient(*settings):
    call, inputs = summed(*settings)
    return jax.jit(call)(*inputs)


@pytest.mark.parametrize(("name", "depth"), [("policy", 1), ("anchor", 1), ("discriminator", 2)])
def test_networks_are_the_same_where_songs_and_heads_are_spread(spread, monkeypatch, name, depth):
    """The anchor has a bias in its own attention; of a classifier's last block only the first position is read."""
    calls, attend = [], fused.attend
    monkeypatch.setattr(fused, "attend", lambda *a, **k: calls.append(a[0]) or attend(*a, **k))
    stack = dataclasses.replace(STACK, depth=depth)
    found, expected = (
        gradient(spread, ModelsConfig(stack, stack, stack, stack, attention=kind), name) for kind in ("fused", "xla")
    )
    assert calls == [fused.SPLASH]
    assert_close(found, expected, "float32")


def test_gradients_of_a_population_stay_with_xla():
    devices = Mesh(
        np.array(jax.devices()[:2]).reshape(2, 1, 1, 1, 1),
        (mesh.POPULATION, *mesh.AXES),
        axis_types=(AxisType.Auto,) * 5,
    )
    programs = []
    for config in (FUSED, SIZES):
        call, inputs = summed(mesh.MeshLayout(mesh=devices), config, "policy")
        members = jax.tree.map(lambda x: jnp.stack([x, x]), inputs)
        programs.append(str(jax.make_jaxpr(jax.vmap(call, spmd_axis_name=mesh.POPULATION))(*members)))
    assert programs[0] == programs[1]


@pytest.mark.parametrize("is_spread", [True, False])
def test_with_dropout_and_outside_of_a_shard_map_the_program_is_that_of_xla(spread, is_spread):
    fused_one, plain = (models.build(config, 9, platform="tpu").discriminator for config in (FUSED, SIZES))
    params = plain.init(jax.random.key(0))
    rows = (tokens(12), jax.random.split(jax.random.key(2), 4) if is_spread else None)

    def program(model):
        def call(params, rows):
            return model(params, *rows)

        return str(jax.make_jaxpr(lambda p, r: spread.each(call, p, r) if is_spread else call(p, r))(params, rows))

    assert program(fused_one) == program(plain)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("causal", [True, False])
def test_a_tpu_keeps_no_scores_for_the_gradient(monkeypatch, causal):
    monkeypatch.setattr(fused, "INTERPRETED", False)
    monkeypatch.setattr(fused, "MOST_BLOCK", 512)
    devices = mesh.build(MeshConfig(), planning.devices_of("v5e:2x2", 1))
    songs, heads, length, width = 16, 2, 512, 16

    def gradient(q, k, v, mask):
        attend = functools.partial(fused.attend, fused.SPLASH, mask=None if causal else mask, causal=causal)
        return jax.grad(lambda *x: attend(*x).sum(), argnums=(0, 1, 2))(q, k, v)

    names = set(mesh.AXES) - {"tensor"}  # as in `MeshLayout.sums`
    spread = jax.shard_map(
        gradient, mesh=devices, axis_names=names, in_specs=mesh.BY_SONG, out_specs=mesh.BY_SONG, check_vma=False
    )
    by_song = NamedSharding(devices, mesh.BY_SONG)
    shapes = ((heads, length, width), (heads, width, length), (heads, length, width))
    arrays = [jax.ShapeDtypeStruct((songs, *shape), jnp.bfloat16, sharding=by_song) for shape in shapes]
    mask = jax.ShapeDtypeStruct((songs, length), bool, sharding=by_song)
    with compiling_anew():
        compiled = jax.jit(spread).lower(*arrays, mask).compile()
    scores = songs // 4 * heads * length * length * 4
    assert compiled.memory_analysis().temp_size_in_bytes < scores / 2


def test_which_kernel_computes_attention_where():
    in_bfloat16 = dataclasses.replace(FUSED, compute_dtype="bfloat16")
    odd = dataclasses.replace(in_bfloat16, reward=dataclasses.replace(STACK, head_dim=12))
    chosen = [fused.implementation(c, p) for c in (SIZES, FUSED, in_bfloat16, odd) for p in ("cpu", "gpu", "tpu")]
    assert [name for name, _ in chosen] == [
        *("xla", "xla", "xla"),
        *("xla", "xla", "splash"),
        *("xla", "cudnn", "splash"),
        *("xla", "xla", "splash"),
    ]
    assert [bool(why) for _, why in chosen] == [0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0]
    assert "no implementation for a CPU" in chosen[3][1] and "bfloat16" in chosen[4][1]


def test_the_factors_are_exact_and_make_ten():
    assert sum(fused.FACTORS) == layers.ATTENTION_FACTOR
    q = jax.random.normal(jax.random.key(0), (1000,), jnp.bfloat16)
    for factor in fused.FACTORS:
        assert ((factor * q).astype(jnp.float32) == factor * q.astype(jnp.float32)).all()


def test_stacks_of_a_network_know_their_kernel():
    graph = models.build(FUSED, 9, platform="tpu").anchor
    bound = graph.bind(graph.init(jax.random.key(0)))
    assert isinstance(bound, networks.EncoderDecoder) and bound.encoder.kernel == bound.decoder.kernel == "splash"
