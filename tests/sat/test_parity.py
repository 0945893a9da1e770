"""textseg's network, text encoder, preparation and averaging against the original's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.sat.filled import ARCHITECTURES, canonical, case_image, case_queries
from tests.sat.recorded import measured
from tests.sat.reference import Encoded, Stages, segment, window_weight
from tests.sat.test_reference import EARLY, EARLY_ATOL, KINDS, NUMBERS, ROUNDING
from textseg.imaging import Geometry, Grid, Source, Volume
from textseg.imaging.preparation import prepare
from textseg.inference import plan_windows, segment_windows
from textseg.inference.published import average_as_published, published_importance
from textseg.network.masks import mask_logits
from textseg.network.model import PromptedSegmenter
from textseg.network.sat_text_encoder import SatTextEncoder, SatTextEncoderConfig
from textseg.zoo.checkpoint import Checkpoint
from textseg.zoo.sat import convert, convert_text

PIECES = [f"piece {number}" for number in range(30527)]
PIECES[104:107] = ["[UNK]", "[CLS]", "[SEP]"]


def converted(state, kind):
    """The network with a checkpoint's weights, which are not copied."""
    plain = {canonical(name): tensor for name, tensor in state.items()}
    config, weights = convert(Checkpoint(Path("filled.pth"), 0, plain), name=f"sat-{kind}")
    with torch.device("meta"):
        network = PromptedSegmenter(config)
    network.load_state_dict(weights, assign=True)
    return network.eval()


@pytest.fixture(scope="module")
def nano(nano_state):
    return converted(nano_state, "nano")


@pytest.fixture(scope="module")
def nano_found(nano):
    return stages_of(nano, "nano")


@pytest.fixture(scope="module")
def pro_found(pro_state):
    return stages_of(converted(pro_state, "pro"), "pro")


@torch.inference_mode()
def stages_of(network, kind):
    """What the network computes for the recorded patch and queries, as the reference says it."""
    features = network.encode(case_image(ARCHITECTURES[kind].patch)[None, :1])
    refined = network.refine(features, case_queries(3)[None])
    encoded = Encoded(
        encoder_maps=tuple(each[0] for each in features.maps),
        decoder_maps=(features.finest[0], *(each[0] for each in features.decoded)),
        tokens=features.tokens[0],
        position=features.position,
    )
    deep = [
        mask_logits(decoded, network.mask_vectors(refined, level))[0]
        for level, decoded in enumerate(features.decoded[:3], start=1)
    ]
    width = network.config.embedding
    return Stages(
        encoded,
        decoded_query=refined[0, :, :width],
        mask_vectors=network.mask_vectors(refined)[0, :, :-1],
        logits=network.masks(features, refined)[0],
        deep_logits=tuple(deep),
    )


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_agrees_with_the_original(kind, number, request):
    case = request.getfixturevalue(f"{kind}_case")
    rounding = float(case["fp32_max_abs_err"])
    atol = EARLY_ATOL.get(number, rounding if number in EARLY else ROUNDING * rounding)
    got = measured(request.getfixturevalue(f"{kind}_found"), case)[number]
    np.testing.assert_allclose(got, case[number], rtol=0, atol=atol)


def test_masks_have_no_bias(nano):
    vectors = nano.mask_vectors(torch.randn(1, 2, 2 * 768))
    assert vectors[..., -1].eq(0).all()


@pytest.mark.parametrize("size", [(32, 64, 32), (96, 32, 64)])
def test_any_multiple_of_32_will_do(nano, nano_reference, nano_case, size):
    # both round, and instance norm of two voxels magnifies it
    atol = 20 * float(nano_case["fp32_max_abs_err"])
    image, queries = case_image(size), case_queries(2)
    with torch.inference_mode():
        found = nano.decode(nano.encode(image[None, :1]), queries[None])
    wanted = nano_reference.logits(image, queries)
    torch.testing.assert_close(found.logits[0], wanted, atol=atol, rtol=0)
    # without a head of its own, presence is the surest voxel
    torch.testing.assert_close(found.presence[0], wanted.flatten(1).amax(1), atol=atol, rtol=0)


