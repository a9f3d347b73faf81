"""The compiled decoding kernel beside the decoder written in JAX."""

import dataclasses
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from gapt_jax import masked, models
from gapt_jax.algorithm.rollout import distribution, roll_out
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.models import kernel
from gapt_jax.models.networks import interleave
from gapt_jax.runtime import cost, native
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import NOTE_ONSET, PAD, Vocabulary

SIZES = {
    "one head of 16": TransformerConfig(dim=16, depth=1, heads=1, head_dim=16),
    "heads wider than the stream": TransformerConfig(dim=48, depth=3, heads=3, head_dim=32),
    "published, thinner": TransformerConfig(dim=128, depth=2, heads=2, head_dim=64),
    "wide heads": TransformerConfig(dim=32, depth=2, heads=1, head_dim=128, ff_mult=2),
}
TOLERANCE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    if reason := native.load():
        assert reason.startswith(("no C++ compiler", "switched off")), reason
        pytest.skip(f"there is no compiled kernel: {reason}")


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.from_qualities([(0, 4, 7), (0, 3, 7), (0, 4, 7, 10)])


def policy_of(config, size, dtype="float32"):
    """A policy whose every array matters: gains and biases are not those it starts with."""
    sizes = ModelsConfig(config, config, config, config, compute_dtype=dtype)
    network = models.build(sizes, size, has_kernel=True).policy
    leaves, tree = jax.tree.flatten(network.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    changed = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return network, jax.tree.unflatten(tree, changed)


def passes(decoder, tokens, steps):
    """Logits after each pass over `steps` more tokens, the first pass over one alone."""
    step = jax.jit(decoder.decode)
    cache = decoder.grown(decoder.empty_cache(len(tokens), 1), tokens.shape[1] - 1)
    found, position = [], 0
    while position < tokens.shape[1]:
        fed = tokens[:, position : position + (steps if position else 1)]
        logits, cache = step(fed, cache, jnp.int32(position))
        found.append(logits)
        position += fed.shape[1]
    return np.stack(found)


@pytest.mark.parametrize("songs, steps", [(1, 1), (1, 2), (7, 2), (3, 5), (40, 2)])
@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES)
def test_it_computes_what_the_decoder_does(config, songs, steps):
    size = 261  # no multiple of anything
    network, params = policy_of(config, size)
    tokens = jax.random.randint(jax.random.key(2), (songs, 61), 0, size)
    decoder = network.bind(params)
    expected, found = passes(decoder, tokens, steps), passes(kernel.Kernel(decoder), tokens, steps)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())


def test_a_song_does_not_depend_on_the_songs_beside_it():
    network, params = policy_of(SIZES["published, thinner"], 300)
    tokens = jax.random.randint(jax.random.key(2), (37, 21), 0, 300)
    by_kernel = kernel.Kernel(network.bind(params))
    together = passes(by_kernel, tokens, 2)
    for start, stop in ((0, 1), (5, 12), (3, 36)):
        np.testing.assert_array_equal(passes(by_kernel, tokens[start:stop], 2), together[:, start:stop])


def songs_of(count, frames=24):
    melody = np.random.default_rng(0).integers(NOTE_ONSET, NOTE_ONSET + 128, (count, frames)).astype(np.int32)
    for row in range(count // 2):
        melody[row, frames - row :] = PAD
    return jnp.asarray(melody), jnp.arange(count)


def player(network, vocabulary, validity_mask=False):
    def play(params, melody, index):
        key, task = jax.random.key(3), Accompaniment(vocabulary)
        return roll_out(network, params, melody, index, key, task, validity_mask=validity_mask)

    return play


@pytest.mark.parametrize("validity_mask", [False, True])
def test_rollouts_play_the_same_chords_with_and_without_it(vocabulary, monkeypatch, validity_mask):
    network, params = policy_of(SIZES["published, thinner"], vocabulary.size)
    inputs = params, *songs_of(24)
    traced = jax.jit(player(network, vocabulary, validity_mask)).trace(*inputs)
    assert kernel.TARGET in traced.lower().as_text()
    found = traced.lower().compile()(*inputs)
    network = dataclasses.replace(network, has_kernel=False)
    plain = jax.jit(player(network, vocabulary, validity_mask)).trace(*inputs)
    assert kernel.TARGET not in plain.lower().as_text()
    expected = plain.lower().compile()(*inputs)
    np.testing.assert_array_equal(found.actions, expected.actions)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=2e-5)


def test_log_probabilities_are_those_that_training_computes(vocabulary):
    network, params = policy_of(SIZES["published, thinner"], vocabulary.size)
    found = jax.jit(player(network, vocabulary))(params, *songs_of(24))
    tokens = interleave(found.actions, found.context)[:, :-1]
    log_probs = masked.select(distribution(network.method(params, "at_states", tokens), None), found.actions)
    np.testing.assert_allclose(found.log_probs, found.mask * log_probs, atol=2e-5)


