from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textseg.training.metrics import agreement, dice, hd95, nsd

ANISOTROPIC = (0.7, 0.8, 3.1)


def voxel(*index, shape=(9, 6, 5)):
    mask = np.zeros(shape, dtype=bool)
    mask[index] = True
    return mask


def random_pair(seed, shape=(7, 5, 6)):
    rng = np.random.default_rng(seed)
    pair = [rng.random(shape) < density for density in rng.uniform(0.05, 0.6, size=2)]
    for mask in pair:
        mask[tuple(rng.integers(0, shape))] = True
    return pair


def elements(mask, spacing_mm):
    """Centres (mm) and areas of surface elements, from MONAI's table of areas."""
    from monai.metrics.utils import create_table_neighbour_code_to_surface_area

    table, powers = create_table_neighbour_code_to_surface_area(spacing_mm)
    padded = np.pad(mask, 1)
    found = []
    for corner in itertools.product(*(range(size - 1) for size in padded.shape)):
        block = padded[tuple(slice(c, c + 2) for c in corner)]
        code = int((block * powers.numpy().reshape(2, 2, 2)).sum())
        if 0 < code < 255:
            found.append((*(np.array(corner) * spacing_mm), float(table[code])))
    found = np.array(found)
    return found[:, :3], found[:, 3]


def brute_force(pred, ref, spacing_mm, tolerance_mm):
    """NSD and HD95 by comparing every element with every other."""
    (left, left_area), (right, right_area) = (elements(m, spacing_mm) for m in (pred, ref))
    between = np.linalg.norm(left[:, None] - right[None], axis=2)
    near, percentiles = 0.0, []
    for distance, area in ((between.min(1), left_area), (between.min(0), right_area)):
        near += area[distance <= tolerance_mm].sum()
        order = np.argsort(distance, kind="stable")
        reached = np.cumsum(area[order]) / area.sum() >= 0.95 - 1e-12
        percentiles.append(distance[order][np.argmax(reached)])
    return near / (left_area.sum() + right_area.sum()), max(percentiles)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), ANISOTROPIC])
def test_surface_figures_agree_with_comparing_all_elements(seed, spacing_mm):
    pred, ref = random_pair(seed)
    tolerance = 0.75
    expected = brute_force(pred, ref, spacing_mm, tolerance)
    found = agreement(pred, ref, spacing_mm=spacing_mm, tolerance_mm=tolerance)
    # MONAI's table is float32
    assert found.nsd == pytest.approx(expected[0], abs=1e-6)
    assert found.hd95_mm == pytest.approx(expected[1], abs=1e-9)


@pytest.mark.shared
@pytest.mark.parametrize("pair", ["ab", "ba", "ac", "aa", "a0"])
def test_dice_and_nsd_equal_the_stored_reference(pair, shared_data):
    path = shared_data.parent / "fixtures" / "sat" / "infer_case.npz"
    if not path.is_file():
        pytest.skip("the reference numbers are not here")
    case = np.load(path)
    shape = tuple(case["metric_shape"])
    masks = {"0": np.zeros(shape, dtype=bool)}
    for name in "abc":
        bits = np.unpackbits(case[f"metric_{name}"])[: math.prod(shape)]
        masks[name] = bits.reshape(shape).astype(bool)
    found = agreement(masks[pair[0]], masks[pair[1]], spacing_mm=(1, 1, 3), tolerance_mm=1.0)
    index = ["ab", "ba", "ac", "aa", "a0"].index(pair)
    assert found.dice == pytest.approx(case["dsc"][index], abs=1e-12)
    assert found.nsd == pytest.approx(case["nsd"][index], abs=1e-12)


def test_dice_of_hand_counted_masks():
    pred, ref = np.zeros((4, 3, 5), dtype=bool), np.zeros((4, 3, 5), dtype=bool)
    pred[0:2, 0, 0:3] = True  # 6 voxels
    ref[1:3, 0, 1:4] = True  # 6 voxels, 2 shared
    assert dice(pred, ref) == 4 / 12


def test_two_single_voxels_are_as_far_apart_as_their_spacing_says():
    # the 8 elements around a voxel: 4 on the near side, 4 one voxel further
    for axis, step in enumerate(ANISOTROPIC):
        at = [2, 2, 2]
        at[axis] += 2
        pair = voxel(2, 2, 2), voxel(*at)
        assert hd95(*pair, spacing_mm=ANISOTROPIC) == pytest.approx(2 * step)
        close = nsd(*pair, spacing_mm=ANISOTROPIC, tolerance_mm=1.01 * step)
        assert close == pytest.approx(0.5)


def test_the_tolerance_itself_still_counts_as_near():
    pair = voxel(2, 2, 2), voxel(4, 2, 2)
    assert nsd(*pair, spacing_mm=(1, 1, 1), tolerance_mm=2.0) == 1.0
    assert nsd(*pair, spacing_mm=(1, 1, 1), tolerance_mm=1.999) == pytest.approx(0.5)


def test_a_few_far_voxels_do_not_move_the_95th_percentile_but_many_do():
    ref = np.zeros((40, 30, 20), dtype=bool)
    ref[5:25, 5:25, 5:15] = True
    few, many = ref.copy(), ref.copy()
    few[35, 27, 17] = True
    many[30:40, 5:25, 5:15] = True
    assert hd95(few, ref, spacing_mm=(1, 1, 1)) == 0.0
    assert hd95(many, ref, spacing_mm=(1, 1, 1)) == 15.0


def test_empty_masks_have_defined_figures():
    empty, full = np.zeros((3, 4, 5), dtype=bool), voxel(1, 1, 1, shape=(3, 4, 5))
    both = agreement(empty, empty, spacing_mm=(1, 1, 1))
    assert (both.dice, both.nsd, both.hd95_mm) == (1.0, 1.0, 0.0)
    for pair in ((empty, full), (full, empty)):
        one = agreement(*pair, spacing_mm=(1, 1, 1))
        assert (one.dice, one.nsd, one.hd95_mm) == (0.0, 0.0, math.inf)
    assert dice(empty, empty) == 1.0


def test_masks_that_fill_their_array_still_have_a_surface():
    full = np.ones((3, 4, 5), dtype=bool)
    smaller = full.copy()
    smaller[:, :, 4] = False
    found = agreement(full, smaller, spacing_mm=(1, 1, 2))
    assert found.hd95_mm == 2.0
    assert agreement(full, full, spacing_mm=(1, 1, 2)).nsd == 1.0


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        agreement(np.ones((2, 3, 4)), np.ones((4, 3, 2)), spacing_mm=(1, 1, 1))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_figures_do_not_depend_on_order_place_or_orientation(seed):
    pred, ref = random_pair(seed)
    found = agreement(pred, ref, spacing_mm=ANISOTROPIC)
    swapped = agreement(ref, pred, spacing_mm=ANISOTROPIC)
    moved = agreement(
        *(np.pad(m, ((3, 1), (0, 2), (5, 0))) for m in (pred, ref)), spacing_mm=ANISOTROPIC
    )
    turned = agreement(
        *(m.transpose(2, 0, 1)[::-1, :, ::-1] for m in (pred, ref)),
        spacing_mm=(ANISOTROPIC[2], ANISOTROPIC[0], ANISOTROPIC[1]),
    )
    for other in (swapped, moved, turned):
        assert other.dice == found.dice
        assert other.nsd == pytest.approx(found.nsd)
        assert other.hd95_mm == pytest.approx(found.hd95_mm)
