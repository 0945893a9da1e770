"""The benchmark of sizes: what is widened, what is kept, and how it is told."""

from __future__ import annotations

import pytest

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
    # the same batches
    assert config["data"] == plain["data"]
    assert config["trainer"] == plain["trainer"]
    assert config["trainer"]["max_epochs"] == 3


def test_a_model_that_is_there_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(model_sizes, "run", lambda *words: pytest.fail(f"ran {words}"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "scores.json").write_text("{}")
    (tmp_path / "step_s.txt").write_text("1.25")
    trained = model_sizes.train(tmp_path, tmp_path / "cases.json", {})
    assert trained == (tmp_path / "model", 1.25)


def test_a_run_is_trained_exported_and_scored_in_its_folder(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(model_sizes, "run", lambda *words: ran.append(words))
    config = model_sizes.config_of(0.5, epochs=2)
    trained = model_sizes.train(tmp_path / "0.5", tmp_path / "cases.json", config)
    assert [words[0] for words in ran] == ["fit", "export", "card"]
    assert (tmp_path / "0.5" / "config.yaml").read_text().count(str(tmp_path / "0.5")) == 2
    assert trained.model == tmp_path / "0.5" / "model"


def test_the_table_tells_sizes_in_the_order_measured(tmp_path):
    record = tmp_path / "sizes.csv"
    row = dict.fromkeys(tables.SIZES_COLUMNS, "0.5")
    list(recorded([{**row, "size": "b"}, {**row, "size": "a"}], record, tables.SIZES_COLUMNS))
    head, _, *lines = tables.sizes_table(record).splitlines()
    assert "torso CT" in head
    assert [line.split(" | ")[0] for line in lines] == ["| b", "| a"]
