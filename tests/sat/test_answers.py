"""What SAT-shaped models are asked and what they answer, from the folder to the masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import one_thread, tiny_segmenter, write_model

from tests.sat import reference
from tests.sat.tiny import (
    BOX,
    DOMAINS,
    SPACING,
    WINDOW,
    bright,
    doubtful,
    encoder,
    load,
    network_config,
    phantom,
    stand_in,
    stored,
    write_sat,
)
from textseg.errors import ModelError
from textseg.knowledge import load_tree
from textseg.network.backbones import BackboneConfig
from textseg.network.model import PromptedSegmenter
from textseg.network.nearness import NearNames
from textseg.network.queries import build_queries, published_name
from textseg.network.weights import PIECES_FILE, load_encoder, load_model, read_model_manifest
from textseg.prompts import resolve

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder that stays as it is."""
    path = tmp_path_factory.mktemp("models") / "sat-tiny"
    write_sat(path)
    return path


class Reference:
    """A network as the reference averages it: its window has three equal channels."""

    def __init__(self, network):
        self._network = network

    @torch.inference_mode()
    def logits(self, patch, queries):
        features = self._network.encode(patch[None, :1])
        return self._network.decode(features, queries[None]).logits[0]


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_a_model_answers_as_the_reference_of_sat_does(folder, modality):
    shape = (27, 17, 13)
    values = np.random.default_rng(1).normal(200, 90, shape).astype(np.float32)
    values[:2], values[:, -1] = (-800, -300) if modality == "ct" else (0, 0)
    affine = np.diag([*SPACING, 1.0])
    whole, encoding, _ = load_model(folder)
    volume = reference.preprocess(values, affine, modality)
    assert volume.shape == (25, 16, 13)
    queries = encoding.queries(["liver", "spleen"], modality)
    probability = reference.segment(Reference(whole), volume, queries, WINDOW)
    assert 0.05 < float((probability > 0.5).float().mean()) < 0.95
    found = load(folder, averaging="published")(
        (values, affine), ["liver", "spleen"], modality=modality, keep_islands=True
    )
    for row, prompt in enumerate(found):
        inside = found[prompt].mask[2:, :-1]
        assert found[prompt].mask.sum() == inside.sum()
        unlike = inside != reference.masks(probability[row]).numpy()
        # half a step of 8 bits, and the reference rounds another exponential to half precision
        assert (np.abs(probability[row].numpy()[unlike] - 0.5) < 4e-3).all()


def test_both_averages_of_one_window_are_the_same_up_to_rounding(folder):
    scan = (np.random.default_rng(0).normal(200, 90, WINDOW), np.diag([*SPACING, 1.0]))
    found = [
        load(folder, averaging=averaging)(scan, ["liver", "spleen"], modality="ct", threshold=0.5)
        for averaging in ("streamed", "published")
    ]
    for prompt in ("liver", "spleen"):
        masks = [one[prompt].mask for one in found]
        assert 0.1 < masks[0].mean() < 0.9
        # a probability on the edge between two of 256 steps may go either way
        assert (masks[0] != masks[1]).mean() < 1e-3
        assert found[0][prompt].presence == pytest.approx(found[1][prompt].presence, abs=1e-5)


def test_both_averages_are_the_same_where_windows_agree():
    def graded(window):
        return 2 * window

    scan = (np.random.default_rng(0).normal(200, 90, (37, 25, 19)), np.diag([*SPACING, 1.0]))
    streamed, published = (
        stand_in(graded, averaging=averaging)(scan, "liver", modality="ct", keep_islands=True)
        for averaging in ("streamed", "published")
    )
    assert streamed.manifest.run.grids == published.manifest.run.grids
    masks = [one["liver"].mask for one in (streamed, published)]
    assert 0.3 < masks[0].mean() < 0.7
    assert (masks[0] != masks[1]).mean() < 1e-3  # on the edge between two of 256 steps


