"""Models of SAT's shape from folder to masks: where they land, what is asked, what is answered."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from fakes import (
    one_thread,
    seeded,
    tiny_encoder,
    tiny_sat_encoder,
    tiny_segmenter,
    write_model,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sat import reference
from textseg import Segmenter
from textseg.errors import InputError, ModelError
from textseg.knowledge import load_tree
from textseg.network.backbones import BackboneConfig
from textseg.network.model import Decoded, NetworkConfig, PromptedSegmenter
from textseg.network.nearness import NearNames
from textseg.network.queries import build_queries, published_name
from textseg.network.sat_text_encoder import SatTextEncoder, SatTextEncoderConfig
from textseg.network.weights import (
    PIECES_FILE,
    Domain,
    ModelManifest,
    load_encoder,
    load_model,
    read_model_manifest,
)

__all__ = ["one_thread"]

WINDOW = (16, 12, 8)
SPACING = (1.0, 1.0, 3.0)


def domain(name, modality, *concepts, **changes):
    return Domain(
        name=name,
        spacing_mm=SPACING,
        window=WINDOW,
        modalities=(modality,),
        concepts=concepts,
        **changes,
    )


DOMAINS = (
    domain("body-ct", "ct", "liver", "spleen", "kidney.left", "kidney.right", "femur"),
    domain("body-mr", "mr", "liver", "spleen", "femur"),
    domain("spine-mr", "mr", "vertebra.l5", axes="ASR"),
)
WORDS = ("left", "right", "kidney", "liver", "spleen", "femur", "bone", "vertebra")
PIECES = ("<s>", "<pad>", "</s>", "[UNK]", "[CLS]", "[SEP]", *WORDS)


def encoder():
    """SAT's text encoder, tiny, that knows a few words apart."""
    config = SatTextEncoderConfig(
        vocabulary=len(PIECES), features=24, layers=1, heads=3, hidden=12, positions=40
    )
    return seeded(lambda: SatTextEncoder(config, PIECES)).eval()


def network_config(**changes):
    """A network with every switch as SAT has it."""
    backbone = BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1), norm="instance")
    settings = {
        "backbone": backbone,
        "light_full_resolution": False,
        "full_channels": 6,
        "mask_levels": 2,
        "query_features": 24,
        "embedding": 24,
        "layers": 2,
        "heads": 3,
        "hidden": 24,
        "text_shortcut": False,
        "token_hidden": 12,
        "mask_hidden": (10, 14),
        "gelu_ends": True,
        "query_projection": False,
        "presence_head": False,
        "whiten_queries": False,
        "norm": "instance",
    }
    return NetworkConfig(**{**settings, **changes})


def network(**changes):
    """A tiny SAT with random weights that is in two minds about nothing for long."""
    made = tiny_segmenter(network_config(**changes))
    with torch.no_grad():
        # a GELU hardly goes below zero, and neither would the logits
        made.mask_heads[0][2].weight *= 40
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder of that network."""
    path = tmp_path_factory.mktemp("models") / "sat-tiny"
    write_model(
        path,
        network=network(),
        encoder=encoder(),
        domains=DOMAINS,
        preparation="sat",
        source={"nano.pth": "12" * 32},
    )
    return path


def load(folder, **options):
    return Segmenter.from_pretrained(folder, device="cpu", **{"precision": "float32", **options})


class StandIn(torch.nn.Module):
    """Answers every prompt by one rule, from a window ``B 1 X Y Z`` to logits of that shape."""

    granularity = 4

    def __init__(self, rule):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.rule = rule
        self.asked = []
        self.seen = []

    def encode(self, volume):
        self.seen.append(volume.clone())
        return self.rule(volume)

    def decode(self, features, queries):
        self.asked.append(queries.clone())
        logits = features.expand(-1, queries.shape[1], -1, -1, -1)
        return Decoded(logits, logits.flatten(2).amax(-1))


def bright(window):
    """What is brighter than the mean of the scan."""
    return 60 * window


def everywhere(window):
    return torch.full_like(window, 9.0)


def doubtful(window):
    return torch.full_like(window, -0.1)


def stand_in(rule, domains=DOMAINS, **options):
    """A segmenter of that rule, prepared and asked as SAT is."""
    manifest = ModelManifest(
        name="stand-in",
        version="1",
        licence="none",
        sha256="0" * 64,
        network={},
        text_encoder={},
        domains=domains,
        preparation="sat",
    )
    options = {"precision": "float32", **options}
    return Segmenter(StandIn(rule), encoder(), manifest, device="cpu", **options)


def box_of(shape, box):
    mask = np.zeros(shape, dtype=bool)
    mask[box] = True
    return mask


def stored(values, spacing, *, orientation="RAS", turn=None):
    """Values along R, A and S as a file with other axes holds them, and the affine of the file."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = (-31, 17, 5)
    image = nib.Nifti1Image(values, affine)
    ornt = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    turned = image.as_reoriented(ornt)
    return np.asanyarray(turned.dataobj), turned.affine


