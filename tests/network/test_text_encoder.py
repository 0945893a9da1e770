"""Texts become unit vectors, the same ones every time."""

from __future__ import annotations

import pytest
import torch
from fakes import TINY_ENCODER, tiny_encoder
from hypothesis import given
from hypothesis import strategies as st

from textseg.network.text_encoder import hashed_pieces

ENCODER = tiny_encoder()


def test_equal_texts_get_equal_vectors_whatever_stands_beside_them():
    together = ENCODER.encode(["liver", "left kidney", "liver"])
    assert torch.equal(together[0], together[2])
    torch.testing.assert_close(ENCODER.encode(["left kidney"])[0], together[1])


def test_different_texts_get_different_vectors():
    liver, spleen, kidney = ENCODER.encode(["liver", "spleen", "kidney"])
    assert max(float(liver @ spleen), float(liver @ kidney), float(spleen @ kidney)) < 0.999


@given(st.text(max_size=30))
def test_every_text_becomes_a_finite_unit_vector(text):
    vector = ENCODER.encode([text])
    assert vector.shape == (1, TINY_ENCODER.features)
    assert float(vector.norm()) == pytest.approx(1, abs=1e-5)


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=5), min_size=1, max_size=4))
def test_case_and_spaces_do_not_matter(words):
    plain = " ".join(words)
    odd = "  " + " \t".join(word.upper() for word in words) + "\n"
    assert hashed_pieces(plain, TINY_ENCODER) == hashed_pieces(odd, TINY_ENCODER)


def test_full_width_and_accented_compositions_are_folded():
    assert hashed_pieces("Ｌｉｖｅｒ", TINY_ENCODER) == hashed_pieces("liver", TINY_ENCODER)
    assert hashed_pieces("sténose", TINY_ENCODER) == hashed_pieces("ste\u0301nose", TINY_ENCODER)


def test_pieces_are_whole_words_thrice_and_their_ngrams():
    pieces = hashed_pieces("rib", TINY_ENCODER)  # <rib> has 3 trigrams, 2 4-grams, 1 5-gram
    assert len(pieces) == 3 + 3 + 2 + 1
    assert set(pieces) <= set(range(TINY_ENCODER.rows))


def test_hashes_do_not_change_between_versions_of_the_program():
    # stored weights are rows under these numbers: another hash would scramble every model
    assert hashed_pieces("rib", TINY_ENCODER)[0] == 0xB2692EAC % 997  # CRC-32 of <rib>


def test_no_text_is_no_vector():
    assert ENCODER.encode([]).shape == (0, TINY_ENCODER.features)


def test_vectors_carry_no_gradient_but_may_enter_a_graph():
    vectors = ENCODER.encode(["liver"])
    assert not vectors.requires_grad
    weight = torch.ones(TINY_ENCODER.features, requires_grad=True)
    (vectors @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, vectors[0])


def test_training_reaches_every_parameter():
    encoder = tiny_encoder()
    encoder(["liver", "left kidney"])[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