def test_published_averaging_is_float32_whatever_the_processor(folder):
    segmenter = load(folder, averaging="published", precision="auto")
    assert segmenter.precision == "float32"
    scan = (np.random.default_rng(0).normal(200, 90, (9, 8, 7)), np.eye(4))
    assert segmenter(scan, "liver", modality="ct").manifest.run.precision == "float32"


def test_published_averaging_is_not_made_of_less(folder):
    with pytest.raises(ModelError, match="in float32"):
        load(folder, averaging="published", precision="bfloat16")


def test_published_averaging_is_for_models_that_are_prepared_as_sat(tmp_path):
    write_model(tmp_path / "own", network=tiny_segmenter(), domains=DOMAINS)
    with pytest.raises(ModelError, match="own is none of them") as caught:
        load(tmp_path / "own", averaging="published")
    assert caught.value.remedy


@pytest.mark.parametrize("averaging", ["mean", "", "Published"])
def test_another_way_to_average_is_refused(folder, averaging):
    with pytest.raises(ModelError, match="no way to average") as caught:
        load(folder, averaging=averaging)
    assert "streamed or published" in (caught.value.remedy or "")


def test_prompts_do_not_meet(folder):
    segmenter = load(folder)
    scan = (np.random.default_rng(3).normal(200, 90, (21, 13, 9)), np.eye(4))
    prompts = ["liver", "left kidney", "spleen", "femur"]
    together = segmenter(scan, prompts, modality="ct")
    others = segmenter(scan, prompts[::-1], modality="ct")
    for prompt in prompts:
        alone = segmenter(scan, prompt, modality="ct")
        for one in (alone, others):
            # products of matrices of another size round otherwise, and an edge may go either way
            assert one[prompt].presence == pytest.approx(together[prompt].presence, abs=1e-4)
            assert (one[prompt].mask != together[prompt].mask).mean() < 1e-2
    masks = {together[prompt].mask.tobytes() for prompt in prompts}
    assert len(masks) == len(prompts)


def test_where_no_voxel_passes_one_half_nothing_is_found():
    scan = stored(phantom((11, 9, 5), BOX, "ct"), SPACING)
    result = stand_in(doubtful)(scan, "liver", modality="ct")["liver"]
    assert result.status == "not_found"
    assert result.presence == pytest.approx(0.475, abs=1e-3)  # the surest voxel's
    assert not result.mask.any()
    assert result.reason == "Not found in this scan: presence 0.48 is below 0.50."


def test_bfloat16_gives_nearly_the_masks_of_float32(folder):
    scan = (np.random.default_rng(5).normal(200, 90, (21, 13, 9)), np.diag([*SPACING, 1.0]))
    masks = []
    for precision in ("float32", "bfloat16"):
        segmenter = load(folder, precision=precision)
        ran = set()
        segmenter.network.backbone.register_forward_hook(
            lambda _, given, maps, ran=ran: ran.add(str(maps[-1].dtype))
        )
        result = segmenter(scan, "liver", modality="ct", keep_islands=True)
        assert result.manifest.run.precision == precision
        assert ran == {f"torch.{precision}"}
        masks.append(result["liver"].mask)
    assert 0.05 < masks[0].mean() < 0.95
    assert reference.dice(*masks) > 0.95


@pytest.mark.parametrize(
    ("modality", "prompt", "name"),
    [
        ("ct", "femur", "femur"),
        ("mr", "thigh bone", "femur bone"),
        ("ct", "left kidney", "left kidney"),
        ("mr", "liver", "liver"),
    ],
)
def test_concepts_are_asked_by_the_class_name_of_their_modality(modality, prompt, name):
    segmenter = stand_in(bright)
    result = segmenter(
        stored(phantom((11, 9, 5), BOX, modality), SPACING), prompt, modality=modality
    )
    (concept,) = result[prompt].resolution.concepts
    assert published_name(load_tree()[concept], modality) == name
    (asked,) = segmenter.network.asked
    torch.testing.assert_close(asked[0], segmenter.encoder.queries([name], modality))
    others = segmenter.encoder.queries(["femur", "femur bone", "liver", "left kidney"], modality)
    assert int((others - asked[0]).abs().amax(1).lt(1e-6).sum()) == 1


