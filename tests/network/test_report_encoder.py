"""Words as fixed vectors, the same everywhere, and features from files that are what they say."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from textseg.errors import InputError
from textseg.network.report_encoder import (
    PrecomputedReports,
    ReportEncoderConfig,
    WordReportEncoder,
    load_report_features,
    make_report_encoder,
)
from textseg.network.word_vectors import word_vector

PROGRAM = """
import hashlib
from textseg.network.word_vectors import word_vector
print(hashlib.sha256(word_vector("mass", 128).astype("<f4").tobytes()).hexdigest())
"""
# networks are trained on these vectors, so they must never change
DIGEST = "7119e2b224a250cbb4cf479f933463b1a4a94302d380a9ff80f8efe116d1c078"
WORDS = (
    "left frontal parietal temporal occipital lobe mass lesion edema necrosis ventricle midline "
    "shift signal bright dark no there is with moderate severe insula thalamus small large 12 3.2"
)


def cosine(one, other, features=128):
    return float(word_vector(one, features) @ word_vector(other, features))


def tokens_of(*sentences, features=128):
    return WordReportEncoder(ReportEncoderConfig(features=features)).tokens(sentences)


def test_tokens_are_those_that_networks_were_trained_on():
    tokens = tokens_of("Left tumour of 3.2 cm.", "No oedema.")
    assert hashlib.sha256(tokens.numpy().astype("<f4").tobytes()).hexdigest() == DIGEST


def test_vectors_are_the_same_in_every_process():
    run = [sys.executable, "-c", PROGRAM]
    digests = {
        subprocess.check_output(run, env={**os.environ, "PYTHONHASHSEED": seed}) for seed in "01"
    }
    here = hashlib.sha256(word_vector("mass", 128).astype("<f4").tobytes()).hexdigest()
    assert digests == {f"{here}{os.linesep}".encode()}


def test_a_vector_is_the_sum_of_the_signs_of_the_word_and_its_parts():
    def signs(piece):
        bits = int.from_bytes(hashlib.shake_256(piece.encode()).digest(2), "big")
        return [1 if bits >> place & 1 else -1 for place in reversed(range(16))]

    parts = ["#<no", "#no>", "#<no>"]
    total = 2 * np.array(signs("no")) + np.sum([signs(part) for part in parts], axis=0)
    np.testing.assert_allclose(word_vector("no", 16), total / np.sqrt((total**2).sum()), rtol=1e-6)


@given(word=st.text(min_size=1, max_size=12), features=st.integers(8, 140))
def test_every_word_has_a_unit_vector(word, features):
    vector = word_vector(word, features)
    assert vector.shape == (features,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("edema", "oedema"),
        ("lesion", "lesions"),
        ("hemorrhage", "hemorrhagic"),
        ("tumor", "tumors"),
    ],
)
def test_words_spelled_alike_are_near(one, other):
    assert cosine(one, other) > 0.4


@pytest.mark.parametrize(
    ("british", "american"),
    [("Oedema", "edema"), ("Tumour", "tumor"), ("haemorrhages", "hemorrhages"), ("grey", "Gray")],
)
def test_british_and_american_spelling_have_the_same_tokens(british, american):
    assert torch.equal(tokens_of(british), tokens_of(american))


def test_different_words_are_nearly_at_right_angles():
    # the scalar product of two random unit vectors of 128 features has a deviation of 0.09
    found = [abs(cosine(*pair)) for pair in itertools.combinations(WORDS.split(), 2)]
    assert max(found) < 0.4
    assert np.mean(found) < 0.1


@pytest.mark.parametrize("features", [8, 13, 128])
def test_left_and_right_are_opposite(features):
    assert cosine("left", "right", features) == pytest.approx(-1, abs=1e-6)
    assert torch.equal(
        tokens_of("Right-sided, rightward, Rt.")[[0, 2, 4]], tokens_of("right right right")
    )


def test_a_token_a_word_and_a_marker_between_sentences():
    tokens = tokens_of("Left mass, 3.2x4 cm.", "...", "No edema!")
    assert tokens.shape == (6 + 1 + 2, 128)
    assert torch.equal(tokens[0], tokens_of("left")[0])
    assert torch.equal(tokens[2], tokens_of("3.2")[0])
    assert torch.equal(tokens[-2:], tokens_of("no edema"))
    assert max(float(tokens[6] @ tokens[n]) for n in (0, 1, 2, 3, 4, 5, 7, 8)) < 0.5
    assert not tokens.requires_grad


def test_no_words_make_no_tokens():
    for sentences in ([], [""], ["---", "?"]):
        assert tokens_of(*sentences, features=24).shape == (0, 24)


def test_tokens_may_be_written_to_without_harm():
    before = tokens_of("mass").clone()
    tokens_of("mass").fill_(0)
    assert torch.equal(tokens_of("mass"), before)


def test_the_configuration_makes_the_same_encoder_again():
    encoder = make_report_encoder(ReportEncoderConfig(features=32))
    again = make_report_encoder(ReportEncoderConfig(**encoder.config.model_dump()))
    assert torch.equal(encoder.tokens(["left mass"]), again.tokens(["left mass"]))
    assert encoder.features == again.features == 32


def test_a_width_that_is_left_out_becomes_that_of_the_encoder():
    left_out = ReportEncoderConfig()
    assert left_out.features is None
    assert make_report_encoder(left_out).config == ReportEncoderConfig(features=128)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "hub"},
        {"model": "bert"},
        {"kind": "features", "features": 768, "revision": "main"},
        {"kind": "features"},
        {"features": 0},
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(ValidationError):
        ReportEncoderConfig(**wrong)


def test_a_model_of_precomputed_features_reads_no_text():
    encoder = make_report_encoder(ReportEncoderConfig(kind="features", features=768))
    assert isinstance(encoder, PrecomputedReports)
    assert encoder.tokens([]).shape == (0, 768)
    with pytest.raises(InputError, match=r"npy file of 768 features"):
        encoder.tokens(["No mass."])


@pytest.mark.parametrize("shape", [(1, 128, 768), (128, 768), (1, 5, 7), (1, 1)])
@pytest.mark.parametrize("kind", ["<f4", ">f8", "<f2"])
def test_published_features_load_as_tokens(tmp_path, shape, kind):
    stored = np.random.default_rng(0).normal(size=shape).astype(kind)
    np.save(tmp_path / "text.npy", stored)
    tokens = load_report_features(tmp_path / "text.npy", features=shape[-1])
    assert tokens.dtype == torch.float32
    np.testing.assert_array_equal(tokens, stored.reshape(shape[-2:]).astype("f4"))


def refused(path, code="E300", **options):
    with pytest.raises(InputError) as caught:
        load_report_features(path, **options)
    assert caught.value.path == path
    assert caught.value.code == code
    return caught.value.cause


@pytest.mark.parametrize("shape", [(2, 5, 7), (5,), (), (1, 1, 5, 7), (0, 7), (1, 5, 0)])
def test_another_shape_is_refused_and_named(tmp_path, shape):
    np.save(tmp_path / "text.npy", np.zeros(shape, np.float32))
    refused(tmp_path / "text.npy")


def test_another_width_is_refused_and_named(tmp_path):
    np.save(tmp_path / "text.npy", np.zeros((1, 5, 7), np.float32))
    assert "5 x 7, not 1 x T x 768" in refused(tmp_path / "text.npy", features=768)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    stored = np.zeros((5, 7))
    stored[3, 2] = value
    np.save(tmp_path / "text.npy", stored)
    assert "not finite" in refused(tmp_path / "text.npy")


@pytest.mark.parametrize(
    "stored", [np.zeros((5, 7), int), np.zeros((5, 7), complex), np.zeros((5, 7), "f4,f4")]
)
def test_other_numbers_are_refused(tmp_path, stored):
    np.save(tmp_path / "text.npy", stored)
    assert "type" in refused(tmp_path / "text.npy")


class Harmful:
    def __reduce__(self):
        return pytest.fail, ("code in the file was run",)


def test_pickled_arrays_are_refused_unread(tmp_path):
    np.save(tmp_path / "text.npy", np.array([[Harmful()]], object), allow_pickle=True)
    refused(tmp_path / "text.npy")


def test_what_is_no_array_is_refused(tmp_path):
    path = tmp_path / "text.npy"
    np.save(path, np.zeros((5, 7)))
    whole = path.read_bytes()
    for content in (b"", b"There is a mass.", whole[:20], whole[:-1]):
        path.write_bytes(content)
        refused(path)
    np.savez(tmp_path / "several.npz", np.zeros((5, 7)))
    refused(tmp_path / "several.npz")
    refused(tmp_path / "nowhere.npy", "E301")
    refused(tmp_path, "E302")
