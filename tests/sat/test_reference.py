"""The reference computes what the original SAT computed, stage by stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.sat.filled import ARCHITECTURES, case_image, case_queries, case_voxels
from tests.sat.make_fixture import full, thinned
from tests.sat.recorded import CASES, FOLDER, measured, stored
from tests.sat.reference import (
    ReferenceSat,
    dice,
    masks,
    preprocess,
    segment,
    window_weight,
    windows,
)

KINDS = ("nano", pytest.param("pro", marks=pytest.mark.slow))
NUMBERS = (
    "encoder_stage_stats",
    "encoder_stage_channel_mean",
    "decoder_stage_stats",
    "decoder_stage_channel_mean",
    "pos_embedding",
    "image_embedding",
    "decoded_query",
    "mask_embedding",
    "logits_at_voxels",
    "logits_stats",
    "logits_mean_over_wd",
    "logits_mean_over_hd",
    "logits_mean_over_hw",
    "ds_shapes",
    "ds_stats",
    "ds1_logits",
    "ds2_logits",
    "ds3_logits",
)
# ours and the original's float32 run differ from float64 alike, coarse outputs three times as much
ROUNDING = 5
EARLY_ATOL = {"pos_embedding": 1e-6, "ds_shapes": 0.0}
EARLY = {"image_embedding", "decoded_query", "mask_embedding"}
SIZES = ((288, 288, 96), (200, 150, 40), (410, 410, 100), (512, 512, 300))
SIZES += ((289, 288, 97), (432, 300, 96))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_agrees_with_the_original(kind, number, request):
    case = request.getfixturevalue(f"{kind}_case")
    stages = request.getfixturevalue(f"{kind}_stages")
    rounding = float(case["fp32_max_abs_err"])
    atol = EARLY_ATOL.get(number, rounding if number in EARLY else ROUNDING * rounding)
    got = measured(stages, case)[number]
    np.testing.assert_allclose(got, case[number], rtol=0, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_voxels_are_positive(kind, request):
    case = request.getfixturevalue(f"{kind}_case")
    logits = request.getfixturevalue(f"{kind}_stages").logits.flatten(1)
    undecided = (logits.abs() < ROUNDING * float(case["fp32_max_abs_err"])).sum(dim=1).numpy()
    positive = (logits > 0).sum(dim=1).numpy()
    assert (np.abs(positive - case["positive_voxels"]) <= undecided).all()


@pytest.mark.parametrize("kind", ["nano", "pro"])
def test_the_voxels_that_are_compared_can_be_drawn_again(kind):
    case, size = stored(kind), ARCHITECTURES[kind].patch
    assert size == tuple(case["image_size"])
    np.testing.assert_array_equal(case["voxel_index"], case_voxels(size, 20_000)[::10])


def test_queries_do_not_see_each_other(nano_reference, nano_stages):
    queries = case_queries(3)
    alone = [nano_reference.decode_queries(nano_stages.encoded, q[None]) for q in queries]
    torch.testing.assert_close(torch.cat(alone), nano_stages.decoded_query, rtol=0, atol=3e-5)


@pytest.mark.parametrize("number", ["last_hidden_first8", "pooled", "projected", "query"])
def test_the_text_tower_agrees_with_the_original(number, text_reference, text_case):
    ids, modalities = (torch.from_numpy(text_case[key]) for key in ("input_ids", "modality_code"))
    hidden = text_reference.hidden(ids)
    pooled = text_reference.pool(hidden, ids)
    got = {
        "last_hidden_first8": hidden[..., :8],
        "pooled": pooled,
        "projected": text_reference.project(pooled),
        "query": text_reference(ids, modalities),
    }
    # three times the error of the original's own float32 run
    np.testing.assert_allclose(got[number], text_case[number], rtol=0, atol=1.5e-5)


def test_padding_does_not_change_a_text(text_reference, text_case):
    ids, modalities = (torch.from_numpy(text_case[key]) for key in ("input_ids", "modality_code"))
    padded = torch.nn.functional.pad(ids, (0, 4))
    queries = text_reference(ids, modalities)
    torch.testing.assert_close(text_reference(padded, modalities), queries, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("scan", "modality", "orientation"), [("ct_lps", "ct", "RAS"), ("mri_asr", "mri", "ASR")]
)
def test_a_scan_is_prepared_as_the_original_does(scan, modality, orientation, infer_case):
    array, affine = infer_case[f"{scan}_input"], infer_case[f"{scan}_affine"]
    volume = preprocess(array, affine, modality, orientation)
    # z-scores of at most some units, whose float32 mean and deviation are summed in another order
    np.testing.assert_allclose(volume, infer_case[f"{scan}_output"][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_windows_are_those_of_the_original(size, infer_case):
    corners = [[end for axis in w for end in (axis.start, axis.stop)] for w in windows(size)]
    np.testing.assert_array_equal(corners, infer_case[f"windows_{size[0]}_{size[1]}_{size[2]}"])


def test_the_weight_of_a_window_is_that_of_the_original(infer_case):
    weight, axis = window_weight(), torch.arange(288)
    assert weight.dtype == torch.float16
    lines = {
        "axis0": weight[:, 144, 48],
        "axis1": weight[144, :, 48],
        "axis2": weight[144, 144, :],
        "diagonal": weight[axis, axis, axis // 3],
    }
    for name, line in lines.items():
        # one unit in the last place of float16, of small numbers and of large ones
        want = infer_case[f"gauss_{name}"]
        np.testing.assert_allclose(line.float(), want, rtol=2**-10, atol=2**-24)
    assert float(weight.max()) == 10
    assert float(weight.min()) == 2**-24


def test_dice_is_that_of_the_original(infer_case):
    shape = infer_case["metric_shape"]
    a, b, c = (
        np.unpackbits(infer_case[f"metric_{name}"], count=shape.prod()).reshape(shape) == 1
        for name in "abc"
    )
    empty = np.zeros_like(a)
    pairs = ((a, b), (b, a), (a, c), (a, a), (a, empty))
    got = [dice(prediction, truth) for prediction, truth in pairs]
    np.testing.assert_allclose(got, infer_case["dsc"], rtol=0, atol=1e-12)
    assert dice(empty, empty) == 1


class OwnVoxel:
    """A network whose logit is the voxel times the first feature of the query."""

    def logits(self, image: Tensor, queries: Tensor) -> Tensor:
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])
        return queries[:, 0, None, None, None] * image[0]


class Mirrored:
    """A network that answers with the patch reversed along H."""

    def logits(self, image: Tensor, queries: Tensor) -> Tensor:
        return image[:1].flip(1).expand(len(queries), -1, -1, -1)


class Counting:
    """A network that is of another mind at each window: logits 0, 1, 2 and so on."""

    def __init__(self):
        self.calls = 0

    def logits(self, image: Tensor, queries: Tensor) -> Tensor:
        self.calls += 1
        return torch.full((len(queries), *image.shape[1:]), self.calls - 1.0)


def test_windows_that_agree_give_what_they_agree_on():
    volume = torch.randn(13, 5, 9, generator=torch.Generator().manual_seed(0))
    queries = torch.tensor([[1.0], [-2.0]])
    probability = segment(OwnVoxel(), volume, queries, window=(8, 8, 4))
    want = torch.stack([volume, -2 * volume]).sigmoid()
    torch.testing.assert_close(probability, want)
    assert torch.equal(masks(probability), torch.stack([volume > 0, volume < 0]))


def test_windows_that_differ_are_averaged_by_their_weight():
    probability = segment(Counting(), torch.zeros(12, 4, 6), torch.ones(1, 1), window=(8, 4, 6))
    weight = window_weight((8, 4, 6)).double()[:, 2, 3]
    first, second = torch.tensor([0.0, 1.0], dtype=torch.float64).sigmoid()
    both = (weight[4:] * first + weight[:4] * second) / (weight[4:] + weight[:4])
    want = torch.cat([first.expand(4), both, second.expand(4)])
    torch.testing.assert_close(probability[0, :, 2, 3].double(), want, rtol=0, atol=1e-6)


def test_a_volume_that_is_too_short_is_followed_by_zeros():
    probability = segment(Mirrored(), torch.ones(5, 4, 6), torch.ones(1, 1), window=(8, 4, 6))
    one = torch.ones(()).sigmoid()
    want = torch.stack([torch.tensor(0.5)] * 3 + [one] * 2)
    torch.testing.assert_close(probability[0, :, 0, 0], want)


def test_a_volume_of_one_window_has_the_positive_voxels_of_its_logits(nano_state, nano_case):
    inference = {name: nano_state[name] for name in nano_state if "mid_mask_embed" not in name}
    patch = ARCHITECTURES["nano"].patch
    model = ReferenceSat(inference, "nano")
    found = masks(segment(model, case_image(patch)[0], case_queries(3), window=patch))
    # a voxel whose probability rounds to one half may go either way
    counts = found.sum(dim=(1, 2, 3)).numpy()
    np.testing.assert_allclose(counts, nano_case["positive_voxels"], rtol=0, atol=3)


def test_the_stored_numbers_are_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 350_000


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_the_stored_numbers_are_the_recorded_ones(case, shared_folder):
    want, got = thinned(full(shared_folder / "fixtures" / "sat", case)), stored(case)
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)
