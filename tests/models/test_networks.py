"""Networks against an independent computation of docs/method.md §2.1; masks and caches change no output."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import configurations
from jax.flatten_util import ravel_pytree

from gapt_jax import models
from gapt_jax.algorithm.reward_models import ContrastiveReward, DiscriminativeReward
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.models import layers
from gapt_jax.models.layers import Stack
from gapt_jax.models.networks import interleave, pair, part
from gapt_jax.vocabulary import BOS, EOS, PAD

V, LENGTH = 40, 11
STACK = TransformerConfig(dim=16, depth=2, heads=2, head_dim=64, ff_mult=4)
CONFIG = ModelsConfig(STACK, STACK, STACK, STACK)


def judges(size, rhythm_size):
    return {
        "contrastive": ContrastiveReward(size, ("melody", "chord")),
        "discriminative": DiscriminativeReward(size),
        "rhythm_contrastive": ContrastiveReward(rhythm_size, ("melody", "chord")),
        "rhythm_discriminative": DiscriminativeReward(rhythm_size),
    }


NETWORKS = models.build(CONFIG, V, judges(V, 6))


def named(networks, name):
    return networks.rewards[name] if name in networks.rewards else getattr(networks, name)


def moved(params, seed: int = 1):
    """Initial parameters moved a little, so that gains are not all 1."""
    flat, unravel = ravel_pytree(params)
    return unravel(flat + 0.1 * jax.random.normal(jax.random.key(seed), flat.shape))


@functools.cache
def random_params(name: str):
    return moved(named(NETWORKS, name).init(jax.random.key(0)))


@functools.cache
def compiled(name: str):
    """The network of that name as one program; eager calls compile every operation by itself."""
    return jax.jit(named(NETWORKS, name).__call__)


def tokens(seed: int, rows: int = 3, length: int = LENGTH) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(3, V, (rows, length)).astype(np.int32)
    drawn[:, 0] = BOS
    return drawn


class Reference:
    """docs/method.md §2.1 in float64 numpy, with loops where they are clearer."""

    def __init__(self, heads: int = STACK.heads, width: int = STACK.head_dim):
        self.heads, self.width = heads, width

    def norm(self, x):
        return math.sqrt(x.shape[-1]) * x / np.maximum(np.sqrt((x**2).sum(-1, keepdims=True)), 1e-12)

    def split(self, x):  # [L, H d] -> [H, L, d]
        return np.stack([x[:, h * self.width : (h + 1) * self.width] for h in range(self.heads)])

    def rope(self, x):
        out = x.copy()
        for position in range(x.shape[1]):
            for i in range(self.width // 4):
                angle = position * 10000 ** (-i / (self.width // 4))
                a, b = x[:, position, 2 * i], x[:, position, 2 * i + 1]
                out[:, position, 2 * i] = a * math.cos(angle) - b * math.sin(angle)
                out[:, position, 2 * i + 1] = b * math.cos(angle) + a * math.sin(angle)
        return out

    def attention(self, p, x, context, bias, rotary):
        unit = lambda y: y / np.sqrt((y**2).sum(-1, keepdims=True))  # noqa: E731
        q = unit(self.split(x @ p["query"]["kernel"])) * p["query_gain"]
        k = unit(self.split(context @ p["key"]["kernel"])) * p["key_gain"]
        v = self.split(context @ p["value"]["kernel"])
        if rotary:
            q, k = self.rope(q), self.rope(k)
        weights = np.exp(10 * np.einsum("hld,hsd->hls", q, k) + bias)
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hls,hsd->hld", weights, v)
        return np.concatenate(list(mixed), axis=-1) @ p["out"]["kernel"]

    def feed_forward(self, p, x):
        both = x @ p["inner"]["kernel"] + p["inner"]["bias"]
        value, gate = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]  # value first, gate second
        return value * gate / (1 + np.exp(-gate)) @ p["outer"]["kernel"] + p["outer"]["bias"]

    def bias(self, length, causal, table=None):
        bias = np.zeros((self.heads, length, length))
        for query in range(length):
            for key in range(length):
                d = query - key
                if causal and d < 0:
                    bias[:, query, key] = -np.inf
                elif table is not None:  # short sequences: below 16 causal buckets are exact, both-way ones below 8
                    bucket = d if causal else (d if d >= 0 else 16 - d) if abs(d) < 8 else 8 + 16 * (d < 0)
                    bias[:, query, key] = 8 * table[bucket]
        return bias

    def stack(self, p, h, *, causal, context=None):
        relative = p.get("relative")
        for block in p["blocks"].values() if isinstance(p["blocks"], dict) else p["blocks"]:
            u = self.norm(h)
            bias = self.bias(len(h), causal, relative)
            h = h + self.attention(block["attention"], u, u, bias, rotary=relative is None)
            if context is not None:
                h = h + self.attention(block["cross"], self.norm(h), context, 0.0, rotary=False)
            h = h + self.feed_forward(block["feed_forward"], self.norm(h))
        return self.norm(h)


def as_float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def test_decoder_is_the_equations():
    params, stream = random_params("policy"), tokens(0)
    out = compiled("policy")(params, stream)
    p, reference = as_float64(params), Reference()
    for row, logits in zip(stream, out, strict=True):
        h = reference.stack(p["stack"], p["embed"]["embedding"][row], causal=True)
        np.testing.assert_allclose(logits, h @ p["head"]["kernel"], atol=1e-5)


def test_encoder_decoder_is_the_equations():
    params, source, target = random_params("anchor"), tokens(1, length=9), tokens(2)
    out = compiled("anchor")(params, source, target)
    p, reference = as_float64(params), Reference()
    for heard, played, logits in zip(source, target, out, strict=True):
        context = reference.stack(p["encoder"], p["source_embed"]["embedding"][heard], causal=False)
        h = p["target_embed"]["embedding"][played]
        h = reference.stack(p["decoder"], h, causal=True, context=context)
        np.testing.assert_allclose(logits, h @ p["head"]["kernel"], atol=1e-5)


def test_contrastive_and_classifier_are_the_equations():
    """Projection Linear-ReLU-Linear, then unit length, at BOS; the classifier's logit is class 1 minus class 0."""
    reference, melody, chords = Reference(), tokens(3), tokens(4)
    params = random_params("contrastive")
    heard, played, scale = compiled("contrastive")(params, melody, chords)
    p = as_float64(params)
    for tower, sequences, out in (("melody_tower", melody, heard), ("chord_tower", chords, played)):
        t = p[tower]
        for row, embedded in zip(sequences, out, strict=True):
            h = reference.stack(t["stack"], t["embed"]["embedding"][row], causal=False)[0]
            y = np.maximum(h @ t["inner"]["kernel"] + t["inner"]["bias"], 0) @ t["outer"]["kernel"] + t["outer"]["bias"]
            np.testing.assert_allclose(embedded, y / np.linalg.norm(y), atol=1e-5)
    np.testing.assert_allclose(scale, math.exp(p["log_scale"]), rtol=1e-6)
    assert float(NETWORKS.rewards["contrastive"].init(jax.random.key(0))["log_scale"]) == pytest.approx(
        math.log(1 / 0.07)
    )

    params = random_params("discriminator")
    p = as_float64(params)
    for row, logit in zip(melody, compiled("discriminator")(params, melody), strict=True):
        h = reference.stack(p["stack"], p["embed"]["embedding"][row], causal=False)[0]
        two = h @ p["head"]["kernel"] + p["head"]["bias"]
        np.testing.assert_allclose(logit, two[1] - two[0], atol=1e-5)


