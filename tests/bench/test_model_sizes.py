"""The benchmark of sizes: what is widened, what is kept, and how it is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fakes import tiny_segmenter

from tests.bench import model_sizes, tables
from tests.bench.measuring import recorded
from textseg.network.config import NetworkConfig


@pytest.mark.parametrize("width", model_sizes.WIDTHS.values())
def test_every_width_is_a_network_of_its_own(width):
    plain = model_sizes.config_of(1.0, epochs=3)
    config = model_sizes.config_of(width, epochs=3)
    network, as_it_is = (
        NetworkConfig.model_validate(each["model"]["network"]) for each in (config, plain)
    )
    assert network.full_channels == width * as_it_is.full_channels
    widths = zip(network.backbone.channels, as_it_is.backbone.channels, strict=True)
    assert [ours / theirs for ours, theirs in widths] == [1, width, width, width, width]
    assert network.embedding == as_it_is.embedding
    # the same batches for as many steps
    assert config["data"] == plain["data"]
    assert config["trainer"] == plain["trainer"]
    assert config["trainer"]["max_epochs"] == 3


def test_a_run_that_is_there_is_not_run_again(tmp_path, monkeypatch):
    ran = []

    def fit(words):
        ran.append(words)
        network = SimpleNamespace(parameters=lambda: [torch.zeros(4, 2), torch.zeros(3)])
        metrics = {"val/dice": torch.tensor(0.25)}
        trainer = SimpleNamespace(callback_metrics=metrics)
        return SimpleNamespace(model=SimpleNamespace(network=network), trainer=trainer)

    monkeypatch.setattr(model_sizes, "fit", fit)
    config = model_sizes.config_of(0.5, epochs=2)
    for _ in range(2):
        found = model_sizes.train(tmp_path / "0.5.pt", tmp_path / "cases.json", config)
    assert len(ran) == 1
    assert f"--data.cases={tmp_path / 'cases.json'}" in ran[0]
    assert (found["dice"], found["weights"]) == (0.25, 11)
    assert found["step_s"] > 0


def test_networks_are_timed_in_turn(monkeypatch):
    monkeypatch.setattr(model_sizes, "SCAN", (16, 16, 16))
    monkeypatch.setattr(model_sizes, "WINDOW", (16, 16, 16))
    networks = {name: tiny_segmenter(seed=seed) for seed, name in enumerate("ab")}
    seconds = model_sizes.scan_seconds(networks)
    assert list(seconds) == ["a", "b"]
    assert min(seconds.values()) > 0


def test_the_table_tells_sizes_in_the_order_measured(tmp_path):
    record = tmp_path / "sizes.csv"
    row = dict.fromkeys(tables.SIZES_COLUMNS, "0.5")
    list(recorded([{**row, "size": "b"}, {**row, "size": "a"}], record, tables.SIZES_COLUMNS))
    head, _, *lines = tables.sizes_table(record).splitlines()
    assert head.endswith("| Dice |")
    assert [line.split(" | ")[0] for line in lines] == ["| b", "| a"]