def test_a_scan_of_a_modality_that_was_not_learned_is_asked_as_one_that_was():
    segmenter = stand_in(bright)
    scan = stored(phantom((11, 9, 5), BOX, "mr"), SPACING)
    result = segmenter(scan, "left kidney", modality="mr")["left kidney"]
    torch.testing.assert_close(
        segmenter.network.asked[0][0], segmenter.encoder.queries(["left kidney"], "ct")
    )
    assert any("learned this on CT; the scan is MR" in warning for warning in result.warnings)


def test_an_unknown_prompt_is_answered_by_the_quick_encoder(folder):
    segmenter = load(folder)
    passes = []
    segmenter.encoder.transformer.register_forward_hook(lambda *_: passes.append(1))
    near = NearNames(load_tree(), lambda: load_encoder("nano"))
    unknown = "liverliver"  # whose spelling suggests nothing
    assert resolve(unknown, load_tree()).suggestions == ()
    answer = segmenter.resolve(unknown, modality="ct")
    assert answer.status == "reject"
    assert "liver" in near(unknown)
    assert "liver" in answer.suggestions
    # the tree has thousands of names, each of which would take a transformer's time
    assert passes == []
    segmenter(stored(phantom((11, 9, 5), BOX, "ct"), SPACING), "liver", modality="ct")
    assert passes == [1]


def test_a_folder_keeps_what_the_manifest_says(folder):
    manifest = read_model_manifest(folder)
    assert manifest.preparation == "sat"
    assert manifest.source == {"nano.pth": "12" * 32}
    assert set(manifest.files) == {PIECES_FILE}
    assert manifest.domains == DOMAINS
    assert [each.axes for each in manifest.domains] == ["RAS", "RAS", "ASR"]
    assert manifest.text_encoder["kind"] == "sat"
    assert load(folder).manifest == manifest


VARIANTS = {
    "unet": {},
    "residual": {
        "backbone": BackboneConfig(
            kind="residual_unet", channels=(4, 8, 8), blocks=(1, 1, 1), norm="instance"
        )
    },
    "swin": {"backbone": BackboneConfig(kind="swin", channels=(4, 24, 48), blocks=(1, 1, 1))},
    "multiscale": {"fusion": "multiscale", "prompt_maps": 3, "mask_levels": 1},
    "heads of its own": {"presence_head": True, "whiten_queries": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_comes_back_and_answers_as_before(variant, tmp_path):
    if variant == "swin":
        pytest.importorskip("monai")
    made = tiny_segmenter(network_config(**VARIANTS[variant]))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(parameter.half())  # what half precision keeps
    words = encoder()
    for parameter in words.parameters():
        parameter.data = parameter.data.half().float()
    write_model(tmp_path / "one", network=made, encoder=words, domains=DOMAINS, preparation="sat")
    again, heard, _ = load_model(tmp_path / "one")
    assert isinstance(again, PromptedSegmenter)
    assert again.config == made.config
    for name, tensor in made.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    tree = load_tree()
    queries = [
        build_queries([tree["liver"], tree["femur"]], one, modality="mr") for one in (words, heard)
    ]
    assert torch.equal(*queries)
    volume = torch.randn(1, 1, 16, 12, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, after = (
            one.decode(one.encode(volume), asked[None])
            for one, asked in zip((made, again), queries, strict=True)
        )
    assert torch.equal(before.logits, after.logits)
    result = load(tmp_path / "one")((volume[0, 0].numpy(), np.eye(4)), "liver", modality="mr")
    assert result["liver"].status in {"ok", "not_found"}
    assert result["liver"].mask.shape == (16, 12, 8)
