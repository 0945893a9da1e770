"""Random geometry and quality against scipy and against what they promise to keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import CLEAN, STILL, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from textseg.training.augment import (
    GeometryConfig,
    QualityConfig,
    blur,
    change_contrast,
    crop_coordinates,
    cut_slab,
    degrade,
    enlarge,
    random_affine,
    smooth_noise,
    thicken,
)

SHAPE = (7, 9, 12)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_slab_is_the_middle_of_a_crop_in_the_dark():
    image, labels = torch.arange(60.0).view(1, 5, 4, 3), torch.arange(60).view(5, 4, 3)
    cut, kept = cut_slab(image, labels, voxels=2, axis=0, outside=-1)
    assert torch.equal(cut[:, 1:3], image[:, 1:3])
    assert (cut[:, 0] == 12).all()  # the darkest that was scanned
    assert (cut[:, 3:] == 12).all()
    assert torch.equal(kept[1:3], labels[1:3])
    assert (kept[[0, 3, 4]] == -1).all()
    whole, same = cut_slab(image, labels, voxels=4, axis=1, outside=-1)
    assert torch.equal(whole, image)
    assert torch.equal(same, labels)


def coordinates(
    config, *, shape=(4, 6, 5), target=(2.0, 2.0, 2.0), spacing=(2.0, 2.0, 2.0), seed=0
):
    return crop_coordinates(
        config,
        centre=torch.tensor([3.5, 4.0, 6.0]),
        shape=shape,
        spacing_mm=torch.tensor(spacing),
        target_mm=target,
        generator=rng(seed),
    )


def test_a_crop_without_deformation_is_a_block_of_voxels_around_the_centre():
    found = coordinates(STILL)
    assert found.shape == (3, 4, 6, 5)
    for axis, (size, middle) in enumerate(zip((4, 6, 5), (3.5, 4.0, 6.0), strict=True)):
        along = found[axis].movedim(axis, 0)[:, 0, 0]
        wanted = middle + torch.arange(size) - (size - 1) / 2
        torch.testing.assert_close(along, wanted)
        spread = found[axis].movedim(axis, 0).flatten(1)
        torch.testing.assert_close(spread, wanted[:, None].expand_as(spread))


def test_a_crop_without_deformation_steps_by_the_ratio_of_spacings():
    found = coordinates(STILL, target=(3.0, 3.0, 3.0), spacing=(1.5, 2.0, 6.0))
    steps = [float(found[axis].diff(dim=axis).mean()) for axis in range(3)]
    assert steps == pytest.approx([2.0, 1.5, 0.5])


def test_scale_above_one_enlarges_the_anatomy():
    twice = GeometryConfig(rotation_deg=0, scale=(2, 2), stretch=0, elastic_mm=0)
    found = coordinates(twice)
    steps = [float(found[axis].diff(dim=axis).mean()) for axis in range(3)]
    assert steps == pytest.approx([0.5] * 3)


@given(seed=st.integers(0, 10_000), degrees=st.floats(0, 90))
@settings(max_examples=30)
def test_an_affine_without_scale_is_a_rotation_within_its_limits(seed, degrees):
    config = GeometryConfig(rotation_deg=degrees, scale=(1, 1), stretch=0)
    matrix = random_affine(config, rng(seed))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3), atol=1e-5, rtol=0)
    assert float(torch.linalg.det(matrix)) == pytest.approx(1, abs=1e-5)
    angle = np.degrees(np.arccos(np.clip((float(matrix.trace()) - 1) / 2, -1, 1)))
    assert angle <= 3 * degrees + 0.1


def test_deformation_is_smooth_and_of_the_stated_size():
    config = GeometryConfig(rotation_deg=0, scale=(1, 1), stretch=0, elastic_mm=4)
    shift = (coordinates(config, shape=(24, 28, 20)) - coordinates(STILL, shape=(24, 28, 20))) * 2.0
    assert 0.2 < float(shift.std()) < 8
    assert float(shift.diff(dim=1).abs().max()) < 1.5  # no voxel jumps past its neighbour (2 mm)


def test_geometry_follows_from_the_generator():
    config = GeometryConfig()
    assert torch.equal(coordinates(config, seed=3), coordinates(config, seed=3))
    assert not torch.equal(coordinates(config, seed=3), coordinates(config, seed=4))


def test_smooth_noise_has_its_shape_and_passes_through_its_knots():
    found = smooth_noise((9, 13, 5), (3, 4, 2), rng(), channels=2)
    assert found.shape == (2, 9, 13, 5)
    knots = torch.randn(1, 2, 3, 4, 2, generator=rng())[0]
    torch.testing.assert_close(found[:, ::4, ::4, ::4], knots)


def test_enlarging_agrees_with_torch():
    knots = noise(2, 3, 4, 2)
    wanted = functional.interpolate(
        knots[None], size=(9, 5, 6), mode="trilinear", align_corners=True
    )[0]
    torch.testing.assert_close(enlarge(knots, (9, 5, 6)), wanted)


@given(value=st.floats(-50, 50), sigma=st.tuples(*[st.floats(0, 1.5)] * 3))
@settings(max_examples=25)
def test_blur_keeps_constants(value, sigma):
    image = torch.full((1, *SHAPE), value)
    torch.testing.assert_close(blur(image, sigma), image, atol=1e-4, rtol=1e-5)


def test_blur_keeps_the_mean_of_what_does_not_touch_the_edge_and_agrees_with_scipy():
    image = torch.zeros(1, 15, 17, 19)
    image[:, 6:9, 7:10, 8:11] = noise(3, 3, 3)
    sigma = (0.8, 0.0, 1.2)
    found = blur(image, sigma)
    assert float(found.mean()) == pytest.approx(float(image.mean()), abs=1e-6)
    wanted = ndimage.gaussian_filter(image[0].numpy(), sigma, mode="nearest", truncate=2.5)
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=0.02)  # radii are rounded otherwise


def test_blur_of_one_axis_leaves_the_others_alone():
    image = noise(1, 1, 1, 9).expand(1, 5, 6, 9)
    torch.testing.assert_close(blur(image, (1.0, 1.0, 0.0)), image, atol=1e-5, rtol=0)


def test_thick_slices_keep_shape_and_mean_and_change_one_axis():
    image = noise(1, 12, 12, 12)
    seen = set()
    for seed in range(12):
        thick = thicken(image, 3.0, rng(seed))
        assert thick.shape == image.shape
        assert float(thick.mean()) == pytest.approx(float(image.mean()), abs=0.02)
        rough = [float(thick.diff(dim=axis + 1).square().mean()) for axis in range(3)]
        seen.add(rough.index(min(rough)))
        assert sorted(rough)[0] < 0.5 * sorted(rough)[1]
    assert 2 in seen
    assert len(seen) > 1


def test_thick_slices_keep_constants():
    image = torch.full((1, 5, 7, 9), 3.25)
    torch.testing.assert_close(thicken(image, 4.0, rng()), image)


def test_no_degradation_is_none():
    image = noise(1, *SHAPE)
    assert torch.equal(degrade(image, CLEAN, rng()), image)


@pytest.mark.parametrize("spoil", [degrade, change_contrast])
def test_quality_is_finite_and_follows_from_the_generator(spoil):
    image = noise(1, *SHAPE).clamp(-1, 1)
    config = QualityConfig(blur_voxels=1.5, thick_slice=0.9, noise=0.4, bias=0.6, gamma=0.5)
    for seed in range(8):
        found = spoil(image, config, rng(seed))
        assert found.shape == image.shape
        assert torch.isfinite(found).all()
        assert torch.equal(found, spoil(image, config, rng(seed)))
    assert not torch.equal(spoil(image, config, rng(1)), spoil(image, config, rng(2)))


def test_contrast_without_strength_is_the_image():
    image = noise(1, *SHAPE).clamp(-1, 1)
    torch.testing.assert_close(change_contrast(image, CLEAN, rng()), image, atol=1e-6, rtol=1e-5)


def test_gamma_alone_keeps_the_order_of_intensities():
    image = torch.linspace(-1, 1, 4 * 5 * 6).view(1, 4, 5, 6)
    found = change_contrast(image, QualityConfig(bias=0, gamma=0.5), rng(5))
    assert (found.flatten().diff() > 0).all()
    assert float(found.min()) == pytest.approx(-1)
    assert float(found.max()) == pytest.approx(1)