def tilted(degrees):
    """A rotation by these angles about X, Y and Z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        step = np.eye(3)
        first, second = ((1, 2), (0, 2), (0, 1))[axis]
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ step
    return matrix


def phantom(shape, box, modality):
    """Soft tissue in air, with something bright in it; values along R, A and S."""
    air, tissue = (-1000, 40) if modality == "ct" else (0, 40)
    values = np.full(shape, air, dtype=np.float32)
    values[1:-1, 1:-1, 1:-1] = tissue
    values[box] = 900
    return values


ORIENTATIONS = ("RAS", "LPS", "PSL", "IAR", "SLA", "ARI")
BOX = (slice(3, 7), slice(2, 6), slice(1, 3))
SHAPES = {
    "smaller than the window": (11, 9, 5),
    "longer than the window along one axis": (37, 9, 5),
    "larger than the window": (25, 22, 19),
    "the window within its air": (18, 14, 10),
}


# where masks land


@pytest.mark.parametrize("averaging", ["streamed", "published"])
@pytest.mark.parametrize("modality", ["ct", "mr"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_mask_lies_on_the_voxels_of_the_scan_whatever_its_size(name, modality, averaging):
    values = phantom(SHAPES[name], BOX, modality)
    scan = stored(values, SPACING, orientation="LPS")
    segmenter = stand_in(bright, averaging=averaging)
    found = segmenter(scan, "liver", modality=modality)
    assert found["liver"].status == "ok"
    wanted, _ = stored(box_of(values.shape, BOX).astype(np.uint8), SPACING, orientation="LPS")
    np.testing.assert_array_equal(found["liver"].mask, wanted.astype(bool))
    (grid,) = found.manifest.run.grids
    inner = tuple(size - 2 for size in values.shape)
    assert grid.shape == (inner if modality == "ct" else grid.shape)
    assert (grid.windows > 1) == any(a > b for a, b in zip(inner, WINDOW, strict=True))
    assert {window.shape for window in segmenter.network.seen} == {(1, 1, *WINDOW)}


@settings(max_examples=25)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    degrees=st.tuples(*[st.floats(-20, 20)] * 3),
    shape=st.tuples(st.integers(8, 33), st.integers(8, 21), st.integers(5, 17)),
    modality=st.sampled_from(["ct", "mr"]),
)
def test_an_oblique_scan_stays_oblique(orientation, degrees, shape, modality):
    values = phantom(shape, BOX, modality)
    place = {"orientation": orientation, "turn": tilted(degrees)}
    result = stand_in(bright)(stored(values, SPACING, **place), "liver", modality=modality)
    wanted, affine = stored(box_of(shape, BOX).astype(np.uint8), SPACING, **place)
    np.testing.assert_array_equal(result["liver"].mask, wanted.astype(bool))
    np.testing.assert_allclose(result.geometry.affine, affine)


@pytest.mark.parametrize("orientation", ["RAS", "PSL"])
@pytest.mark.parametrize("spacing", [(0.8, 1.3, 2.2), (2.5, 0.6, 5.0)])
def test_a_scan_of_another_spacing_gets_its_ball_back(spacing, orientation):
    shape = tuple(round(48 / step) for step in spacing)
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    ball = (x - 4) ** 2 + (y + 3) ** 2 + z**2 < 12**2
    values = np.where(ball, 900.0, 40.0).astype(np.float32)
    place = {"orientation": orientation, "turn": tilted((9, -14, 5))}
    mask = stand_in(bright)(stored(values, spacing, **place), "liver", modality="ct")["liver"].mask
    wanted, affine = stored(ball.astype(np.uint8), spacing, **place)
    assert mask.shape == wanted.shape
    found, there = np.argwhere(mask), np.argwhere(wanted)
    shift = affine[:3, :3] @ (found.mean(0) - there.mean(0))
    # samples every 1 x 1 x 3 mm, which a mirrored or swapped axis would miss by 8 mm
    assert np.linalg.norm(shift) < 1
    assert reference.dice(mask, wanted.astype(bool)) > 0.85


@pytest.mark.parametrize("averaging", ["streamed", "published"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_nothing_is_found_outside_the_box_that_scans_are_cut_to(shape, averaging):
    values = np.full(shape, -1000, dtype=np.float32)
    # above 0 in two corners alone, and the box is between them
    values[2, 1, 1] = values[-3, -2, -2] = 100
    scan = stored(values, SPACING, orientation="PSL")
    mask = stand_in(everywhere, averaging=averaging)(scan, "liver", modality="ct")["liver"].mask
    box = box_of(shape, (slice(2, -2), slice(1, -1), slice(1, -1)))
    wanted, _ = stored(box.astype(np.uint8), SPACING, orientation="PSL")
    np.testing.assert_array_equal(mask, wanted.astype(bool))


def test_what_is_found_in_the_padding_alone_is_not_found():
    def padding(window):
        return torch.where(window == 0, 9.0, -9.0)

    scan = stored(phantom(SHAPES["smaller than the window"], BOX, "ct"), SPACING)
    segmenter = stand_in(padding)
    result = segmenter(scan, "liver", modality="ct")["liver"]
    assert segmenter.network.seen[0].eq(0).any()
    assert result.status == "not_found"
    assert not result.mask.any()


@pytest.mark.parametrize("axes", ["RAS", "ASR"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_network_sees_the_axes_that_its_domain_names(axes, axis):
    def first_three(window):
        index = torch.arange(window.shape[2 + axis])
        view = [-1 if place == 2 + axis else 1 for place in range(5)]
        return torch.where(index < 3, 9.0, -9.0).view(view).expand_as(window)

    order = ["RAS".index(letter) for letter in axes]
    spacing = tuple(SPACING[axes.index(letter)] for letter in "RAS")
    shape = (7, 9, 6)
    values = np.full(shape, 40, dtype=np.float32)
    values[:2, :, 4:] = 700
    near = [slice(None)] * 3
    near[order[axis]] = slice(0, 3)
    segmenter = stand_in(first_three, [domain("mr", "mr", "vertebra.l5", axes=axes)])
    scan = stored(values, spacing, orientation="LPS")
    mask = segmenter(scan, "L5 vertebra", modality="mr")["L5 vertebra"].mask
    wanted, _ = stored(box_of(shape, tuple(near)).astype(np.uint8), spacing, orientation="LPS")
    np.testing.assert_array_equal(mask, wanted.astype(bool))
    (window,) = segmenter.network.seen
    seen = window[0, 0, *(slice(0, shape[place]) for place in order)]
    assert torch.equal(seen > 0, torch.from_numpy(values > 100).permute(order))


def test_every_concept_is_segmented_on_the_grid_of_its_own_domain():
    # the spine's grid is the scan's; along S the other one samples every third slice
    shape, spacing = (9, 14, 23), (3.0, 1.0, 1.0)
    box = (slice(3, 6), slice(4, 11), slice(5, 14))
    scan = stored(phantom(shape, box, "mr"), spacing, orientation="PIR", turn=tilted((8, 4, -9)))
    segmenter = stand_in(bright)
    found = segmenter(scan, ["liver", "L5 vertebra", "spleen"], modality="mr")
    wanted, _ = stored(box_of(shape, box).astype(np.uint8), spacing, orientation="PIR")
    for prompt in found:
        assert found[prompt].status == "ok"
        np.testing.assert_array_equal(found[prompt].mask, wanted.astype(bool), prompt)
    body, spine = found.manifest.run.grids
    assert (body.domain, spine.domain) == ("body-mr", "spine-mr")
    # cut to the box above 0: R A S in voxels of 1 x 1 x 3 mm, and A S R as the scan has them
    assert body.shape == (19, 12, 7)
    assert spine.shape == (12, 21, 7)


def test_a_scan_without_anything_above_zero_is_refused():
    dark = np.full((9, 8, 7), -500, dtype=np.float32)
    with pytest.raises(InputError, match="no voxel is above 0"):
        stand_in(everywhere)((dark, np.eye(4)), "liver", modality="ct")


# what is answered


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
    assert 0.1 < float((probability > 0.5).float().mean()) < 0.9
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
    assert "Not found in this scan" in (result.reason or "")


def test_bfloat16_gives_nearly_the_masks_of_float32(folder):
    scan = (np.random.default_rng(5).normal(200, 90, (21, 13, 9)), np.diag([*SPACING, 1.0]))
    exact, rough = (
        load(folder, precision=precision)(scan, "liver", modality="ct", keep_islands=True)
        for precision in ("float32", "bfloat16")
    )
    assert (exact.manifest.run.precision, rough.manifest.run.precision) == ("float32", "bfloat16")
    assert reference.dice(exact["liver"].mask, rough["liver"].mask) > 0.95
    assert exact["liver"].presence != rough["liver"].presence


# what is asked


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
    unknown = "liver transplant rejection"
    answer = segmenter.resolve(unknown, modality="ct")
    assert answer.status == "reject"
    assert answer.suggestions == ("liver",)
    assert "liver" in near(unknown)
    # the tree has thousands of names, each of which would take a transformer's time
    assert passes == []
    segmenter(stored(phantom((11, 9, 5), BOX, "ct"), SPACING), "liver", modality="ct")
    assert passes == [1]


# on disk


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
    "heads of its own": {"presence_head": True, "whiten_queries": True, "mask_levels": 1},
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
    write_model(
        tmp_path / "one", network=made, encoder=words, domains=DOMAINS, preparation="sat"
    )
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


def test_a_text_encoder_of_another_width_does_not_fit(tmp_path):
    write_model(
        tmp_path / "mixed", network=network(), encoder=tiny_encoder(), domains=DOMAINS
    )
    scan = (np.random.default_rng(0).normal(200, 90, WINDOW), np.eye(4))
    with pytest.raises(ModelError, match="E402"):
        load(tmp_path / "mixed")(scan, "liver", modality="ct")


def test_the_encoder_of_the_fakes_is_one_that_is_asked_for_names():
    tree = load_tree()
    found = build_queries([tree["liver"]], tiny_sat_encoder(), modality="ct")
    assert torch.equal(found, tiny_sat_encoder().queries(["liver"], "ct"))