PUBLISHED = {
    "policy": 39_643_136,
    "critic": 36_621_824,
    "anchor": 84_661_760,
    "contrastive": 54_344_705,
    "discriminative": 26_648_066,
    "rhythm_contrastive": 48_307_201,
    "rhythm_discriminative": 23_629_314,
    "discriminator": 36_622_338,
}


def test_published_parameter_counts():
    networks = models.build(ModelsConfig(), 5902, judges(5902, 6))
    counts = {}
    for name in PUBLISHED:
        shapes = jax.eval_shape(named(networks, name).init, jax.random.key(0))
        counts[name] = sum(x.size for x in jax.tree.leaves(shapes))
    assert counts == PUBLISHED


def test_initial_scales_are_those_of_the_reference():
    # Embedding: normal of standard deviation sqrt(2 / dim); linear: uniform within 1 / sqrt(fan in); gains 1.
    config = dataclasses.replace(STACK, dim=64)
    params = models.build(dataclasses.replace(CONFIG, policy=config), 512).policy.init(jax.random.key(0))
    # 512 * 64 draws: standard error of the deviation is sqrt(2 / 64) / sqrt(2 * 32768) = 0.0007
    assert np.std(params["embed"]["embedding"]) == pytest.approx(math.sqrt(2 / 64), abs=0.003)
    for kernel in (params["head"]["kernel"], params["stack"]["blocks"][0]["feed_forward"]["inner"]["bias"]):
        assert 0.95 / 8 < np.max(np.abs(kernel)) <= 1 / 8
    np.testing.assert_array_equal(params["stack"]["blocks"][1]["attention"]["key_gain"], 1.0)


@functools.partial(jax.jit, static_argnums=0)
def decode(policy, params, new, cache, position):
    return policy.method(params, "decode", new, cache, position)


