"""Which concepts add up to which: the only way one prompt becomes several masks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textseg.knowledge import load_tree

TREE = load_tree()
LOBES = (
    "lung.upper_lobe.left",
    "lung.lower_lobe.left",
    "lung.upper_lobe.right",
    "lung.middle_lobe.right",
    "lung.lower_lobe.right",
)


def test_a_concept_that_is_available_stands_for_itself():
    assert TREE.leaves("kidney", ["kidney", "kidney.left", "kidney.right"]) == ("kidney",)


def test_a_pair_is_its_left_and_its_right():
    assert TREE.leaves("kidney", ["kidney.right", "kidney.left", "liver"]) == (
        "kidney.left",
        "kidney.right",
    )


def test_half_a_pair_is_not_the_pair():
    assert TREE.leaves("kidney", ["kidney.left"]) == ()


def test_the_lungs_are_five_lobes_and_each_lung_its_own():
    assert set(TREE.leaves("lung", LOBES)) == set(LOBES)
    assert set(TREE.leaves("lung.left", LOBES)) == set(LOBES[:2])
    assert set(TREE.leaves("lung.right", LOBES)) == set(LOBES[2:])


def test_a_lung_without_one_of_its_lobes_has_no_answer():
    assert TREE.leaves("lung.right", [*LOBES[:3], LOBES[4]]) == ()


def test_the_brain_is_not_its_hippocampus():
    assert TREE.leaves("brain", ["hippocampus.left", "hippocampus.right"]) == ()


def test_a_second_partition_is_used_where_the_first_cannot_be():
    available = ["hippocampus.anterior", "hippocampus.posterior"]
    assert TREE.leaves("hippocampus", available) == tuple(available)
    assert TREE.leaves("hippocampus.left", available) == ()


def test_nested_partitions_are_followed():
    ribs = [f"rib.{number}.{side}" for number in range(1, 13) for side in ("left", "right")]
    assert set(TREE.leaves("rib", ribs)) == set(ribs)
    assert set(TREE.leaves("rib.left", ribs)) == {i for i in ribs if i.endswith("left")}
    assert TREE.leaves("rib.4", ribs) == ("rib.4.left", "rib.4.right")
    assert TREE.leaves("rib.left", ribs[2:]) == ()


@pytest.mark.parametrize(
    ("region", "letter", "count"), [("cervical", "c", 7), ("thoracic", "t", 12), ("lumbar", "l", 5)]
)
def test_a_spine_region_is_its_vertebrae(region, letter, count):
    levels = [f"vertebra.{letter}{number}" for number in range(1, count + 1)]
    assert TREE.leaves(f"vertebra.{region}", levels) == tuple(levels)


@given(st.sampled_from(TREE.ids), st.sets(st.sampled_from(TREE.ids), max_size=300))
def test_leaves_are_available_and_growing_availability_never_loses_an_answer(concept_id, available):
    leaves = TREE.leaves(concept_id, available)
    assert set(leaves) <= available
    assert len(set(leaves)) == len(leaves)
    if leaves:
        assert TREE.leaves(concept_id, available | {"liver"})


def test_no_partition_of_one_side_reaches_to_the_other():
    divided = [concept for concept in TREE if concept.side is not None and concept.made_of]
    for concept in divided:
        for members in concept.made_of:
            assert {TREE[member].side for member in members} <= {concept.side, None}, concept.id
    assert len(divided) > 30
