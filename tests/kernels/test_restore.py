"""``restore`` against SciPy, NumPy and the engine's own way back to the scan's grid."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.kernels.test_triton_addresses import far_apart
from textseg.errors import ModelError
from textseg.imaging.grid import Grid, plan_grid
from textseg.imaging.resample import linear_weights
from textseg.imaging.volume import Geometry
from textseg.kernels import restore, restore_reference

# Interpolated bytes are below 256; three float32 interpolations err by less than this.
ROUNDING = 1e-3


def problem(shape, scan, *, seed, sparse=False, beyond=0.0):
    """Bytes and ordered places, rising or falling, ``beyond`` voxels past the ends."""
    rng = np.random.default_rng(seed)
    probability = rng.integers(0, 256, shape, dtype=np.uint8)
    if sparse:
        probability *= rng.random(shape) > 0.9
    places = [
        np.sort(rng.uniform(-beyond, n - 1 + beyond, m))[:: rng.choice([-1, 1])].copy()
        for n, m in zip(shape, scan, strict=True)
    ]
    return torch.from_numpy(probability), tuple(map(torch.from_numpy, places))


def values_by_scipy(probability, places, *, mode):
    grid = np.meshgrid(*(place.double().numpy() for place in places), indexing="ij")
    return ndimage.map_coordinates(probability.double().numpy(), grid, order=1, mode=mode, cval=0)


def assert_bits(bits, values, level):
    """The bits say which values are above the level, but for values that rounding moves across."""
    assert bits.dtype == torch.uint8
    expected = np.packbits(values > level, axis=-1)
    assert bits.shape == expected.shape
    wrong = np.unpackbits(bits.cpu().numpy() ^ expected, axis=-1)
    assert not wrong[..., values.shape[-1] :].any()  # padding is zero
    at = wrong[..., : values.shape[-1]].astype(bool)
    assert np.abs(values[at] - level).max(initial=0.0) < ROUNDING


shapes = st.tuples(*[st.integers(1, 7)] * 3)
scans = st.tuples(*[st.integers(0, 19)] * 3)


@settings(max_examples=150)
@given(shapes, scans, st.integers(0, 999), st.booleans(), st.floats(0, 256))
@pytest.mark.parametrize("run", [restore, restore_reference])
def test_bits_are_the_interpolation_of_scipy_packed_by_numpy(run, shape, scan, seed, sparse, level):
    probability, places = problem(shape, scan, seed=seed, sparse=sparse)
    bits = run(probability, places=places, level=level)
    assert_bits(bits, values_by_scipy(probability, places, mode="nearest"), level)


@settings(max_examples=100)
@given(shapes, scans, st.integers(0, 999), st.booleans())
@pytest.mark.parametrize("run", [restore, restore_reference])
def test_what_lies_outside_counts_as_zero(run, shape, scan, seed, sparse):
    probability, places = problem(shape, scan, seed=seed, sparse=sparse, beyond=3.0)
    bits = run(probability, places=places, level=99.5)
    assert_bits(bits, values_by_scipy(probability, places, mode="grid-constant"), 99.5)


@pytest.mark.parametrize("places_type", [torch.float32, torch.float64])
@pytest.mark.parametrize("scan", [(3, 5, 8), (2, 3, 13), (1, 1, 1)], ids=str)
def test_triton_interpolates_like_scipy(places_type, scan, triton_device, poisoned):
    probability, places = problem((5, 7, 3), scan, seed=len(scan), beyond=1.5)
    places = tuple(place.to(places_type) for place in places)
    expected = values_by_scipy(probability, places, mode="grid-constant")
    on_device = probability.to(triton_device)
    bits = restore(on_device, places=places, level=127.5, backend="triton")
    assert_bits(bits, expected, 127.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floating_probabilities_have_levels_of_their_own(dtype, triton_device, poisoned):
    probability, places = problem((5, 7, 3), (4, 3, 11), seed=1)
    chance = (probability / 255).to(triton_device, dtype)
    expected = 255 * values_by_scipy(chance.float().cpu(), places, mode="nearest")
    for backend in ("torch", "triton"):
        bits = restore(chance, places=places, level=0.3, backend=backend)
        assert_bits(bits, expected, 255 * 0.3)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_large_masks_agree_on_a_device(backend):
    probability, places = problem((61, 47, 53), (167, 201, 133), seed=3)
    bits = restore(probability.cuda(), places=places, level=127.5, backend=backend)
    assert_bits(bits, values_by_scipy(probability, places, mode="nearest"), 127.5)


def backward_weights(transform, target):
    """Weights (scan, working) of plain linear interpolation along one target axis."""
    source = transform.permutation[target]
    num_source, num_target = transform.source.shape[source], transform.target.shape[target]
    ratio = transform.target.spacing_mm[target] / transform.source.spacing_mm[source]
    if num_source == num_target and abs(ratio - 1.0) * num_source / 2.0 < 1e-3:
        weights = torch.eye(num_source)
    else:
        first = transform.aligned == "first"
        here, there = (0.0 if first else (n - 1.0) / 2.0 for n in (num_source, num_target))
        weights = linear_weights(there + (np.arange(num_source) - here) / ratio, num_target)
    if transform.crop is not None:
        weights = weights[:, transform.crop[target]]
    return weights.flip(0) if transform.flips[target] else weights


def transform_of(scan, spacing, working, axes, aligned, box):
    """A scan whose axes are permuted, and the part of a working grid that ``box`` (0..1) covers."""
    turned = np.eye(4)[:, [2, 0, 1, 3]] * np.array([*spacing, 1.0])
    transform = plan_grid(Geometry(scan, turned), Grid(working, axes, aligned=aligned))
    ends = [
        sorted(int(n * end + 0.5) for end in part)
        for n, part in zip(transform.shape, box, strict=True)
    ]
    return replace(transform, crop=tuple(slice(*end) for end in ends))


def transforms(*, spacing_mm):
    three = [st.tuples(*[each] * 3) for each in (st.integers(1, 17), spacing_mm)]
    working = st.tuples(*[st.floats(2.0, 3.0)] * 3)
    axes = st.sampled_from(["RAS", "LPS", "SAR", "ILP", "PSL"])
    part = st.one_of(st.just((0, 1)), st.tuples(st.floats(0, 1), st.floats(0, 1)))
    aligned = st.sampled_from(["centre", "first"])
    return st.builds(transform_of, *three, working, axes, aligned, st.tuples(part, part, part))


def in_scan_order(transform, stored):
    return stored.permute([transform.permutation.index(axis) for axis in (2, 1, 0)])


def places_of(transform):
    """Where the scan's voxels lie among the segmented ones, per scan axis in reverse order."""
    places = {}
    uncropped = replace(transform, crop=None)
    for target, source in enumerate(transform.permutation):
        weights = backward_weights(uncropped, target)
        first = (weights > 0).int().argmax(dim=1)
        fraction = 1.0 - weights.gather(1, first[:, None])[:, 0].double()
        places[source] = first + fraction - transform.crop[target].start
    return places[2], places[1], places[0]


