"""Shapes of tumors: within their room, made of the right parts, swollen exactly so far."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import KDTree

from textseg.training.tumors.lesions import (
    CYST,
    EDEMA,
    ENHANCING,
    INFILTRATING,
    NECROSIS,
    TISSUE_ROOM,
    grow_lesion,
    uneven_width,
)

STEP = 1.5
SHAPE = (41, 45, 39)
CENTRE = (20, 22, 19)


def grow(kind, *, room=None, centres=(CENTRE,), radius=12.0, seed=0):
    open_room = torch.full(SHAPE, TISSUE_ROOM, dtype=torch.uint8)
    return grow_lesion(
        kind,
        room=open_room if room is None else room,
        centres=centres,
        radius_mm=radius,
        step_mm=STEP,
        reach_mm=18.0,
        generator=torch.Generator().manual_seed(seed),
    )


def painted(lesion):
    canvas = torch.zeros(SHAPE, dtype=torch.uint8)
    lesion.paint(canvas)
    return canvas.numpy()


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("ring", {NECROSIS, ENHANCING}),
        ("solid", {ENHANCING}),
        ("infiltrative", {INFILTRATING}),
        ("cystic", {CYST, ENHANCING}),
        ("metastases", {ENHANCING}),
    ],
)
def test_each_kind_is_made_of_its_parts(kind, parts):
    for seed in range(3):
        assert set(np.unique(painted(grow(kind, seed=seed)))) - {0} == parts


def test_size_is_about_twice_the_radius_and_shape_varies():
    sizes = [grow("solid", seed=seed).size_mm for seed in range(12)]
    assert all(18.0 < size < 38.0 for size in sizes)
    assert sum(sizes) / len(sizes) == pytest.approx(24.0, abs=5.0)
    assert len({painted(grow("solid", seed=seed)).sum() for seed in range(6)}) == 6


def test_size_is_the_extent_of_the_core():
    lesion = grow("ring").swollen(10.0)
    core = np.argwhere((painted(lesion) > 0) & (painted(lesion) != EDEMA))
    assert lesion.size_mm == (np.ptp(core, axis=0).max() + 1) * STEP


def test_a_ring_closes_around_its_necrosis():
    parts = painted(grow("ring"))
    near = ndimage.binary_dilation(parts == NECROSIS)
    assert set(np.unique(parts[near])) == {NECROSIS, ENHANCING}


def test_swelling_is_all_tissue_within_its_width_of_the_core():
    room = torch.full(SHAPE, TISSUE_ROOM, dtype=torch.uint8)
    room[26:] = 0
    lesion = grow("solid", room=room, radius=9.0)
    core = painted(lesion) > 0
    places = np.argwhere(np.ones(SHAPE, bool))
    nearest = KDTree(np.argwhere(core)).query(places)[0].reshape(SHAPE) * STEP
    for width in (0.0, 5.0, 10.0):
        swollen = painted(lesion.swollen(width)) == EDEMA
        assert np.array_equal(swollen, (nearest <= width) & ~core & (room.numpy() > 0))


def test_a_tumor_stays_where_it_may_grow_and_in_one_piece():
    room = torch.full(SHAPE, TISSUE_ROOM, dtype=torch.uint8)
    room[:, :, 21:24] = 0
    parts = painted(grow("ring", room=room).swollen(18.0))
    assert not parts[:, :, 21:24].any()
    assert ndimage.label((parts > 0) & (parts != EDEMA))[1] == 1


def test_each_center_of_metastases_becomes_a_spot():
    centres = (CENTRE, (8, 22, 19), (20, 34, 19))
    parts = painted(grow("metastases", centres=centres))
    assert ndimage.label(parts)[1] == 3
    assert all(parts[centre] == ENHANCING for centre in centres)


def test_an_uneven_width_wavers_about_the_given_one():
    lesion = grow("solid")
    width = uneven_width(lesion, 10.0, torch.Generator().manual_seed(1))
    assert width.shape == lesion.parts.shape
    assert 9.0 < float(width.mean()) < 11.0
    assert float(width.std()) > 1.0
    assert uneven_width(lesion, 0.0, torch.Generator().manual_seed(1)).abs().max() == 0
