"""A network with a report in hand is a model for windows like any other."""

from __future__ import annotations

import pytest
import torch
from fakes import TINY_QUERY, noise, tiny_network, tiny_segmenter

from textseg.inference.sliding import segment_windows
from textseg.network.conditioned import Conditioned
from textseg.network.layers import channels_last, channels_last_strides, round_weights
from textseg.network.report_fusion import ReportConfig
from textseg.network.report_tokens import ReportTokens

SIZE = (8, 12, 16)
TOKEN = 10
SMALL = {"token_features": TOKEN, "width": 12, "heads": 2, "hidden": 14, "levels": (0, 1)}
READINGS = {
    "gated": ReportConfig(**SMALL),
    "strip": ReportConfig(fusion="strip", **SMALL),
    "sequential": ReportConfig(fusion="sequential", token_features=TOKEN, size=(2, 3, 4)),
}


def reader(fusion="gated", prompts="late"):
    """A network that reads reports, with gates ajar."""
    network = tiny_segmenter(tiny_network(prompts, report=READINGS[fusion]))
    for name, weight in network.named_parameters():
        if name.endswith("gate"):
            weight.data = 0.1 * noise(*weight.shape, seed=1)
    return network


def report_of(length):
    return ReportTokens.of([noise(length, TOKEN, seed=7)])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("prompts", ["late", "multiscale"])
@pytest.mark.parametrize("fusion", READINGS)
def test_a_conditioned_network_answers_windows_as_the_whole(fusion, prompts, precision):
    network = channels_last(reader(fusion, prompts))
    half = precision == "bfloat16"
    if half:
        round_weights(network, torch.bfloat16)
    report, volume = report_of(4), noise(1, 1, *SIZE)
    model = Conditioned(network, report)
    queries = noise(3, TINY_QUERY, seed=3)
    found = segment_windows(model, volume[0], queries, window=SIZE, precision=precision)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half), torch.no_grad():
        features = network.encode(channels_last_strides(volume), report)
        whole = network.decode(features, queries[None])
    probability = (255 * whole.logits[0].float().sigmoid()).round()
    stored = torch.stack([found.probability[k] for k in range(3)])
    # eight bits round, and half precision has no more to give
    assert (stored.float() - probability).abs().max() <= (3 if half else 1)
    near = {"atol": 1e-2 if half else 1e-6, "rtol": 0}
    torch.testing.assert_close(found.presence, whole.presence[0].float().sigmoid(), **near)
    assert model.activations_per_voxel == network.activations_per_voxel
    assert model.prompts_per_pass == network.prompts_per_pass


def test_one_report_serves_several_windows():
    network, volume, report = reader(), noise(2, 1, *SIZE), report_of(4)
    both = Conditioned(network, report).encode(volume)
    twice = network.encode(volume, ReportTokens(*(torch.cat([part, part]) for part in report)))
    assert torch.equal(both.finest, twice.finest)
