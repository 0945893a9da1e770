"""Starting from another model: what fits comes along, what does not is said."""

from __future__ import annotations

import logging

import pytest
import torch
from fakes import TINY_QUERY, noise, tiny_network, tiny_segmenter, write_model

from textseg.errors import ModelError
from textseg.network.backbones import BackboneConfig
from textseg.network.weights import load_weights
from textseg.training.starting import start_from

QUERIES = noise(1, 3, TINY_QUERY, seed=3)


def segmenter(*, seed, fusion="late", inputs=1, **changes):
    backbone = BackboneConfig(in_channels=inputs, channels=(4, 8, 8), blocks=(1, 1, 1))
    return tiny_segmenter(tiny_network(fusion, backbone=backbone, **changes), seed=seed)


def answers(network, volume):
    with torch.no_grad():
        return network.decode(network.encode(volume), QUERIES)


@pytest.mark.parametrize("fusion", ["late", "multiscale"])
def test_a_network_starts_as_the_other_model_including_its_query_map(tmp_path, fusion):
    other = segmenter(seed=1, fusion=fusion)
    other.whiten(noise(50, TINY_QUERY, seed=2))
    write_model(tmp_path / "other", network=other)
    network = segmenter(seed=7, fusion=fusion)
    report = start_from(network, load_weights(tmp_path / "other").network, least=1.0)
    assert report.complete
    assert report.fraction == 1.0
    assert len(report.lines()) == 1
    assert {"query_mean", "query_whitening", "evidence"} <= set(report.loaded)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name].half().float()), name


def test_tensors_that_do_not_fit_stay_as_they_were_and_are_named():
    other = segmenter(seed=1, full_channels=5, layers=1, text_shortcut=False)
    network = segmenter(seed=7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    other.register_buffer("extra", torch.zeros(3))
    report = start_from(network, other.state_dict(), least=0.1)
    misfits = {m.name: (m.here, m.there) for m in report.mismatched}
    assert misfits["pixel_decoder.stages.1.mix.weight"] == ((6, 4, 3, 3, 3), (5, 4, 3, 3, 3))
    assert {"query_decoder.layers.1.attention.in_proj_weight", "shortcuts.0.weight"} <= set(
        report.missing
    )
    assert report.unused == ("extra",)
    assert report.reshaped == ()
    assert not report.complete
    left = {*misfits, *report.missing}
    assert left | set(report.loaded) == set(before)
    for name, tensor in network.state_dict().items():
        expected = before[name] if name in left else other.state_dict()[name]
        assert torch.equal(tensor, expected), name


def test_the_report_counts_weights_and_has_a_line_for_each_tensor_left_out(caplog):
    network = torch.nn.Linear(3, 4)  # 12 weights and 4
    caplog.set_level(logging.INFO)
    report = start_from(network, {"weight": torch.ones(4, 3), "gain": torch.ones(1)}, least=0.75)
    assert (report.num_loaded, report.num_total) == (12, 16)
    assert report.lines() == [
        "12 of 16 weights (75.0%) start from the other model",
        "missing there: bias",
        "unused: gain",
    ]
    assert [r.getMessage() for r in caplog.records] == report.lines()
    assert {r.levelno for r in caplog.records} == {logging.WARNING}


def test_nothing_to_warn_of_where_everything_fits(caplog):
    caplog.set_level(logging.INFO)
    start_from(segmenter(seed=7), segmenter(seed=1).state_dict())
    assert [r.levelno for r in caplog.records] == [logging.INFO]


def test_too_little_is_refused_and_changes_nothing():
    network = segmenter(seed=7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        start_from(network, segmenter(seed=1, embedding=12).state_dict())
    error = caught.value
    assert error.code == "E402"
    assert "start from the other model; another shape: " in error.cause
    assert error.cause.count("; ") == 4
    assert " more." in error.cause
    assert "`model.init_least`, now 0.9" in error.remedy
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_a_text_encoder_alone_is_refused_in_full():
    with pytest.raises(ModelError, match="0 of 16 weights") as caught:
        start_from(torch.nn.Linear(3, 4), {})
    assert caught.value.cause.endswith("missing there: weight; missing there: bias.")


def test_equal_channels_look_to_the_started_network_as_one_channel_did():
    other = segmenter(seed=1)
    network = segmenter(seed=7, inputs=3)
    report = start_from(network, other.state_dict(), least=1.0)
    (change,) = report.reshaped
    assert (change.here, change.there) == ((4, 3, 3, 3, 3), (4, 1, 3, 3, 3))
    assert report.fraction == 1.0
    assert report.complete
    assert change.name not in report.loaded
    assert f"reshaped: {change.name} from (4, 1, 3, 3, 3) to (4, 3, 3, 3, 3)" in report.lines()
    volume = noise(1, 1, 8, 12, 4)
    found, expected = answers(network, volume.expand(-1, 3, -1, -1, -1)), answers(other, volume)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.presence, expected.presence, rtol=1e-4, atol=1e-5)


def test_one_channel_looks_to_the_started_network_as_equal_channels_did():
    other = segmenter(seed=1, inputs=3)
    network = segmenter(seed=7)
    assert len(start_from(network, other.state_dict()).reshaped) == 1
    volume = noise(1, 1, 8, 12, 4)
    found, expected = answers(network, volume), answers(other, volume.expand(-1, 3, -1, -1, -1))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_two_channels_do_not_become_three():
    report = start_from(
        segmenter(seed=7, inputs=3), segmenter(seed=1, inputs=2).state_dict(), least=0.5
    )
    assert [m.name for m in report.mismatched] == ["backbone.stages.0.0.0.weight"]
    assert report.reshaped == ()