def test_devices_and_members_at_once(vocabulary):
    """Eight devices on few cores, and a population in one vectorised pass: the same chords as alone."""
    network, params = policy_of(SIZES["published, thinner"], vocabulary.size)
    melody, index = songs_of(24)
    play = player(network, vocabulary)
    alone = jax.jit(play)(params, melody, index)
    mesh = jax.make_mesh((8,), ("songs",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = P("songs")
    spread = jax.shard_map(play, mesh=mesh, in_specs=(P(), rows, rows), out_specs=rows, check_vma=False)
    for found in (jax.jit(spread)(params, melody, index) for _ in range(3)):
        np.testing.assert_array_equal(found.actions, alone.actions)
        np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=2e-6)  # softmax, which XLA computes
    others = jax.tree.map(lambda x: 2 * x, params)
    members = jax.tree.map(lambda *x: jnp.stack(x), params, others)
    found = jax.jit(jax.vmap(play, (0, None, None)))(members, melody, index)
    np.testing.assert_array_equal(found.actions[0], alone.actions)
    np.testing.assert_array_equal(found.actions[1], jax.jit(play)(others, melody, index).actions)
    assert np.mean(found.actions[1] != alone.actions) > 0.1


def test_other_platforms_get_the_plain_program(vocabulary):
    network, params = policy_of(SIZES["one head of 16"], vocabulary.size)
    traced = jax.jit(player(network, vocabulary)).trace(params, *songs_of(4))
    assert kernel.TARGET not in traced.lower(lowering_platforms=("tpu",)).as_text()
    assert kernel.TARGET in traced.lower(lowering_platforms=("cpu",)).as_text()


def test_what_it_cannot_do_is_left_to_jax():
    can = SIZES["one head of 16"]
    narrow, odd = dataclasses.replace(can, head_dim=8), dataclasses.replace(can, dim=24)
    for config, dtype, expected in (
        (can, "float32", True),
        (narrow, "float32", False),
        (odd, "float32", False),
        (can, "bfloat16", False),
    ):
        network, _ = policy_of(config, 64, dtype)
        assert network.has_kernel == expected


def test_more_tokens_than_the_cache_holds_are_refused():
    network, params = policy_of(SIZES["one head of 16"], 64)
    by_kernel = kernel.Kernel(network.bind(params))
    cache = by_kernel.empty_cache(2, 16)
    with pytest.raises(Exception, match="the cache has no room for these tokens"):
        jax.block_until_ready(jax.jit(by_kernel.decode)(jnp.zeros((2, 2), jnp.int32), cache, jnp.int32(15)))


def test_its_work_by_hand():
    config = TransformerConfig(dim=16, depth=3, heads=2, head_dim=32, ff_mult=4)
    network, params = policy_of(config, 50)  # 4 panels of 16
    by_kernel = kernel.Kernel(network.bind(params))
    cache = by_kernel.empty_cache(5, 64)
    jaxpr = jax.make_jaxpr(by_kernel.decode)(jnp.zeros((5, 2), jnp.int32), cache, jnp.int32(0))
    (call,) = (equation for equation in jaxpr.eqns if equation.primitive.name == "ffi_call")
    flops, moved = kernel.work([x.aval.shape for x in call.invars])
    layer = 16 * 192 + 64 * 16 + 16 * 128 + 64 * 16
    attention = 2 * 64 * 32  # two products of 64 columns with half of 64 places
    assert flops == 2 * 5 * (2 * 3 * (layer + attention) + 16 * 64)
    weights = 3 * (layer + 128 + 16 + 2 * 64) + 16 * 64
    caches = 3 * 5 * 2 * 64 * 32  # half of two
    written = 5 * 64 + 2 * 5 * 2 * 3 * 64
    assert moved == 4 * (5 * 2 * 16 + weights + caches + written)


def test_the_work_of_a_rollout_is_that_of_its_passes(vocabulary):
    network, params = policy_of(SIZES["one head of 16"], vocabulary.size)
    melody, index = songs_of(5, frames=24)

    def first_and_next(params, tokens):
        decoder = kernel.Kernel(network.bind(params))
        _, cache = decoder.decode(tokens[:, :1], decoder.empty_cache(5, 1), jnp.int32(0))
        return decoder.decode(tokens, decoder.grown(cache, 48), jnp.int32(1))

    jaxpr = jax.make_jaxpr(first_and_next)(params, jnp.zeros((5, 2), jnp.int32))
    calls = [kernel.work([x.aval.shape for x in e.invars]) for e in jaxpr.eqns if e.primitive.name == "ffi_call"]
    (first, _), (later, _) = calls
    traced = jax.jit(player(network, vocabulary)).trace(params, melody, index)
    assert cost.of(traced.jaxpr).flops == first + 24 * later


def test_a_diverged_policy_does_not_look_healthy():
    network, params = policy_of(SIZES["published, thinner"], 64)
    broken = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, jnp.nan) if "query_gain" in jax.tree_util.keystr(path) else x, params
    )
    tokens = jnp.ones((2, 4), jnp.int32)
    assert np.all(np.isnan(passes(kernel.Kernel(network.bind(broken)), tokens, 2)))


def test_without_a_compiler_the_reason_is_said(monkeypatch, tmp_path):
    load = native.load.__wrapped__
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        assert load() == "no C++ compiler on PATH (c++, g++ or clang++, or one named by CXX)"
    with monkeypatch.context() as patched:
        patched.setenv("GAPT_NATIVE", "0")
        assert load() == "switched off by GAPT_NATIVE=0"
    broken = tmp_path / "broken++"
    broken.write_text("#!/bin/sh\necho 'decode.cc:1: error: no such language' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert load() == f"{broken} cannot compile decode.cc: decode.cc:1: error: no such language"
    monkeypatch.setenv("CXX", str(tmp_path / "absent++"))
    assert "absent++" in load()
    with monkeypatch.context() as patched:
        patched.delenv("CXX")
        patched.setattr(native.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
        assert load() == "no home"
    assert not list(tmp_path.rglob("*.so"))


def test_it_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    library = native.compiled()
    assert [library] == list(tmp_path.rglob("*.so"))

    run = subprocess.run

    def refuse(command, **options):
        assert "-o" not in command, "compiled again"
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", refuse)
    assert native.compiled() == library
