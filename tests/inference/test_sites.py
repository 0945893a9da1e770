"""Of a lesion that stays which lies where the report says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from textseg.inference.sites import find_midline, narrowed, on_side, plan_site
from textseg.knowledge import load_tree

SHAPE = (17, 11, 9)
SPACING = (0.7, 0.8, 3.1)


def mask(*boxes):
    drawn = np.zeros(SHAPE, dtype=bool)
    for box in boxes:
        drawn[box] = True
    return drawn


SITE = (slice(0, 5), slice(0, 6), slice(0, 5))
INSIDE = (slice(1, 3), slice(1, 3), slice(1, 2))
HALF_OUT = (slice(4, 8), slice(3, 5), slice(3, 4))
CORNER = (slice(5, 7), slice(6, 8), slice(5, 7))  # meets the site's last voxel at a corner
FAR = (slice(14, 16), slice(9, 11), slice(7, 9))


def test_pieces_in_the_site_or_across_its_edge_stay_whole():
    lesion = mask(INSIDE, HALF_OUT, FAR)
    answer = narrowed(lesion, mask(SITE), spacing_mm=SPACING)
    assert np.array_equal(answer.mask, mask(INSIDE, HALF_OUT))
    assert (answer.kept, answer.dropped) == (2, 1)


def test_a_piece_that_meets_the_site_at_a_corner_touches_it():
    answer = narrowed(mask(CORNER, FAR), mask(SITE), spacing_mm=SPACING)
    assert np.array_equal(answer.mask, mask(CORNER))


@pytest.mark.parametrize(("reach_mm", "stays"), [(1.4, False), (2.1, True)])
def test_reach_is_measured_in_mm_between_voxel_centers(reach_mm, stays):
    gap = (slice(7, 9), slice(2, 3), slice(2, 3))  # three steps of 0.7 mm from the site
    answer = narrowed(mask(gap), mask(SITE), spacing_mm=SPACING, reach_mm=reach_mm + 1e-6)
    assert answer.mask.any() == stays


def test_an_empty_lesion_or_site_leaves_nothing():
    assert narrowed(mask(), mask(SITE), spacing_mm=SPACING)[1:] == (0, 0)
    answer = narrowed(mask(INSIDE), mask(), spacing_mm=SPACING, reach_mm=9.0)
    assert not answer.mask.any()
    assert (answer.kept, answer.dropped) == (0, 1)


@given(seed=st.integers(0, 10_000), reach_mm=st.sampled_from([0.0, 1.0, 3.5]))
def test_pieces_are_judged_as_over_the_whole_grid(seed, reach_mm):
    generator = np.random.default_rng(seed)
    lesion, site = generator.random((2, *SHAPE)) < 0.06
    answer = narrowed(lesion, site, spacing_mm=SPACING, reach_mm=reach_mm)
    pieces, count = ndimage.label(lesion, structure=np.ones((3, 3, 3)))
    near = ndimage.binary_dilation(site, np.ones((3, 3, 3)))
    if site.any():
        near |= ndimage.distance_transform_edt(~site, sampling=SPACING) <= reach_mm
    expected = [n for n in range(1, count + 1) if (near & (pieces == n)).any()]
    assert np.array_equal(answer.mask, np.isin(pieces, expected))
    assert (answer.kept, answer.kept + answer.dropped) == (len(expected), count)


LEFT = (slice(1, 4), slice(2, 9), slice(0, 9))
RIGHT = (slice(13, 16), slice(2, 9), slice(0, 9))


def test_the_midline_parts_lesions_by_their_centers():
    midline = find_midline(mask(LEFT), mask(RIGHT), spacing_mm=SPACING)
    assert midline.point_mm[0] == pytest.approx(8 * 0.7)
    assert np.allclose(midline.leftward, [-1, 0, 0])
    leftmost = (slice(1, 5), slice(4, 5), slice(4, 5))  # center at voxel 2.5, 3.85 mm left of 8
    lesion = mask(leftmost, FAR)
    assert np.array_equal(on_side(lesion, midline, "left", spacing_mm=SPACING).mask, mask(leftmost))
    assert np.array_equal(on_side(lesion, midline, "right", spacing_mm=SPACING).mask, mask(FAR))


@pytest.mark.parametrize("voxel", [4, 7, 8, 9, 12])
def test_a_lesion_a_voxel_over_the_midline_is_on_both_sides(voxel):
    midline = find_midline(mask(LEFT), mask(RIGHT), spacing_mm=SPACING)
    lesion = mask((slice(voxel, voxel + 1), slice(4, 6), slice(4, 5)))  # up to 2.8 mm from voxel 8
    for side in ("left", "right"):
        assert on_side(lesion, midline, side, spacing_mm=SPACING).kept == 1


def test_a_tilted_head_has_a_tilted_midline():
    left, right = mask((slice(1, 4), slice(1, 4), 4)), mask((slice(13, 16), slice(7, 10), 4))
    midline = find_midline(left, right, spacing_mm=SPACING)
    lesion = mask((slice(7, 8), slice(9, 10), 4))  # left by its first index, right of the plane
    assert on_side(lesion, midline, "right", spacing_mm=SPACING).kept == 1


def test_without_both_sides_there_is_no_midline():
    assert find_midline(mask(LEFT), mask(), spacing_mm=SPACING) is None
    assert find_midline(mask(LEFT), mask(LEFT), spacing_mm=SPACING) is None


def plan(site, lesion, supported, **options):
    return plan_site(site, lesion, load_tree(), supported=supported, **options)


def test_a_site_that_the_model_segments_is_taken_itself():
    answer = plan(["thalamus.left"], ["stroke"], {"stroke", "thalamus.left", "brainstem"})
    assert answer.concepts == ("thalamus.left",)
    assert answer.account == "Narrowed to left thalamus."


def test_else_the_nearest_whole_that_holds_it():
    answer = plan(["pons"], ["stroke"], {"stroke", "brainstem", "brain"})
    assert answer.concepts == ("brainstem",)
    assert answer.account == "Narrowed to brainstem, which holds pons."


def test_a_whole_is_taken_in_the_parts_that_make_it_up():
    lobes = {"lung.upper_lobe.left", "lung.lower_lobe.left", "lung.upper_lobe.right"}
    answer = plan(["lung.left"], ["lung_nodule"], lobes)
    assert set(answer.concepts) == {"lung.upper_lobe.left", "lung.lower_lobe.left"}


def test_a_white_matter_lesion_of_a_lobe_is_in_the_white_matter_of_that_side():
    sides = {f"cerebral_white_matter.{side}" for side in ("left", "right")}
    answer = plan(["frontal_lobe.left"], ["white_matter_lesion"], {"white_matter_lesion", *sides})
    assert answer.concepts == ("cerebral_white_matter.left",)
    assert answer.account == (
        "Narrowed to left cerebral white matter, where it can lie in left cerebral hemisphere, "
        "which holds left frontal lobe."
    )


def test_a_whole_of_the_other_side_or_of_both_does_not_do():
    known = {"brain_tumor", "cerebral_hemisphere.right", "cerebrum"}
    answer = plan(["frontal_lobe.left"], ["brain_tumor"], known)
    assert not answer.narrows
    assert answer.account == (
        "Not narrowed: the model knows neither left frontal lobe nor where the midline is."
    )


def test_where_no_structure_holds_the_site_the_midline_gives_its_side():
    tree = load_tree()
    known = {"brain_tumor", "thalamus.left", "thalamus.right", "kidney.left", "kidney.right"}
    answer = plan(["frontal_lobe.left"], ["brain_tumor"], known)
    assert (answer.concepts, answer.side, answer.pairs) == ((), "left", ("thalamus",))
    assert answer.asked(tree) == ("thalamus.left", "thalamus.right")
    assert answer.account == (
        "Narrowed to the left side of the midline between left and right thalamus; "
        "the model does not know left frontal lobe."
    )


def test_the_organ_that_a_lesion_is_of_anyway_does_not_count_as_narrower():
    answer = plan(["liver.segment_7"], ["liver_tumor"], {"liver", "liver_tumor"})
    assert not answer.narrows
    assert answer.account == "Not narrowed: the model does not know liver segment VII."


def test_a_side_alone_is_enough_and_no_place_at_all_is_not():
    lungs = {"lung.upper_lobe.left", "lung.upper_lobe.right"}
    assert plan([], ["lung_effusion"], lungs, side="right").side == "right"
    assert not plan([], ["lung_effusion"], lungs).narrows
    assert not plan([], ["lung_effusion"], lungs, side="both").narrows


def test_one_unknown_place_of_several_leaves_the_lesion_as_it_is():
    known = {"stroke", "thalamus.left", "brain"}
    assert not plan(["thalamus.left", "pons"], ["stroke"], known).narrows
