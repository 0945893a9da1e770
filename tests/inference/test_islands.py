"""Crumbs go, parts stay."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from textseg.inference.islands import ISLAND_SHARE, drop_islands


def volume(*boxes, shape=(20, 17, 13), value=200):
    probability = torch.zeros(shape, dtype=torch.uint8)
    for box in boxes:
        probability[box] = value
    return probability


LARGE = (slice(1, 11), slice(2, 12), slice(0, 10))  # 1000 voxels
MEDIUM = (slice(13, 18), slice(2, 7), slice(2, 10))  # 200
CRUMB = (slice(15, 18), slice(12, 15), slice(10, 13))  # 27


def test_an_island_goes_and_the_rest_stays_to_the_last_bit():
    probability = volume(LARGE, CRUMB)
    kept = probability.clone()
    cleaned, islands = drop_islands(probability, threshold=0.5)
    assert islands == 1
    assert torch.equal(cleaned, volume(LARGE))
    assert torch.equal(probability, kept)  # what the caller holds is not changed


def test_pieces_of_like_size_are_parts():
    probability = volume(LARGE, MEDIUM)
    cleaned, islands = drop_islands(probability, threshold=0.5)
    assert islands == 0
    assert cleaned is probability


def test_what_lies_below_the_threshold_neither_joins_pieces_nor_is_touched():
    probability = volume(LARGE, CRUMB)
    probability[probability == 0] = 90
    cleaned, islands = drop_islands(probability, threshold=0.5)
    assert islands == 1
    assert (cleaned[LARGE] == 200).all()
    assert (cleaned[CRUMB] == 0).all()
    assert int((cleaned == 90).sum()) == cleaned.numel() - 1000 - 27
    assert drop_islands(probability, threshold=0.3).islands == 0


def test_pieces_that_touch_at_a_corner_hang_together():
    corner = (slice(11, 13), slice(12, 14), slice(10, 12))
    assert drop_islands(volume(LARGE, corner), threshold=0.5).islands == 0


def test_an_empty_mask_stays_empty():
    cleaned, islands = drop_islands(volume(), threshold=0.5)
    assert islands == 0
    assert not cleaned.any()


@given(seed=st.integers(0, 10_000), density=st.floats(0.01, 0.6))
def test_afterwards_no_piece_is_small_and_nothing_new_appears(seed, density):
    generator = torch.Generator().manual_seed(seed)
    probability = (torch.rand(9, 8, 7, generator=generator) < density).to(torch.uint8) * 255
    cleaned, _ = drop_islands(probability, threshold=0.5)
    assert not (cleaned > probability).any()
    pieces, count = ndimage.label(cleaned.numpy(), structure=torch.ones(3, 3, 3).numpy())
    sizes = [int((pieces == k + 1).sum()) for k in range(count)]
    assert all(size >= ISLAND_SHARE * max(sizes) for size in sizes)
    assert torch.equal(drop_islands(cleaned, threshold=0.5).probability, cleaned)
