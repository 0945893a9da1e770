"""A transformer in place of the n-gram bag: pooled rightly, cached, and honest about failure."""

from __future__ import annotations

import sys

import pytest
import torch
from fakes import write_bert

from textseg.errors import ModelError
from textseg.knowledge import load_tree
from textseg.network.queries import build_queries, query_features
from textseg.network.transformer_encoder import TransformerEncoder, TransformerEncoderConfig

transformers = pytest.importorskip(
    "transformers", reason='transformer encoders need pip install "textseg[text]"'
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "right", "kidney", "liver"]


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """A BERT of a few thousand random weights with nine words."""
    return write_bert(tmp_path_factory.mktemp("bert"), WORDS)


def make(folder, **changes):
    cache = changes.pop("cache", None)
    config = TransformerEncoderConfig(model=str(folder), **changes)
    return TransformerEncoder(config, cache=cache, batch=2)


def test_texts_become_unit_vectors_in_their_order(folder):
    encoder = make(folder)
    found = encoder.encode(["left kidney", "liver", "left kidney"])
    assert found.shape == (3, encoder.features) == (3, 12)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])
    assert encoder.encode([]).shape == (0, 12)


def test_a_text_has_one_vector_alone_and_beside_longer_ones(folder):
    encoder = make(folder)
    together = encoder.encode(["liver", "right kidney left liver kidney"])
    torch.testing.assert_close(together[:1], encoder.encode(["liver"]), atol=1e-6, rtol=1e-5)


def test_pooling_is_the_mean_of_the_tokens_or_the_first_of_them(folder):
    text = "left kidney"
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        states = model(**tokens).last_hidden_state[0]
    for pooling, pooled in (("mean", states.mean(0)), ("first", states[0])):
        wanted = pooled / pooled.norm()
        torch.testing.assert_close(make(folder, pooling=pooling).encode([text])[0], wanted)


def test_vectors_are_kept_and_used_again(folder, tmp_path, monkeypatch):
    first = make(folder, cache=tmp_path).encode(["liver", "left kidney"])
    again = make(folder, cache=tmp_path)
    asked = []
    compute = again._computed
    monkeypatch.setattr(again, "_computed", lambda texts: asked.append(texts) or compute(texts))
    assert torch.equal(again.encode(["left kidney", "liver"]), first.flip(0))
    assert asked == []
    again.encode(["right kidney", "liver"])
    assert asked == [["right kidney"]]


def test_another_use_of_the_model_shares_no_vectors(folder, tmp_path):
    mean, other = make(folder, cache=tmp_path), make(folder, cache=tmp_path, pooling="first")
    assert mean.fingerprint != other.fingerprint
    assert not torch.allclose(mean.encode(["liver"]), other.encode(["liver"]))


def test_it_makes_queries_as_the_default_encoder_does(folder):
    tree = load_tree()
    concepts = [tree["kidney.left"], tree["kidney.right"], tree["liver"]]
    queries = build_queries(concepts, make(folder), modality="ct")
    assert queries.shape == (3, query_features(12))
    assert len({tuple(row) for row in queries.tolist()}) == 3


def test_a_torn_cache_file_is_computed_again(folder, tmp_path):
    encoder = make(folder, cache=tmp_path)
    before = encoder.encode(["liver"])
    (stored,) = tmp_path.glob("*/*.pt")
    stored.write_bytes(stored.read_bytes()[:40])
    assert torch.equal(make(folder, cache=tmp_path).encode(["liver"]), before)


def test_a_cache_that_cannot_be_written_is_no_failure(folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert make(folder, cache=blocked).encode(["liver"]).shape == (1, 12)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        make(tmp_path / "nowhere")


def test_without_transformers_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match="transformers") as caught:
        make(folder)
    assert "textseg[text]" in str(caught.value.remedy)
