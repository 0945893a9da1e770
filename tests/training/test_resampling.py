"""Sampling between voxels against scipy, and what it promises at and beyond the edge."""

from __future__ import annotations

import numpy as np
import torch
from fakes import noise
from scipy import ndimage

from textseg.training.resampling import sample_linear, sample_nearest

SHAPE = (7, 9, 12)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_linear_sampling_agrees_with_scipy():
    field = noise(2, *SHAPE)
    # well inside: at the edge scipy and torch fade to zero differently
    found = sample_linear(field, places := inside_places())
    for c in range(2):
        wanted = ndimage.map_coordinates(field[c].numpy(), places.numpy(), order=1)
        np.testing.assert_allclose(found[c].numpy(), wanted, atol=1e-4)


def test_nearest_sampling_agrees_with_scipy():
    labels = torch.randint(-1, 300, SHAPE, generator=rng(2), dtype=torch.int32)
    places = inside_places()
    wanted = ndimage.map_coordinates(labels.numpy(), places.numpy(), order=0)
    assert np.array_equal(sample_nearest(labels, places).numpy(), wanted)


def inside_places():
    return torch.rand(3, 19, 4, 3, generator=rng(1)) * (column(SHAPE) - 1.2) + 0.1


def column(values):
    return torch.tensor(values).view(3, 1, 1, 1)


def test_sampling_at_the_voxels_themselves_changes_nothing():
    field, labels = noise(1, *SHAPE), torch.arange(7 * 9 * 12).view(SHAPE)
    axes = [torch.arange(n, dtype=torch.float32) for n in SHAPE]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    torch.testing.assert_close(sample_linear(field, places), field, atol=1e-5, rtol=0)
    assert torch.equal(sample_nearest(labels, places), labels)


def test_sampling_outside_gives_zero():
    outside = torch.tensor([[-2.0, 4, 4], [3, 11.0, 4], [3, 4, 40.0], [-1e9, 0, 0]])
    places = outside.T.reshape(3, 4, 1, 1)
    assert not sample_linear(torch.ones(1, *SHAPE), places).any()
    assert not sample_nearest(torch.ones(SHAPE, dtype=torch.int32), places).any()


def test_linear_sampling_fades_to_zero_within_a_voxel_of_the_edge():
    along = torch.tensor([-1.0, -0.25, 0.0, 6.0, 6.75, 7.0])
    places = torch.stack([along, torch.zeros(6), torch.full((6,), 11.0)]).view(3, 6, 1, 1)
    found = sample_linear(torch.ones(1, *SHAPE), places).flatten()
    assert found.tolist() == [0, 0.75, 1, 1, 0.25, 0]


def test_a_voxel_reaches_half_way_to_where_the_next_would_be():
    labels = torch.ones(SHAPE, dtype=torch.int32)
    along = torch.tensor([-0.6, -0.4, 6.4, 6.6])
    places = torch.stack([along, torch.zeros(4), torch.zeros(4)]).view(3, 4, 1, 1)
    assert sample_nearest(labels, places).flatten().tolist() == [0, 1, 1, 0]
