"""The real case list: every case is read, and no label map has its sides swapped."""

import nibabel as nib
import numpy as np
import pytest

from textseg.datasets import LabelSpace, load_cases
from textseg.knowledge import load_tree

pytestmark = pytest.mark.shared
TREE = load_tree()


@pytest.fixture
def cases(shared_data):
    return load_cases(shared_data / "manifest.json")


def test_every_case_belongs_to_a_data_set(cases):
    assert len(cases) > 200
    assert {case.split for case in cases} == {"train", "val", "demo"}
    assert all(case.concepts for case in cases if case.masks)


def test_unions_and_containments_hold_on_real_tables(cases):
    by_id = {case.id: case for case in cases}
    space = LabelSpace.of(cases, tree=TREE, also=("kidney", "lung.left", "hippocampus", "brain"))
    torso, head = space.values(by_id["tsd_s0327"]), space.values(by_id["vxm_test_scan"])
    assert torso["kidney"] == (2, 3)
    assert torso["lung.left"] == (10, 11)
    assert "hippocampus.left" not in torso
    assert head["hippocampus"] == (17, 53)
    assert head["lateral_ventricle.left"] == (4, 31)
    assert {2, 41, 77, 251, 255} <= set(head["brain"])
    assert space.values(by_id["hippocampus_001"])["hippocampus"] == (1, 2)
    assert "hippocampus.left" not in space.values(by_id["hippocampus_001"])


def test_left_lies_left_of_right_in_one_label_map_of_every_data_set(cases):
    first = {case.dataset: case for case in reversed(cases) if case.masks}
    swapped, compared = [], 0
    for case in first.values():
        centres = _centres_mm(case)
        for concept, x in centres.items():
            other = TREE.counterpart(concept)
            if TREE[concept].side == "left" and other in centres:
                compared += 1
                swapped += [(case.id, concept)] if x >= centres[other] else []
    assert swapped == []
    assert compared > 250


def _centres_mm(case):
    """World x of the centre of each concept with a label of its own."""
    image = nib.load(case.masks[""])
    data = np.asarray(image.dataobj).astype(np.int32)
    counts = np.bincount(data.ravel(), minlength=max(case.labels) + 1)
    along = np.broadcast_to(np.arange(data.shape[0])[:, None, None], data.shape)
    sums = np.bincount(data.ravel(), weights=along.ravel(), minlength=max(case.labels) + 1)
    centres = {}
    for concept in case.concepts:
        values = list(case.values(concept))
        if total := counts[values].sum():
            centres[concept] = image.affine[0, 0] * sums[values].sum() / total + image.affine[0, 3]
    return centres