@pytest.fixture(scope="module")
def text_encoder(text_state):
    plain = {canonical(name): tensor for name, tensor in text_state.items()}
    with torch.device("meta"):
        encoder = SatTextEncoder(SatTextEncoderConfig(), PIECES)
    encoder.load_state_dict(convert_text(Checkpoint(Path("filled.pth"), 0, plain)), assign=True)
    return encoder.eval()


def test_the_text_encoder_agrees_with_the_original(text_encoder, text_case):
    atol = ROUNDING * float(text_case["fp32_max_abs_err"].max())
    with torch.inference_mode():
        found = text_encoder.project(torch.from_numpy(text_case["input_ids"]))
        rows = text_encoder.modality.weight[torch.from_numpy(text_case["modality_code"])]
    np.testing.assert_allclose(found, text_case["projected"], rtol=0, atol=atol)
    np.testing.assert_allclose(found + rows, text_case["query"], rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("case", "modality", "axes"), [("ct_lps", "ct", "RAS"), ("mri_asr", "mr", "ASR")]
)
def test_scans_are_prepared_as_the_original_does(case, modality, axes, infer_case):
    values, affine = infer_case[f"{case}_input"], infer_case[f"{case}_affine"]
    scan = Volume(values[None], Geometry(values.shape, affine), modality, Source(None, "array"))
    found = prepare(scan, Grid((1.0, 1.0, 3.0), axes), how="sat")
    # the original resamples in float32
    np.testing.assert_allclose(found.data, infer_case[f"{case}_output"], rtol=0, atol=1e-5)
    assert found.transform.target.orientation == axes


@pytest.mark.parametrize(
    "size", [(288, 288, 96), (410, 410, 100), (512, 512, 300), (289, 288, 97), (432, 300, 96)]
)
def test_windows_are_those_of_the_original(size, infer_case):
    rows = infer_case["windows_{}_{}_{}".format(*size)]
    assert {tuple(row) for row in rows[:, ::2].tolist()} == {
        tuple(start) for start in plan_windows(size, (288, 288, 96)).tolist()
    }
    assert len(rows) == len(plan_windows(size, (288, 288, 96)))


def test_a_window_counts_as_in_the_original():
    found, wanted = published_importance((288, 288, 96)), window_weight((288, 288, 96)).float()
    # half precision rounds a tail of the exponential up here and down there
    torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-7)


WINDOW = (96, 64, 32)
VOLUME = case_image((130, 64, 30))[0]
QUERIES = case_queries(3)


@pytest.fixture(scope="module")
def averaged(nano_reference):
    """What the reference makes of two windows that are padded along their last axis."""
    return segment(nano_reference, VOLUME, QUERIES, WINDOW)


@pytest.fixture(scope="module")
def padded():
    return functional.pad(VOLUME, (0, 2))[None]


def test_the_published_averaging_is_that_of_the_reference(nano, averaged, padded):
    found = average_as_published(nano, padded, QUERIES, window=WINDOW)[..., :30]
    assert found.dtype == torch.float32
    assert float((found - averaged).abs().max()) < 1e-3


def test_the_streamed_averaging_gives_the_masks_of_the_reference(nano, averaged, padded):
    found = segment_windows(nano, padded, QUERIES, window=WINDOW)
    assert min(overlaps(found, averaged)) >= 0.995


def test_half_the_precision_gives_nearly_the_same_masks(nano, averaged, padded):
    found = segment_windows(nano, padded, QUERIES, window=WINDOW, precision="bfloat16")
    scores = overlaps(found, averaged)
    assert sum(scores) / len(scores) >= 0.995
    # filled weights are in two minds about every other voxel, as trained ones are not
    assert min(scores) >= 0.98


def overlaps(found, averaged):
    cut = found.probability.stacked()[..., : VOLUME.shape[-1]]
    pairs = zip(cut > 127, averaged > 0.5, strict=True)
    return [2 * int((a & b).sum()) / int(a.sum() + b.sum()) for a, b in pairs]
