"""Model input ranges, the body mask's promise never to cut tissue, and the modality guess."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from textseg.imaging import (
    Grid,
    body_mask,
    guess_modality,
    normalise_intensity,
    read_volume,
    to_grid,
)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 150.0, shape).astype(np.float32)


def test_ct_is_scaled_by_fixed_numbers_whatever_else_is_in_the_scan():
    data = torch.tensor([-3000.0, -1000.0, 0.0, 125.0, 1000.0, 30000.0]).reshape(1, 1, 2, 3)
    expected = torch.tensor([-4.0, -4.0, 0.0, 0.5, 4.0, 4.0]).reshape(1, 1, 2, 3)
    assert torch.equal(normalise_intensity(data, "ct"), expected)


def test_mr_percentiles_come_from_the_foreground():
    data = noise((2, 40, 30, 20))
    data[:, :20] = 0.0
    data[1] *= 7.0
    result = normalise_intensity(torch.from_numpy(data), "mr").numpy()
    for channel, raw in zip(result, data, strict=True):
        foreground = raw[raw > raw.max() * 1e-3]
        low, high = np.percentile(foreground, [0.5, 99.5], method="nearest")
        expected = (np.clip(raw, low, high) - low) / (high - low) * 2 - 1
        assert np.allclose(channel, expected, atol=1e-5)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 99),
    gain=st.floats(1e-3, 1e4),
    offset=st.floats(-100.0, 100.0),
    modality=st.sampled_from(["mr", "pet", None]),
)
def test_mr_does_not_depend_on_gain_and_offset(seed, gain, offset, modality):
    data = torch.from_numpy(noise((1, 9, 8, 7), seed))
    first = normalise_intensity(data, modality)
    second = normalise_intensity(data.double().mul(gain).add(offset * gain).float(), modality)
    assert first.min() == -1.0
    assert first.max() == 1.0
    assert torch.allclose(first, second, atol=2e-3)


@pytest.mark.parametrize("value", [0.0, -7.0, 300.0])
def test_a_constant_channel_becomes_zero(value):
    data = torch.full((1, 3, 4, 5), value)
    assert torch.equal(normalise_intensity(data, "mr"), torch.zeros(1, 3, 4, 5))


def test_a_nearly_empty_channel_becomes_finite():
    data = torch.zeros(1, 5, 6, 7)
    data[0, 1, 2, 3] = 9.0
    assert torch.isfinite(normalise_intensity(data, "mr")).all()


def test_large_volumes_are_sampled_evenly_and_alike_each_time():
    data = torch.from_numpy(noise((1, 210, 150, 130)))
    first = normalise_intensity(data, "mr")
    assert torch.equal(first, normalise_intensity(data, "mr"))
    share_clipped = (first.abs() == 1.0).float().mean()
    assert abs(share_clipped - 0.01) < 1e-3


def chest(modality: str) -> tuple[np.ndarray, np.ndarray]:
    """A body with lungs and a trachea, in noisy air; and where the body really is."""
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in (60, 50, 40)), indexing="ij")
    body = (x / 0.8) ** 2 + (y / 0.7) ** 2 < 1
    lungs = ((np.abs(x) - 0.35) / 0.25) ** 2 + (y / 0.4) ** 2 < 1
    air, tissue, lung = (-1000.0, 40.0, -870.0) if modality == "ct" else (8.0, 400.0, 12.0)
    data = np.where(body, tissue, air)
    data[body & lungs] = lung
    spread = 20.0 if modality == "ct" else 4.0
    noisy = data + np.random.default_rng(2).normal(0, spread, data.shape)
    return (noisy if modality == "ct" else np.abs(noisy)).astype(np.float32)[None], body


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_the_body_mask_keeps_all_tissue_and_drops_most_air(modality):
    data, body = chest(modality)
    mask = body_mask(torch.from_numpy(data), modality).numpy()
    assert mask.dtype == np.bool_
    assert mask[ndimage.binary_dilation(body, iterations=2)].all()
    assert mask[~body].mean() < 0.45  # the margin is wide for so small a volume
    assert not mask[0, 0].any()


def test_a_volume_without_air_is_all_body():
    data = torch.from_numpy(noise((1, 12, 11, 10)) + 500)
    assert body_mask(data, "ct").all()


def test_a_volume_of_nothing_but_air_is_all_body():
    assert body_mask(torch.full((1, 12, 11, 10), -1000.0), "ct").all()


def test_specks_in_the_air_are_not_body():
    data, _ = chest("ct")
    data[0, 2:4, 2:4, 20] = 3000.0
    assert not body_mask(torch.from_numpy(data), "ct")[0:6, 0:6].any()


def test_bodies_of_several_channels_are_united():
    data = np.full((2, 30, 24, 20), -1000.0, dtype=np.float32)
    data[0, 3:9, 8:16, 5:15] = 40.0
    data[1, 20:27, 8:16, 5:15] = 40.0
    mask = body_mask(torch.from_numpy(data), "ct")
    assert mask[3:9, 8:16, 5:15].all()
    assert mask[20:27, 8:16, 5:15].all()
    assert not mask[14, :, :].any()


@pytest.mark.parametrize(
    ("values", "modality"),
    [
        (noise((8, 9, 10)), "mr"),
        (noise((8, 9, 10)) - 1000, "ct"),
        (np.random.default_rng(0).normal(0, 1, (8, 9, 10)), "mr"),
        (np.random.default_rng(0).normal(40, 60, (8, 9, 10)), "ct"),
        (noise((8, 9, 10)) / 2000, "mr"),
    ],
)
def test_the_modality_is_guessed_from_hounsfield_like_values(values, modality):
    assert guess_modality(values)[0] == modality


@pytest.mark.shared
def test_no_labelled_voxel_of_a_real_scan_is_outside_the_body(shared_data):
    cases = json.loads((shared_data / "manifest.json").read_text(encoding="utf-8"))
    cases = [case for case in cases if case.get("image") and case.get("label")]
    for case in cases[::4]:
        scan = read_volume(shared_data / case["image"])
        labels = nib.load(shared_data / case["label"]).dataobj
        labelled = np.asarray(labels, dtype=np.float32).reshape(scan.geometry.shape) > 0
        on_grid, transform = to_grid(scan, Grid((3.0, 3.0, 3.0)))
        restored = transform.restore(body_mask(on_grid, scan.modality).float())
        # the mask is computed at 3 mm, so its own edge is not exact to a voxel
        assert restored[labelled].mean() > 0.9999, case["id"]


@pytest.mark.shared
def test_the_guess_is_right_for_every_real_scan(shared_data):
    cases = json.loads((shared_data / "manifest.json").read_text(encoding="utf-8"))
    for case in [case for case in cases if case.get("image")][::3]:
        guess = read_volume(shared_data / case["image"]).modality
        assert (guess == "ct") == case["modality"].upper().startswith("CT"), case["id"]
