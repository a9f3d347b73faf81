"""Names, chips, shapes and machines."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapt_jax.errors import UserError
from gapt_jax.launch import topology
from gapt_jax.runtime import chips


@pytest.mark.parametrize(
    ("name", "chips", "shape", "machines", "devices"),
    [
        ("v5p-128", 64, "4x4x4", 16, 64),  # cores, two per chip that JAX shows as one device
        ("v4-8", 4, "2x2x1", 1, 4),
        ("tpu7x-128", 64, "4x4x4", 16, 128),  # cores, each a device
        ("tpu7x-2", 1, "1x1x1", 1, 2),
        ("v5e-128", 128, "8x16", 32, 128),  # chips
        ("v5litepod-256", 256, "16x16", 64, 256),
        ("v6e-1", 1, "1x1", 1, 1),
        ("v6e:8x8", 64, "8x8", 16, 64),
        ("v5p:4x4x8", 128, "4x4x8", 32, 128),
        ("h100-4", 4, "4", 1, 4),
        ("a100-24", 24, "24", 3, 24),
    ],
)
def test_the_number_counts_cores_or_chips(name, chips, shape, machines, devices):
    found = topology.parse(name)
    assert (found.chips, found.topology, found.vms, found.devices) == (chips, shape, machines, devices)


def test_names_of_the_platforms():
    found = topology.parse("v5e-16")
    assert (found.name, found.cloud_type, found.machine_type) == ("v5e-16", "v5litepod-16", "ct5lp-hightpu-4t")
    assert topology.parse("v6e-1").machine_type == "ct6e-standard-1t"
    assert found.describe() == "v5e-16: 16 chips (4x4) on 4 machines"


# One shape per size, as google/xpk lists them (system_characteristics.py, v5p).
XPK = "4x4x12 4x8x8 4x4x20 4x8x12 4x12x12 8x8x12 8x8x16 8x12x12 8x12x16 12x12x12 8x16x16 12x16x16 16x16x16 16x20x28"


@pytest.mark.parametrize("shape", XPK.split())
def test_shapes_are_those_that_others_list(shape):
    found = topology.parse(f"v5p:{shape}")
    assert found.topology == shape
    assert topology.parse(found.name) == found


@given(st.sampled_from(list(topology.GENERATIONS.values())), st.data())
def test_every_slice_is_found_by_name_and_by_shape(generation, data):
    size = data.draw(st.sampled_from(list(topology.shapes(generation))))
    found = topology.Slice(generation, topology.shapes(generation)[size])
    assert found.chips == size == math.prod(found.shape)
    assert found.chips_per_vm * found.vms == size
    assert topology.parse(found.name) == topology.parse(f"{generation.name}:{found.topology}") == found
    assert len(found.shape) == generation.dimensions


@given(st.text(max_size=20) | st.from_regex(r"(v4|v5e|v5p|tpu7x|h100)[-:][0-9x]{1,9}", fullmatch=True))
def test_anything_else_is_one_sentence(text):
    try:
        assert topology.parse(text).chips > 0
    except UserError as error:
        assert "\n" not in str(error) or "\n" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5p-100", "counts TensorCores.*v5p-64: 32 chips .* or v5p-128: 64 chips"),
        ("v4-7", "counts TensorCores.*nearest: v4-8"),
        ("v5e-48", "v5e-32: .* or v5e-64"),
        ("v5e-512", "nearest: v5e-256"),
        ("v5e:4x16", "there is no v5e of 4x16 chips; the nearest: v5e-64"),
        ("v5p:3x3x3", "nearest: v5p-32.* or v5p-64"),
        ("h100-12", "h100-8.* or h100-16"),
        ("v5f-8", "did you mean 'v5"),
        ("v5e", "write it as in v5e-64"),
    ],
)
def test_impossible_ones_name_the_nearest(name, message):
    with pytest.raises(UserError, match=message):
        topology.parse(name)


def test_devices_are_those_of_the_roofline():
    """`runtime.chips` has the ceilings of one JAX device; both must count devices alike."""
    assert {chip.name for chip in chips.BY_DEVICE_KIND.values()} <= set(topology.GENERATIONS)
    assert topology.GENERATIONS["tpu7x"].devices_per_chip == 2  # chips.TPU7X is half a chip
