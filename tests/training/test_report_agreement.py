"""A network that reads reports, its data, the model it starts from and its export agree."""

from __future__ import annotations

import pytest
import torch
from fakes import tiny_encoder, tiny_segmenter, write_model

from tests.training.reported import WORDS, domain, network
from textseg.errors import ModelError
from textseg.network.report_encoder import ReportEncoderConfig
from textseg.training.adaptation import AdaptationConfig
from textseg.training.checkpoint import LAST
from textseg.training.export import export_model
from textseg.training.starting import check_conditions, check_origin


def test_the_network_and_the_data_agree_on_channels_and_reports():
    one, two = domain(), domain(channels=["t1ce", "flair"])
    check_conditions(network(), [one], token_features=16)
    with pytest.raises(ModelError, match=r"E400.*'tumor' has the channels t1ce, flair.*takes the"):
        check_conditions(network(), [one, two], token_features=16)
    with pytest.raises(ModelError, match=r"E400.*tokens of 768 numbers.*tokens of 16 numbers"):
        check_conditions(network(), [one], token_features=768)
    with pytest.raises(ModelError, match=r"E400.*reads no reports"):
        check_conditions(network(report=None), [one], token_features=16)


def test_a_network_that_reads_reports_says_when_there_are_none(caplog):
    check_conditions(network(), [domain()], token_features=None)
    assert "report_encoder is not set" in caplog.text


def test_a_model_to_start_from_means_the_same_channels_and_tokens(tmp_path):
    config = network()
    write_model(
        tmp_path / "origin",
        network=tiny_segmenter(config),
        report_encoder=WORDS.model_dump(mode="json"),
    )
    origin = str(tmp_path / "origin")
    check_origin(config, origin, report_encoder=WORDS)
    with pytest.raises(ModelError, match=r"E400.*takes the channels flair, t1ce, the network"):
        check_origin(network(channels=("t1ce", "flair")), origin, report_encoder=WORDS)
    other = ReportEncoderConfig(kind="features", features=16)
    with pytest.raises(ModelError, match=r"E400.*reads reports by another encoder"):
        check_origin(config, origin, report_encoder=other)


@pytest.mark.parametrize(("stored", "now"), [(16, None), (None, 16), (None, None)])
def test_a_width_that_is_left_out_is_that_of_the_network(tmp_path, stored, now):
    before = ReportEncoderConfig(kind="hub", model="bert", features=stored)
    write_model(
        tmp_path / "origin",
        network=tiny_segmenter(network()),
        report_encoder=before.model_dump(mode="json"),
    )
    origin = str(tmp_path / "origin")
    encoder = before.model_copy(update={"features": now})
    check_origin(network(), origin, report_encoder=encoder)
    with pytest.raises(ModelError, match=r"E400.*by another encoder"):
        check_origin(network(), origin, report_encoder=encoder.model_copy(update={"model": "b"}))


def exported(folder, report_encoder):
    return export_model(
        folder / LAST,
        folder / "toy",
        network=network(),
        adaptation=AdaptationConfig(),
        spaces=[],
        encoder=tiny_encoder(),
        report_encoder=report_encoder,
        name="toy",
        version="0",
        licence="CC0-1.0",
    )


def test_a_report_model_is_exported_with_its_report_encoder_or_not_at_all(tmp_path):
    with pytest.raises(ModelError, match=r"E400.*goes with the report encoder"):
        exported(tmp_path, None)


def test_an_exported_model_states_the_width_of_its_report_encoder(tmp_path):
    state = {f"network.{n}": t for n, t in tiny_segmenter(network()).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / LAST)
    manifest = exported(tmp_path, ReportEncoderConfig(kind="hub", model="bert"))
    assert manifest.report_encoder["features"] == 16
