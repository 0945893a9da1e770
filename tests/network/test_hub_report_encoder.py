"""A transformer reads reports of any length, and what it reads is what it would read alone."""

from __future__ import annotations

import sys

import pytest
import torch
from fakes import seeded, write_bert
from hypothesis import given, settings
from hypothesis import strategies as st

from textseg.errors import ModelError
from textseg.network.hub_report_encoder import HubReportEncoder
from textseg.network.report_encoder import ReportEncoderConfig, make_report_encoder

transformers = pytest.importorskip(
    "transformers", reason='transformer encoders need pip install "textseg[text]"'
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "left", "right", "mass", "no", "edema"]
WORDS += ["in", "the", "lobe", "a", "##a"]
POSITIONS = 12
ROOM = POSITIONS - 2


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """A BERT of a few thousand random weights that takes twelve tokens at once."""
    return write_bert(tmp_path_factory.mktemp("bert"), WORDS, max_position_embeddings=POSITIONS)


@pytest.fixture(scope="module", name="encoder")
def _encoder(folder):
    return make_report_encoder(ReportEncoderConfig(kind="hub", model=str(folder)))


def states(folder, text):
    """What the model itself makes of a text, without the tokens at both ends."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return model(**tokens).last_hidden_state[0, 1:-1]


def test_tokens_are_the_last_states_without_the_special_ones(encoder, folder):
    tokens = encoder.tokens(["Left mass.", "No edema."])
    assert tokens.shape == (6, encoder.features) == (6, 12)
    assert tokens.dtype == torch.float32
    assert not tokens.requires_grad
    torch.testing.assert_close(tokens, states(folder, "Left mass. No edema."))


def test_no_sentences_make_no_tokens(encoder):
    assert encoder.tokens([]).shape == encoder.tokens(["", " "]).shape == (0, 12)


def test_a_long_report_is_read_in_windows_of_whole_sentences(encoder, folder):
    report = ["Left mass in the lobe.", "No edema.", "No mass in the right lobe.", "No mass."]
    windows = ["Left mass in the lobe. No edema.", "No mass in the right lobe. No mass."]
    assert encoder.windows(report) == windows
    wanted = torch.cat([states(folder, window) for window in windows])
    torch.testing.assert_close(encoder.tokens(report), wanted)


def test_a_sentence_too_long_is_cut_between_words(encoder, folder):
    words = [WORDS[6 + n % 4] for n in range(23)]
    windows = encoder.windows([" ".join(words), "No edema."])
    assert " ".join(windows).split() == [*words, "No", "edema."]
    assert all(len(states(folder, window)) <= ROOM for window in windows)
    assert len(encoder.tokens([" ".join(words)])) == 23


def test_a_word_too_long_is_cut_as_well(encoder):
    assert "".join(encoder.windows(["a" * 35])) == "a" * 35
    assert len(encoder.tokens(["a" * 35])) == 35


@settings(max_examples=25)
@given(
    report=st.lists(
        st.lists(st.sampled_from(WORDS[6:14]), min_size=1, max_size=25).map(" ".join), max_size=6
    )
)
def test_nothing_is_lost_and_no_window_is_too_long(encoder, report):
    windows = encoder.windows(report)
    assert " ".join(windows).split() == " ".join(report).split()
    assert all(len(window.split()) <= ROOM for window in windows)
    assert len(encoder.tokens(report)) == sum(len(sentence.split()) for sentence in report)


def test_the_limit_of_the_tokenizer_counts_if_it_is_lower(folder, tmp_path):
    model = transformers.AutoModel.from_pretrained(folder)
    model.save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=5)
    tokenizer.save_pretrained(tmp_path)
    encoder = HubReportEncoder(ReportEncoderConfig(kind="hub", model=str(tmp_path)))
    assert encoder.windows(["left mass in the lobe"]) == ["left mass", "in the lobe"]


def test_a_model_without_room_for_text_is_refused(folder, tmp_path):
    transformers.AutoModel.from_pretrained(folder).save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=2)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="only 2 tokens"):
        HubReportEncoder(ReportEncoderConfig(kind="hub", model=str(tmp_path)))


def test_roberta_counts_positions_from_behind_its_padding(folder, tmp_path):
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    config = transformers.RobertaConfig(
        vocab_size=len(WORDS),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        type_vocab_size=2,
    )
    seeded(lambda: transformers.RobertaModel(config)).save_pretrained(tmp_path)
    encoder = HubReportEncoder(ReportEncoderConfig(kind="hub", model=str(tmp_path)))
    assert encoder.window == POSITIONS - 1
    assert encoder.tokens(["left mass " * 20]).shape == (40, 12)


def test_the_configuration_carries_the_width_and_makes_the_same_encoder_again(encoder):
    assert encoder.config.features == 12
    again = make_report_encoder(ReportEncoderConfig(**encoder.config.model_dump()))
    assert torch.equal(again.tokens(["Left mass."]), encoder.tokens(["Left mass."]))


def test_a_width_of_none_as_from_a_file_takes_the_model_s(folder):
    config = ReportEncoderConfig(kind="hub", model=str(folder), features=None)
    assert make_report_encoder(config).config.features == 12


def test_another_width_than_the_model_has_is_refused(folder):
    with pytest.raises(ModelError, match="12 features, not 128"):
        make_report_encoder(ReportEncoderConfig(kind="hub", model=str(folder), features=128))


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere") as caught:
        make_report_encoder(ReportEncoderConfig(kind="hub", model=str(tmp_path / "nowhere")))
    assert caught.value.code == "E401"


def test_without_transformers_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match="transformers") as caught:
        make_report_encoder(ReportEncoderConfig(kind="hub", model=str(folder)))
    assert caught.value.code == "E403"
    assert "textseg[text]" in str(caught.value.remedy)