@pytest.mark.parametrize("chunks", [[1] * 11, [1, 2, 2, 2, 2, 2], [3, 1, 4, 2, 1]], ids=["one", "two", "random"])
def test_cached_decoding_is_the_full_pass(chunks):
    params, stream = random_params("policy"), tokens(5)
    full = compiled("policy")(params, stream)
    cache = NETWORKS.policy.method(params, "empty_cache", len(stream), LENGTH + 2)  # a cache may be longer than needed
    position = 0
    for size in chunks:
        out, cache = decode(NETWORKS.policy, params, stream[:, position : position + size], cache, position)
        position += size
        np.testing.assert_allclose(out, full[:, position - 1], atol=1e-5)
    assert position == LENGTH


def test_at_states_are_the_even_positions():
    params, stream = random_params("policy"), tokens(6, length=10)
    states = jax.jit(lambda p, t: NETWORKS.policy.method(p, "at_states", t))(params, stream)
    np.testing.assert_allclose(states, compiled("policy")(params, stream)[:, ::2], atol=1e-6)


@pytest.mark.parametrize("changed", [1, 4, LENGTH - 1])
def test_no_output_sees_a_later_token(changed):
    other = tokens(7)
    other[:, changed] = (other[:, changed] + 1) % V
    source = tokens(8)
    for apply, params in (
        (compiled("policy"), random_params("policy")),
        (lambda p, t: compiled("anchor")(p, source, t), random_params("anchor")),
    ):
        before, after = np.asarray(apply(params, tokens(7))), np.asarray(apply(params, other))
        np.testing.assert_array_equal(before[:, :changed], after[:, :changed])
        assert np.all(np.abs(before - after)[:, changed:].max(axis=-1) > 1e-6)


def test_anchor_hears_the_whole_melody():
    source, params = tokens(9), random_params("anchor")
    other = source.copy()
    other[:, -1] = (other[:, -1] + 1) % V
    before, after = compiled("anchor")(params, source, tokens(7)), compiled("anchor")(params, other, tokens(7))
    assert np.all(np.abs(before - after).max(axis=-1) > 1e-6)


@pytest.mark.parametrize("extra", [1, 6])
def test_padding_changes_nothing(extra):
    melody, chords = tokens(10), tokens(11)
    wide = lambda x: np.pad(x, ((0, 0), (0, extra)), constant_values=PAD)  # noqa: E731
    params = random_params("anchor")
    target = tokens(7)
    np.testing.assert_allclose(
        compiled("anchor")(params, wide(melody), target), compiled("anchor")(params, melody, target), atol=2e-6
    )
    params = random_params("contrastive")
    for padded, plain in zip(
        compiled("contrastive")(params, wide(melody), wide(chords)),
        compiled("contrastive")(params, melody, chords),
        strict=True,
    ):
        np.testing.assert_allclose(padded, plain, atol=2e-6)
    params = random_params("discriminator")
    np.testing.assert_allclose(
        compiled("discriminator")(params, wide(melody)), compiled("discriminator")(params, melody), atol=2e-6
    )


def test_what_pad_is_embedded_as_does_not_matter():
    params, row = random_params("discriminator"), tokens(12)
    hidden = row.copy()
    hidden[:, 5] = PAD
    other = params | {"embed": {"embedding": params["embed"]["embedding"].at[PAD].add(1.0)}}
    apply = compiled("discriminator")
    np.testing.assert_array_equal(apply(other, hidden), apply(params, hidden))
    assert np.all(np.abs(apply(params, row) - apply(params, hidden)) > 1e-4)


def test_only_first_is_position_0_of_the_full_pass():
    from flax import nnx

    model = models.Model.of(lambda rngs: Stack(STACK, causal=False, rngs=rngs))
    params = moved(model.init(jax.random.key(0)))
    h = jax.random.normal(jax.random.key(0), (3, LENGTH, STACK.dim))
    mask = jnp.arange(LENGTH) < jnp.array([[LENGTH], [4], [1]])
    weights = jax.random.normal(jax.random.key(1), (3, 1, STACK.dim))

    def summed(inputs, only_first):
        out = nnx.merge(model.graph, inputs[0])(inputs[1], mask, only_first=only_first)
        return jnp.sum(out[:, :1] * weights), out[:, :1]

    grad = jax.jit(jax.grad(summed, has_aux=True), static_argnums=1)
    (short, first), (full, expected) = grad((params, h), True), grad((params, h), False)
    np.testing.assert_allclose(first, expected, atol=1e-6)
    for a, b in zip(jax.tree.leaves(short), jax.tree.leaves(full), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(full)) > 0.1