@settings(max_examples=80)
@given(transforms(spacing_mm=st.floats(0.5, 9.0)), st.integers(0, 99))
def test_places_of_a_grid_transform_stand_for_its_weights(transform, seed):
    rng = np.random.default_rng(seed)
    probability = torch.from_numpy(rng.integers(0, 256, transform.shape, dtype=np.uint8))
    weights = [backward_weights(transform, target).double() for target in range(3)]
    values = torch.einsum("xyz,ax,by,cz->abc", probability.double(), *weights)
    bits = restore(in_scan_order(transform, probability), places=places_of(transform), level=127.5)
    assert_bits(bits, in_scan_order(transform, values).numpy(), 127.5)


@settings(max_examples=80)
@given(transforms(spacing_mm=st.floats(0.5, 9.0)), st.integers(0, 99))
def test_masks_of_a_grid_transform_are_those_of_its_weights(transform, seed):
    rng = np.random.default_rng(seed)
    probability = torch.from_numpy(rng.integers(0, 256, transform.shape, dtype=np.uint8))
    weights = [backward_weights(transform, target).double() for target in range(3)]
    values = torch.einsum("xyz,ax,by,cz->abc", probability.double(), *weights)
    values = values.permute(np.argsort(transform.permutation).tolist()).numpy()  # X0 Y0 Z0
    mask = transform.restore(probability, threshold=0.5)
    unclear = np.abs(values - 127.5) < ROUNDING
    assert np.array_equal(mask[~unclear], values[~unclear] > 127.5)


def test_only_values_above_the_level_belong_to_the_mask():
    probability = torch.full((3, 4, 5), 100, dtype=torch.uint8)
    places = tuple(torch.linspace(0, n - 1, 11) for n in probability.shape)
    assert not restore(probability, places=places, level=100).any()
    bits = restore(probability, places=places, level=99)
    assert bits.unique().tolist() == [0b11100000, 0b11111111]  # 11 bits in 2 bytes


def test_a_structure_between_the_scan_voxels_is_an_empty_mask():
    probability = torch.zeros(9, 9, 9, dtype=torch.uint8)
    probability[4, 4, 4] = 255
    places = (torch.tensor([0.0, 8.0]), torch.arange(9.0), torch.arange(9.0))
    assert not restore(probability, places=places, level=127.5).any()


def test_no_probability_at_all_is_an_empty_mask():
    probability = torch.zeros(0, 3, 3, dtype=torch.uint8)
    places = (torch.arange(4.0), torch.arange(3.0), torch.arange(3.0))
    assert restore(probability, places=places, level=127.5).tolist() == [[[0]] * 3] * 4


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_places_need_no_order(backend, triton_device):
    probability, places = problem((5, 7, 3), (4, 9, 10), seed=5, sparse=True, beyond=1.0)
    shuffled = tuple(place[torch.randperm(len(place))] for place in places)
    on_device = probability.to(triton_device)
    bits = restore(on_device, places=shuffled, level=20.0, backend=backend)
    assert_bits(bits, values_by_scipy(probability, shuffled, mode="grid-constant"), 20.0)


@pytest.mark.parametrize("axis", range(3))
def test_triton_counts_elements_in_64_bits(axis, triton_device):
    probability, places = problem((3, 3, 3), (4, 3, 9), seed=axis)
    expected = restore_reference(probability, places=places, level=127.5)
    far = far_apart(probability.to(triton_device), axis)
    assert torch.equal(restore(far, places=places, level=127.5, backend="triton").cpu(), expected)


def test_arguments_that_do_not_belong_together_are_refused():
    probability, places = problem((5, 7, 3), (2, 2, 2), seed=0)
    with pytest.raises(ModelError, match=r"\(1, 5, 7, 3\)"):
        restore(probability[None], places=places, level=1)
    with pytest.raises(ModelError, match="int64"):
        restore(probability, places=tuple(place.long() for place in places), level=1)
    with pytest.raises(ModelError, match="three vectors"):
        restore(probability, places=places[:2], level=1)
    for level in (-0.5, float("nan")):
        with pytest.raises(ModelError, match=str(level)):
            restore(probability, places=places, level=level)
