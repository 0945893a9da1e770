"""Queries: the text without its side, then switches for side and modality."""

from __future__ import annotations

import pytest
import torch
from fakes import TINY_ENCODER, TINY_QUERY, tiny_encoder

from textseg.datasets import load_registry
from textseg.knowledge import load_tree
from textseg.network.queries import build_queries, query_features, strip_side, unsided_name

E = TINY_ENCODER.features
TREE = load_tree()


def queries(*concepts, modality="ct"):
    return build_queries([TREE[c] for c in concepts], tiny_encoder(), modality=modality)


SLOTS = 3 * E


def test_a_query_is_text_in_the_slot_of_its_side_then_side_and_modality_switches():
    found = queries("liver", "kidney.left", "kidney.right")
    assert found.shape == (3, TINY_QUERY) == (3, query_features(E)) == (3, SLOTS + 3 + 4)
    assert found.dtype == torch.float32
    assert found[:, SLOTS : SLOTS + 3].tolist() == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    slots = found[:, :SLOTS].unflatten(1, (3, E))
    assert slots.any(dim=2).tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]


def test_left_and_right_hold_the_same_text_in_different_slots():
    left, right = queries("kidney.left", "kidney.right")
    assert torch.equal(left[E : 2 * E], right[2 * E : SLOTS])
    assert torch.equal(left[SLOTS + 3 :], right[SLOTS + 3 :])


@pytest.mark.parametrize(
    ("modality", "switch"),
    [(None, [1, 0, 0, 0]), ("ct", [0, 1, 0, 0]), ("mr", [0, 0, 1, 0]), ("pet", [0, 0, 0, 1])],
)
def test_modality_is_a_switch_and_leaves_the_rest_alone(modality, switch):
    found = queries("liver", "kidney.right", modality=modality)
    assert found[:, SLOTS + 3 :].tolist() == [switch, switch]
    assert torch.equal(found[:, : SLOTS + 3], queries("liver", "kidney.right")[:, : SLOTS + 3])


def test_text_vectors_are_scaled_to_entries_of_order_one():
    assert float(queries("liver")[0, :E].norm()) == pytest.approx(E**0.5, rel=1e-5)


def test_no_concept_is_no_query():
    assert queries().shape == (0, TINY_QUERY)


@pytest.mark.parametrize(
    ("name", "side", "bare"),
    [
        ("left kidney", "left", "kidney"),
        ("right hepatic vein", "left", "right hepatic vein"),
        ("cleft of the left ear", "left", "cleft of the ear"),
        ("liver", None, "liver"),
    ],
)
def test_only_the_word_for_the_side_is_taken_out(name, side, bare):
    assert strip_side(name, side) == bare


def test_every_pair_that_a_data_set_labels_shares_one_text():
    labelled = {i for spec in load_registry().values() for i in spec.concepts}
    pairs = [(i, TREE.counterpart(i)) for i in sorted(labelled) if TREE[i].side == "left"]
    assert len(pairs) > 20
    apart = [i for i, o in pairs if o and unsided_name(TREE[i]) != unsided_name(TREE[o])]
    assert apart == []