def test_dropout_needs_a_key_and_differs_by_key():
    params, stream = random_params("policy"), tokens(13)
    apply = compiled("policy")
    keys = [jax.random.split(jax.random.key(seed), len(stream)) for seed in (0, 1)]
    a, b = apply(params, stream, keys[0]), apply(params, stream, keys[1])
    assert np.abs(a - b).max() > 1e-3
    np.testing.assert_array_equal(a, apply(params, stream, keys[0]))
    alone = apply(params, stream[1:2], keys[0][1:2])  # a song's dropout does not depend on its place in the batch
    np.testing.assert_allclose(a[1:2], alone, atol=1e-5)
    np.testing.assert_array_equal(apply(params, stream), apply(params, stream))


@pytest.mark.parametrize("name", ["policy", "anchor"])
def test_causal_attention_in_blocks_is_attention(name, monkeypatch):
    network, params = named(NETWORKS, name), random_params(name)
    inputs = (tokens(15),) if name == "policy" else (tokens(15), tokens(16))
    inputs[-1][1, 6:] = PAD

    def run():
        def loss(params):
            logits = network(params, *inputs)
            return jnp.sum(logits[..., 0] ** 2), logits

        (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return logits, *jax.tree.leaves(gradients)

    whole = run()
    monkeypatch.setattr(layers, "LEAST_CAUSAL_BLOCK", 2)  # blocks of 2 and 3 of 11 queries
    calls = []
    mixed = layers.Attention._mixed
    monkeypatch.setattr(layers.Attention, "_mixed", lambda *args: calls.append(args[1].shape[2]) or mixed(*args))
    in_blocks = run()
    assert {2, 3} <= set(calls)
    for a, b in zip(in_blocks, whole, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, np.abs(b).max()))


def test_bfloat16_keeps_parameters_and_outputs_in_float32():
    networks = models.build(dataclasses.replace(CONFIG, compute_dtype="bfloat16"), V, judges(V, 6))
    stream = tokens(14)
    outputs = {}
    for name in ("policy", "critic", "discriminator"):
        model = getattr(networks, name)
        params = random_params(name)
        assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))} == {
            jnp.dtype("float32")
        }
        outputs[name] = jax.jit(model.__call__)(params, stream)
        assert outputs[name].dtype == jnp.float32
        exact = compiled(name)(params, stream)
        deviation = float(jnp.abs(outputs[name] - exact).max())
        assert 1e-5 < deviation < 0.1 * float(jnp.abs(exact).max())  # it does round, and only a little
    params = random_params("anchor")
    assert jax.eval_shape(networks.anchor.__call__, params, stream, stream).dtype == jnp.float32
    params = random_params("contrastive")
    melody, chords, scale = jax.eval_shape(networks.rewards["contrastive"].__call__, params, stream, stream)
    assert {melody.dtype, chords.dtype, scale.dtype} == {jnp.dtype("float32")}


def test_critic_is_a_policy_with_a_scalar_head():
    policy, critic = NETWORKS.policy.init(jax.random.key(0)), NETWORKS.critic.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, policy | {"head": None}) == jax.tree.map(jnp.shape, critic | {"head": None})
    assert critic["head"]["kernel"].shape == (STACK.dim, 1)
    assert set(critic["head"]) == {"kernel"}  # no bias


def test_networks_are_the_same_without_the_graph_mode_of_flax():
    """Flax has a switch for it, NNX_GRAPH_MODE, which is on today."""
    flag, was = "nnx_graph_mode", configurations.config.nnx_graph_mode
    key, stream = jax.random.key(0), tokens(9)
    try:
        configurations.config.update(flag, not was)
        others = models.build(CONFIG, V, judges(V, 6))
        found = [named(others, name).init(key) for name in PUBLISHED]
        logits = jax.jit(others.policy.__call__)(random_params("policy"), stream)
    finally:
        configurations.config.update(flag, was)
    for name, params in zip(PUBLISHED, found, strict=True):
        jax.tree.map(np.testing.assert_array_equal, params, named(NETWORKS, name).init(key))
    np.testing.assert_array_equal(logits, compiled("policy")(random_params("policy"), stream))


def test_sequence_layouts_by_hand():
    chords, melody = jnp.array([[300, 301, PAD]]), jnp.array([[140, 141, PAD]])
    assert interleave(chords, melody).tolist() == [[BOS, 300, 140, 301, 141, PAD, PAD]]
    assert part(chords).tolist() == [[BOS, 300, 301, EOS, PAD]]
    full = jnp.array([[300, 301, 302]])
    assert part(full).tolist() == [[BOS, 300, 301, 302, EOS]]
    # A PAD that the policy played in the middle becomes the EOS; the later one stays (docs/method.md §1.6).
    assert part(jnp.array([[300, PAD, 302, PAD]])).tolist() == [[BOS, 300, EOS, 302, PAD, PAD]]
    assert pair(melody, chords).tolist() == [[BOS, 140, 141, EOS, PAD, BOS, BOS, 300, 301, EOS, PAD]]
