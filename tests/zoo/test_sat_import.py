"""SAT's published files: every weight finds its place, and any other file is refused by name."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.sat.filled import canonical, state_shapes
from tests.zoo.published import pieces, published, save, save_pieces
from textseg.atomic import file_sha256
from textseg.errors import ModelError, ResourceError
from textseg.knowledge import load_classes, load_tree
from textseg.network.model import PromptedSegmenter
from textseg.network.sat_text_encoder import SatTextEncoder, SatTextEncoderConfig
from textseg.network.weights import load_model
from textseg.zoo.checkpoint import Checkpoint
from textseg.zoo.sat import (
    SAT_NANO,
    SAT_PRO,
    FileKind,
    classify,
    convert,
    convert_text,
    domains,
    import_sat,
)
from textseg.zoo.sat_shapes import network_shapes, text_shapes
from textseg.zoo.sat_weights import NAMES

KINDS = {"nano": SAT_NANO, "pro": SAT_PRO}
FIRST = "module.backbone.encoder.stages.0.0.convs.0.conv.weight"
ALSO_FIRST = "module.backbone.encoder.stages.0.0.convs.0.all_modules.0.weight"
LINEAR = "module.transformer_decoder.layers.2.linear1.weight"
MODALITY = "module.modality_embed.weight"


def checkpoint(state) -> Checkpoint:
    return Checkpoint(Path("sat.pth"), 1, {canonical(name): t for name, t in state.items()})


def reshaped(state, name, *shape, like=0.0):
    return state | {name: torch.full((), like).expand(shape)}


def without(state, *names):
    assert set(names) <= set(state)
    return {name: tensor for name, tensor in state.items() if name not in names}


# names and shapes


@pytest.mark.parametrize(("kind", "total"), [("nano", 110_277_568), ("pro", 477_087_360)])
def test_the_shapes_of_a_network_follow_from_its_configuration(kind, total):
    shapes = network_shapes(KINDS[kind])
    assert shapes == {canonical(name): s for name, s in state_shapes(kind).items()}
    assert sum(map(math.prod, shapes.values())) == total


def test_the_shapes_of_the_text_encoder():
    shapes = text_shapes()
    assert len(shapes) == 204
    assert sum(map(math.prod, shapes.values())) == 110_670_720


@pytest.mark.shared
@pytest.mark.parametrize(("kind", "keys"), [("nano", 292), ("pro", 380), ("text", 204)])
def test_names_and_shapes_are_those_that_the_original_code_saves(shared_folder, kind, keys):
    path = shared_folder / "fixtures" / "sat" / f"{kind}_state_shapes.json"
    tensors = json.loads(path.read_text())["tensors"]
    needed = {name: facts for name, facts in tensors.items() if not facts.get("optional")}
    assert len(needed) == keys
    ours = text_shapes() if kind == "text" else network_shapes(KINDS[kind])
    assert ours == {canonical(name): tuple(facts["shape"]) for name, facts in needed.items()}


# conversion


@pytest.mark.parametrize("deep", [True, False], ids=["with all mask heads", "with one"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_of_a_network_finds_its_place(kind, deep):
    found = checkpoint(published(kind, deep=deep))
    config, weights = convert(found, name=f"sat-{kind}")
    assert config.mask_levels == (4 if deep else 1)
    with torch.device("meta"):
        network = PromptedSegmenter(config)
    network.load_state_dict(weights, strict=True, assign=True)
    unused = [name for name in found.state if ".norm1." in name]
    assert len(unused) == 12
    assert len(weights) == len(found.state) - len(unused)
    first, ours = canonical(FIRST), "backbone.stages.0.0.0.weight"
    numbers = {n: t.flatten()[0].item() for n, t in found.state.items() if n not in unused}
    got = {name: tensor.flatten()[0].item() for name, tensor in weights.items()}
    assert got.pop(ours) == 3 * numbers.pop(first)
    assert sorted(got.values()) == sorted(numbers.values())


PLACES = {
    "backbone.encoder.stages.3.0.convs.1.norm.bias": "backbone.stages.3.1.1.bias",
    "backbone.decoder.transpconvs.0.weight": "pixel_decoder.stages.0.up.weight",
    "backbone.decoder.stages.4.convs.1.conv.weight": "pixel_decoder.stages.4.blocks.1.0.weight",
    "projection_layer.2.bias": "token_pool.project.2.bias",
    "transformer_decoder.layers.5.multihead_attn.in_proj_weight": (
        "query_decoder.layers.5.attention.in_proj_weight"
    ),
    "transformer_decoder.layers.5.norm2.bias": "query_decoder.layers.5.attention_norm.bias",
    "transformer_decoder.layers.5.norm3.bias": "query_decoder.layers.5.feed_forward_norm.bias",
    "transformer_decoder.layers.0.linear2.weight": "query_decoder.layers.0.feed_forward.2.weight",
    "transformer_decoder.norm.weight": "query_decoder.norm.weight",
    "mask_embed_proj.2.weight": "mask_heads.0.2.weight",
    "mid_mask_embed_proj.1.0.bias": "mask_heads.2.0.bias",
}


@pytest.mark.parametrize("theirs", PLACES)
def test_a_weight_goes_by_our_name(theirs):
    found = checkpoint(published("nano"))
    _, weights = convert(found, name="sat-nano")
    assert torch.equal(weights[PLACES[theirs]], found.state[theirs])


def test_the_three_equal_channels_of_an_image_become_one():
    kernels = torch.randn(64, 3, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    _, weights = convert(
        checkpoint(without(published("nano"), ALSO_FIRST) | {FIRST: kernels}), name="sat-nano"
    )
    image = torch.randn(1, 1, 5, 4, 3, generator=torch.Generator().manual_seed(1))
    three = torch.nn.functional.conv3d(image.expand(-1, 3, -1, -1, -1), kernels)
    one = torch.nn.functional.conv3d(image, weights["backbone.stages.0.0.0.weight"])
    torch.testing.assert_close(one, three, atol=1e-5, rtol=1e-5)  # 81 terms of float32


@pytest.mark.parametrize("old", [True, False], ids=["older transformers", "newer"])
@pytest.mark.parametrize("pooler", [True, False], ids=["pooler", "none"])
def test_every_weight_of_the_text_encoder_finds_its_place(old, pooler):
    state = {
        name: tensor
        for name, tensor in published("text").items()
        if (old or "position_ids" not in name) and (pooler or ".pooler." not in name)
    }
    found = checkpoint(state)
    weights = convert_text(found)
    with torch.device("meta"):
        encoder = SatTextEncoder(SatTextEncoderConfig(), pieces())
    encoder.load_state_dict(weights, strict=True, assign=True)
    layer = "encoder.layer.7.attention.attn.q.bias"
    for theirs, ours in {
        f"text_tower.biolord.{layer}": f"transformer.{layer}",
        "projection_layer.2.weight": "projection.2.weight",
        "modality_embed.weight": "modality.weight",
    }.items():
        assert torch.equal(weights[ours], found.state[theirs])


def test_half_precision_becomes_float32():
    state = {
        name: t.half() if t.is_floating_point() else t for name, t in published("text").items()
    }
    assert {tensor.dtype for tensor in convert_text(checkpoint(state)).values()} == {torch.float32}


def test_each_row_of_the_table_of_names_is_needed():
    for part, shapes in (("network", network_shapes(SAT_PRO)), ("text_encoder", text_shapes())):
        for theirs, _ in NAMES[part]:
            beginning = re.sub(r"\\\{\w\\\}", r"\\d", re.escape(theirs))
            buffers = ["text_tower.biolord.embeddings.position_ids"]
            assert any(re.match(beginning, name) for name in [*shapes, *buffers]), theirs


# refusals of weights

WRONG = {
    "one is missing": (lambda s: without(s, LINEAR), "lacks 1 of its weights: .*linear1.weight;"),
    "many are missing": (
        lambda s: {n: t for n, t in s.items() if "linear1" not in n},
        r"lacks 12 of its weights: .*, \.\.\.;",
    ),
    "a mask head is missing": (
        lambda s: without(s, "module.mid_mask_embed_proj.2.2.bias"),
        "lacks 1 .*mid_mask_embed_proj.2.2.bias",
    ),
    "one is unknown": (
        lambda s: reshaped(s, "module.class_head.weight", 2, 2),
        "has 1 weights that the model does not: class_head.weight;",
    ),
    "one layer too many": (
        lambda s: reshaped(s, "module.transformer_decoder.layers.6.norm2.weight", 768),
        "has 1 weights that the model does not: .*layers.6.norm2.weight;",
    ),
    "one has another shape": (
        lambda s: reshaped(s, LINEAR, 1024, 768),
        r"do not fit: \S*linear1.weight \(1024 x 768, not 2048 x 768\);",
    ),
    "an unused one has another shape": (
        lambda s: reshaped(s, "module.transformer_decoder.layers.2.norm1.weight", 5),
        r"norm1.weight \(5, not 768\)",
    ),
    "one is of whole numbers": (
        lambda s: s | {LINEAR: torch.zeros((), dtype=torch.int64).expand(2048, 768)},
        "int64 2048 x 768, not 2048 x 768",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_weights_that_are_not_exactly_the_models_are_refused(name):
    change, said = WRONG[name]
    with pytest.raises(ModelError, match=said) as caught:
        convert(checkpoint(change(published("nano"))), name="sat-nano")
    assert caught.value.code == "E413"
    assert caught.value.path == Path("sat.pth")


def test_a_text_encoder_of_another_vocabulary_is_refused():
    name = "module.text_tower.biolord.embeddings.word_embeddings.weight"
    with pytest.raises(ModelError, match=r"E413.*30522 x 768, not 30527 x 768"):
        convert_text(checkpoint(reshaped(published("text"), name, 30522, 768)))


# what a file is


def other(*names, shape=(4, 4)):
    return {f"module.{name}": torch.zeros(()).expand(shape) for name in names}


QUERY = "transformer_decoder.norm.weight"
FILES = {
    "nano": (lambda: published("nano"), FileKind.SAT_NANO),
    "nano for inference": (lambda: published("nano", deep=False), FileKind.SAT_NANO),
    "nano with gaps": (
        lambda: without(published("nano"), FIRST, ALSO_FIRST, LINEAR),
        FileKind.SAT_NANO,
    ),
    "pro": (lambda: published("pro"), FileKind.SAT_PRO),
    "text": (lambda: published("text"), FileKind.TEXT),
    "unet-h": (
        lambda: other(QUERY) | reshaped({}, FIRST, 256, 3, 3, 3, 3),
        FileKind.SAT_UNET_H,
    ),
    "swin": (lambda: other(QUERY, "backbone.swinViT.layers1.weight"), FileKind.SAT_SWIN),
    "mamba": (
        lambda: published("nano") | other("backbone.encoder.mamba_layers.0.mamba.A_log"),
        FileKind.SAT_MAMBA,
    ),
    "another size": (lambda: other(QUERY, "backbone.stem.weight"), FileKind.SAT_OTHER),
    "five modalities": (
        lambda: reshaped(published("text"), MODALITY, 5, 768),
        FileKind.PRETRAINING,
    ),
    "a temperature": (lambda: published("text") | other("temperature"), FileKind.PRETRAINING),
    "an atlas tower": (
        lambda: published("text") | other("atlas_tower.encoder.stages.0.weight"),
        FileKind.PRETRAINING,
    ),
    "medcpt": (
        lambda: other("text_tower.medcpt.embeddings.weight", "modality_embed.weight"),
        FileKind.OTHER_TEXT,
    ),
    "textseg": (lambda: other("token_pool.project.0.weight"), FileKind.TEXTSEG),
    "another model": (lambda: other("conv1.weight"), FileKind.UNKNOWN),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_told_by_its_weights(name):
    make, kind = FILES[name]
    assert classify(checkpoint(make()).state) is kind


# whole files


@pytest.fixture(name="files", scope="module")
def _files(tmp_path_factory):
    """The published files of both models, and whatever else is asked for by name."""
    folder = tmp_path_factory.mktemp("published")

    def write(name: str, step: int = 9) -> Path:
        path = folder / f"{name.replace(' ', '-')}-{step}.pth"
        if not path.exists():
            save(path, FILES[name][0](), step=step)
        return path

    save_pieces(folder / "vocab.txt")
    return write


@pytest.fixture(name="vocabulary")
def _vocabulary(files):
    return files("nano").parent / "vocab.txt"


PAIRS = {
    "swapped": ("sat-nano", "text", "nano", "E409", "swapped.*Exchange text-9.pth and nano-9.pth"),
    "nano for pro": ("sat-pro", "nano", "text", "E409", "is SAT-Nano, not .*SAT-Pro.*as sat-nano"),
    "pro for nano": ("sat-nano", "pro", "text", "E409", "is SAT-Pro, not .*SAT-Nano.*as sat-pro"),
    "text twice": ("sat-nano", "text", "text", "E409", "the text encoder.*as --text-encoder"),
    "nano twice": ("sat-nano", "nano", "nano", "E409", "is SAT-Nano, not the.*as --checkpoint"),
    "swin": ("sat-nano", "swin", "text", "E409", "SwinUNETR, not the checkpoint of SAT-Nano"),
    "mamba": ("sat-nano", "mamba", "text", "E409", "U-Mamba"),
    "unet-h": ("sat-pro", "unet-h", "text", "E409", "U-Net H"),
    "five rows": ("sat-nano", "nano", "five modalities", "E409", "pre-training"),
    "temperature": ("sat-nano", "nano", "a temperature", "E409", "pre-training"),
    "medcpt": ("sat-nano", "nano", "medcpt", "E409", "another kind than BioLORD"),
    "textseg": ("sat-nano", "textseg", "text", "E409", "needs no import"),
    "unknown": ("sat-nano", "another model", "text", "E411", "begin with conv1.weight"),
    "gaps": ("sat-nano", "nano with gaps", "text", "E413", "lacks 2 of its weights"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_wrong_pair_is_refused_with_its_own_words(tmp_path, files, vocabulary, case):
    name, network, text, code, said = PAIRS[case]
    with pytest.raises(ModelError, match=said) as caught:
        import_sat(files(network), files(text), vocabulary, tmp_path / "model", name=name)
    assert caught.value.code == code
    assert caught.value.path in (files(network), files(text))
    assert list(tmp_path.iterdir()) == []


def test_two_files_of_different_steps_are_refused(tmp_path, files, vocabulary):
    with pytest.raises(ModelError, match=r"E409.*step 8.*step 9.*--unpaired"):
        import_sat(files("nano"), files("text", 8), vocabulary, tmp_path / "model", name="sat-nano")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "code"), [(None, "E405"), (b"\xff\xfe", "E411"), (b"liver\nspleen\n", "E402")]
)
def test_a_wrong_vocabulary_is_refused(tmp_path, files, content, code):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=code):
        import_sat(files("nano"), files("text"), path, tmp_path / "model", name="sat-nano")
    assert not (tmp_path / "model").exists()


def test_a_folder_that_is_taken_is_noticed_before_anything_is_read(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    gone = tmp_path / "gone.pth"
    for overwrite in (False, True):
        with pytest.raises(ResourceError, match="E504"):
            import_sat(gone, gone, gone, tmp_path, name="sat-nano", overwrite=overwrite)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_domains_are_the_classes_of_each_modality():
    tree = load_tree()
    found = {domain.modalities: domain for domain in domains() if domain.axes == "RAS"}
    assert set(found) == {("ct",), ("mr",), ("pet",)}
    for domain in found.values():
        assert domain.spacing_mm == (1.0, 1.0, 3.0)
        assert domain.window == (288, 288, 96)
        assert all(concept in tree for concept in domain.concepts)
    classes = load_classes()
    assert classes["femur"].concepts[0] in found["ct",].concepts
    assert classes["myocardial scar"].concepts[0] in found["mr",].concepts
    assert classes["myocardial scar"].concepts[0] not in found["ct",].concepts
    assert len(found["pet",].concepts) == 3
    (spine,) = (domain for domain in domains() if domain.axes != "RAS")
    assert (spine.axes, spine.modalities) == ("ASR", ("mr",))
    assert {"vertebra.l5", "intervertebral_disc.l5_s1"} <= set(spine.concepts)
    assert not set(spine.concepts) & set(found["mr",].concepts)
    # every class is somewhere
    whole = {concept for domain in domains() for concept in domain.concepts}
    assert whole == {concept for label in classes.values() for concept in label.concepts}


@pytest.mark.slow
def test_an_imported_model_holds_every_weight_and_says_where_from(tmp_path, files, vocabulary):
    folder = tmp_path / "sat-nano"
    network_file, text_file = files("nano"), files("text", 8)
    written = import_sat(
        network_file, text_file, vocabulary, folder, name="sat-nano", unpaired=True
    )
    assert [path.name for path in tmp_path.iterdir()] == ["sat-nano"]
    network, encoder, manifest = load_model(folder)
    assert manifest == written
    assert manifest.version == "step-9"
    assert manifest.preparation == "sat"
    for path in (network_file, text_file, vocabulary):
        assert manifest.source[path.name] == file_sha256(path)
    state, words = published("nano"), published("text")
    for theirs, ours in PLACES.items():
        assert torch.equal(network.state_dict()[ours], state[f"module.{theirs}"]), theirs
    assert torch.equal(encoder.modality.weight, words[MODALITY])
    assert encoder.pieces == tuple(pieces())
    shutil.rmtree(folder)  # a gigabyte, which would stay for three runs
