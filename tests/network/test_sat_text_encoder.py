from __future__ import annotations

import pytest
import torch

from textseg.errors import ModelError
from textseg.knowledge import load_classes, load_tree
from textseg.network.queries import NamingEncoder, build_queries, published_name
from textseg.network.sat_text_encoder import SatTextEncoder, SatTextEncoderConfig
from textseg.network.weights import PIECES_FILE, ModelManifest, load_encoder, save_model

PIECES = (
    *("<s>", "<pad>", "</s>", "[UNK]", "[CLS]", "[SEP]"),
    *("left", "kidney", "liver", "##s", "l", "##5", "vertebra", "(", ")"),
)
SMALL = SatTextEncoderConfig(
    vocabulary=len(PIECES), features=24, layers=2, heads=2, hidden=32, positions=40, max_tokens=6
)


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SatTextEncoder(SMALL, PIECES).eval()


def ids(*pieces):
    return [PIECES.index(piece) for piece in pieces]


def test_tokens_stand_between_the_marks_of_bert_and_are_padded_with_zero(encoder):
    found = encoder.tokens(["Left  KIDNEYS", "vertebra L5"])
    assert found.tolist() == [
        ids("[CLS]", "left", "kidney", "##s", "[SEP]"),
        ids("[CLS]", "vertebra", "l", "##5", "[SEP]"),
    ]
    shorter = encoder.tokens(["liver", "left kidney"])
    assert shorter.tolist() == [
        [*ids("[CLS]", "liver", "[SEP]"), 0],
        ids("[CLS]", "left", "kidney", "[SEP]"),
    ]


def test_long_texts_are_cut_and_unknown_words_are_one_piece(encoder):
    (row,) = encoder.tokens(["liver " * 9]).tolist()
    assert row == [*ids("[CLS]"), *ids("liver") * 4, *ids("[SEP]")]
    assert encoder.tokens(["zygoma"]).tolist() == [ids("[CLS]", "[UNK]", "[SEP]")]


def test_a_query_is_the_name_plus_the_row_of_its_modality(encoder):
    plain = encoder.queries(["liver"], None)
    for row, modality in ((0, "ct"), (1, "mr"), (3, "pet")):
        difference = encoder.queries(["liver"], modality) - plain
        torch.testing.assert_close(difference[0], encoder.modality.weight[row].detach())


def test_padding_does_not_reach_a_query(encoder):
    alone = encoder.queries(["liver"], "ct")
    together = encoder.queries(["liver", "left kidneys"], "ct")[:1]
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)


def test_vectors_without_modality_have_length_one(encoder):
    found = encoder.encode(["liver", "left kidney"])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert encoder.encode([]).shape == (0, 24)


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        (PIECES[:-1], "has 14 word pieces"),
        (tuple("x" if piece == "[CLS]" else piece for piece in PIECES), "lacks [CLS]"),
    ],
)
def test_another_vocabulary_is_refused(pieces, told):
    with pytest.raises(ModelError) as caught:
        SatTextEncoder(SMALL, pieces)
    assert told in str(caught.value)
    assert caught.value.code == "E402"


def test_concepts_are_asked_for_by_the_name_that_data_sets_of_the_modality_use(encoder):
    tree = load_tree()
    assert published_name(tree["femur"], "ct") == "femur"
    assert published_name(tree["femur"], "mr") == "femur bone"
    assert published_name(tree["kidney.left"], "ct") == "left kidney"
    assert "palmaris longus" in published_name(
        tree["palmaris_longus_muscle"], "ct"
    )  # in no data set
    assert isinstance(encoder, NamingEncoder)
    found = build_queries([tree["kidney.left"]], encoder, modality="ct")
    assert torch.equal(found, encoder.queries(["left kidney"], "ct"))


def test_every_class_of_the_data_sets_is_asked_for_by_its_name_or_its_twins():
    tree = load_tree()
    marks = {"CT": "ct", "MRI": "mr", "PET": "pet"}
    other = set()
    for label in load_classes().values():
        (concept,) = label.concepts
        for mark in label.modalities:
            if published_name(tree[concept], marks[mark]) != label.name:
                other.add(label.name)
    assert other == {"rib cartilage", "thyroid gland"}  # the same structures under second names


def test_a_model_keeps_the_vocabulary_and_refuses_another(encoder, tmp_path):
    manifest = ModelManifest(
        name="tiny",
        version="1",
        licence="none",
        sha256="",
        network=None,
        text_encoder=SMALL.model_dump(mode="json"),
        domains=(),
    )
    written = save_model(tmp_path, None, encoder, manifest=manifest, half=False)
    assert set(written.files) == {PIECES_FILE}
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded, SatTextEncoder)
    assert loaded.pieces == PIECES
    names = ["left kidney", "vertebra L5"]
    assert torch.equal(loaded.queries(names, "mr"), encoder.queries(names, "mr"))
    (tmp_path / PIECES_FILE).write_text("other\n" * len(PIECES), encoding="utf-8")
    with pytest.raises(ModelError, match="not the one that the manifest names"):
        load_encoder(tmp_path)
