"""Lesions through the main flow: no part of one lies outside of it."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from fakes import tiny_encoder, tiny_segmenter
from levels import level_segmenter

from textseg import Segmenter
from textseg.network.weights import Domain

HU = {
    "brain_tumor.enhancing": -90,
    "brain_tumor.core": 120,
    "brain_tumor": 240,
    "brainstem": 60,
    "brain": -200,
}
HEAD = Domain(
    name="head-ct",
    spacing_mm=(3.0, 3.0, 3.0),
    window=(12, 16, 12),
    modalities=("ct",),
    concepts=tuple(HU),
)
ENHANCING, CORE, WHOLE = NAMES = ("enhancing brain tumor", "brain tumor core", "brain tumor")
AFFINE = np.array([[-3.0, 0, 0, 40], [0, 0, -3.0, 10], [0, 3.0, 0, -20], [0, 0, 0, 1]])
SHAPE = (21, 13, 17)
BOXES = {
    ENHANCING: (slice(5, 7), slice(4, 6), slice(5, 8)),
    CORE: (slice(10, 13), slice(4, 7), slice(5, 9)),
    WHOLE: (slice(15, 18), slice(8, 11), 9),
    "brainstem": (slice(2, 4), slice(9, 12), slice(12, 15)),
}


@pytest.fixture
def segmenter():
    return level_segmenter(HU, HEAD)


@pytest.fixture
def array():
    """Each concept where the model alone would see it, far from those that should hold it."""
    array = np.zeros(SHAPE, dtype=np.float32)
    array[:1] = -1000
    for name, hu in zip(BOXES, HU.values(), strict=False):
        array[BOXES[name]] = hu
    return array


def boxes(*names):
    mask = np.zeros(SHAPE, dtype=bool)
    for name in names:
        mask[BOXES[name]] = True
    return mask


def masks(segmenter, scan, prompts=NAMES, **options):
    found = segmenter(scan, prompts, modality="ct", **options)
    return {prompt: result.mask for prompt, result in found.items()}


def test_a_lesion_holds_what_the_tree_puts_in_it(segmenter, array):
    found = segmenter((array, AFFINE), NAMES, modality="ct")
    np.testing.assert_array_equal(found[ENHANCING].mask, boxes(ENHANCING))
    np.testing.assert_array_equal(found[CORE].mask, boxes(ENHANCING, CORE))
    np.testing.assert_array_equal(found[WHOLE].mask, boxes(*NAMES))


def test_a_lesion_of_which_only_a_part_is_seen_is_there_as_surely_as_the_part(segmenter, array):
    array[BOXES[WHOLE]] = array[BOXES[CORE]] = 0
    found = segmenter((array, AFFINE), NAMES, modality="ct")
    assert [found[name].status for name in NAMES] == ["ok"] * 3
    assert found[WHOLE].presence == found[CORE].presence == found[ENHANCING].presence > 0.99
    np.testing.assert_array_equal(found[WHOLE].mask, boxes(ENHANCING))


def test_asked_alone_or_in_any_order_the_answer_is_the_same(segmenter, array):
    scan = array, AFFINE
    together = masks(segmenter, scan)
    for order in permutations(NAMES):
        for name, mask in masks(segmenter, scan, order).items():
            np.testing.assert_array_equal(mask, together[name])
    for name in NAMES:
        np.testing.assert_array_equal(masks(segmenter, scan, [name])[name], together[name])


def test_the_parts_of_a_lesion_are_asked_once_and_organs_have_none(segmenter, array):
    scan = array, AFFINE
    masks(segmenter, scan, [WHOLE, CORE])
    once = ["brain_tumor", "brain_tumor.core", "brain_tumor.enhancing"]
    assert segmenter.network.asked == [once] * len(segmenter.network.asked)
    segmenter.network.asked.clear()
    # the brain has a tumor and a stem, and its mask is still that of the model
    array[BOXES[CORE]] = -200
    found = masks(segmenter, scan, ["brain", "brainstem"])
    assert segmenter.network.asked[0] == ["brain", "brainstem"]
    np.testing.assert_array_equal(found["brain"], boxes(CORE))
    np.testing.assert_array_equal(found["brainstem"], boxes("brainstem"))


def test_parts_that_the_model_does_not_know_are_not_missed(array):
    some = HEAD.model_copy(update={"concepts": ("brain_tumor", "brain_tumor.enhancing")})
    found = masks(level_segmenter(HU, some), (array, AFFINE), [WHOLE])
    np.testing.assert_array_equal(found[WHOLE], boxes(WHOLE, ENHANCING))


@pytest.mark.parametrize("spacing", [3.0, 4.3])
def test_masks_are_nested_at_every_threshold(spacing):
    network, encoder = tiny_segmenter(), tiny_encoder()
    domain = HEAD.model_copy(update={"spacing_mm": (spacing,) * 3})
    manifest = level_segmenter(HU, domain, presence_threshold=0.0).manifest
    segmenter = Segmenter(network, encoder, manifest, device="cpu", precision="float32")
    noise = np.random.default_rng(0).normal(40, 60, SHAPE).astype(np.float32)
    differ = 0
    for threshold in (0.1, 0.2, 0.35, 0.5, 0.65, 0.8):
        inner_first = masks(segmenter, (noise, AFFINE), threshold=threshold).values()
        for part, whole in pairwise(inner_first):
            assert not (part & ~whole).any()
            differ += int((whole & ~part).sum())
    assert differ > 0
