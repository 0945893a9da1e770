"""A loaded model looks in a mirror: left stays left, and what has no other side is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import tiny_encoder

from textseg.imaging.volume import Geometry, Source, Volume
from textseg.inference import LoadedModel, Manner
from textseg.inference.mirroring import counterparts, left_right_axis
from textseg.knowledge import load_tree
from textseg.network.model import Decoded
from textseg.network.queries import MODALITIES, SIDES
from textseg.network.weights import Domain, ModelManifest

MIDDLE_LOBE = "lung.middle_lobe.right"
LEFT, RIGHT = (SIDES.index(side) - len(SIDES) - len(MODALITIES) for side in ("left", "right"))


class SidedModel(torch.nn.Module):
    """Left prompts find what is bright in the left half of a window, right ones in the right half.

    It also answers a little to the place in the window, so that a mirror changes what it says.
    """

    granularity = 4

    def __init__(self, axes):
        super().__init__()
        self.asked = []
        axis = left_right_axis(axes)
        place = torch.linspace(-1, 1, 16)
        if axes[axis] == "L":
            place = -place  # rises to the right
        self.place = place.reshape([16 if each == axis else 1 for each in range(3)])

    def encode(self, volume):
        return volume

    def decode(self, features, queries):
        self.asked.append(queries.detach().clone())
        side = (queries[..., RIGHT] > 0).float() - (queries[..., LEFT] > 0).float()  # B K
        away = (-self.place * side[..., None, None, None]).clamp(min=0)
        logits = 2 * features[:, :1] - 60 * away + self.place
        return Decoded.of_logits(logits, logits.amax(dim=(2, 3, 4)))


def sided_model(axes="RAS", concepts=("kidney.left", "kidney.right", "liver", MIDDLE_LOBE)):
    domain = Domain(
        name="torso-ct",
        spacing_mm=(3.0, 3.0, 3.0),
        window=(16, 16, 16),
        modalities=("ct",),
        concepts=concepts,
        axes=axes,
    )
    manifest = ModelManifest(
        name="fake",
        version="1",
        licence="CC0-1.0",
        sha256="0" * 64,
        network={},
        text_encoder={},
        domains=(domain,),
    )
    return LoadedModel(
        SidedModel(axes),
        tiny_encoder(),
        manifest,
        load_tree(),
        device=torch.device("cpu"),
        precision="float32",
        averaging="streamed",
        scout=lambda: pytest.fail("no other model is needed"),
    )


def two_kidneys():
    """A scan of 15 x 13 x 14 voxels, right anterior superior, with a bright spot on each side."""
    hu = np.full((15, 13, 14), -200.0)
    hu[2:4, 5:8, 6:9] = 900  # left
    hu[10:12, 6:8, 3:6] = 900  # right
    return hu


TWICE = Manner("off", 0.5, mirror=True)


def segmented(model, concepts, manner=TWICE):
    hu = two_kidneys().astype(np.float32)
    place = Geometry(hu.shape, np.diag([3.0, 3.0, 3.0, 1.0]))
    volume = Volume(hu[None], place, "ct", Source(None, "array"))
    return model.segment(volume, model.manifest.domains[0], concepts, manner)


def on_the_scan(found, row):
    """Probability in the axis order of the scan, which is that of RAS."""
    values = found.prediction.probability[row].numpy()
    transform = found.transform
    for axis in range(3):
        if transform.flips[axis]:
            values = np.flip(values, axis)
    return values.transpose(np.argsort(transform.permutation))


@pytest.mark.parametrize("axes", ["RAS", "ASR", "LPS", "SAL"])
def test_left_stays_left_in_a_mirror(axes):
    model = sided_model(axes)
    concepts = ("kidney.left", "liver", "kidney.right")
    found = segmented(model, concepts)
    bright = two_kidneys() > 0
    low = np.arange(15)[:, None, None] < 7
    left, liver, right = (on_the_scan(found, row) for row in range(3))
    np.testing.assert_array_equal(left > 127, bright & low)
    np.testing.assert_array_equal(right > 127, bright & ~low)
    np.testing.assert_array_equal(liver > 127, bright)
    # the other side is out of the question in both looks, not in one of them alone
    assert left[bright & ~low].max() < 64 > right[bright & low].max()
    plain = segmented(model, concepts, Manner("off", 0.5))
    assert not np.array_equal(on_the_scan(plain, 1), liver)
    first, second = model.network.asked[:2]
    assert torch.equal(second[0], first[0, [2, 1, 0]])


def test_the_other_side_is_asked_for_in_the_mirror_even_when_nobody_asked():
    model = sided_model()
    found = segmented(model, ("kidney.left",))
    first, second = model.network.asked
    assert (first[..., LEFT] > 0).all()
    assert (second[..., RIGHT] > 0).all()
    assert found.prediction.warnings == ()


def test_a_side_whose_counterpart_the_model_does_not_know_is_not_mirrored():
    model = sided_model(concepts=("kidney.left", "liver", MIDDLE_LOBE))
    concepts = ("kidney.left", "liver", MIDDLE_LOBE)
    found, plain = segmented(model, concepts), segmented(model, concepts, Manner("off", 0.5))
    assert model.network.asked[1].shape[1] == 1  # the liver
    for row, same in ((0, True), (1, False), (2, True)):
        assert np.array_equal(on_the_scan(found, row), on_the_scan(plain, row)) == same
    assert found.prediction.presence[[0, 2]].tolist() == plain.prediction.presence[[0, 2]].tolist()
    (warning,) = found.prediction.warnings
    assert "left kidney, " in warning
    assert load_tree()[MIDDLE_LOBE].name in warning
    assert "liver" not in warning


def test_where_nothing_can_be_mirrored_the_answer_is_the_plain_one():
    model = sided_model(concepts=("kidney.left",))
    found = segmented(model, ("kidney.left",))
    plain = segmented(model, ("kidney.left",), Manner("off", 0.5))
    assert torch.equal(found.prediction.probability[0], plain.prediction.probability[0])
    assert len(model.network.asked) == 2  # once for each of these two
    assert len(found.prediction.warnings) == 1


def test_counterparts_are_the_tree_s_and_on_offer():
    concepts = ("kidney.left", "spleen", MIDDLE_LOBE, "lung.left")
    offered = {"kidney.left", "kidney.right", "spleen", MIDDLE_LOBE, "lung.left"}
    found = counterparts(concepts, offered=offered, tree=load_tree())
    assert found == {0: "kidney.right", 1: "spleen"}
