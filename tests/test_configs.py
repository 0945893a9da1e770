"""Every configuration is accepted by the parser that will read it, and its data are credited."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from textseg.datasets import load_registry
from textseg.knowledge import load_tree
from textseg.training import cli

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / "configs"
TRAIN = sorted((FOLDER / "train").glob("*.yaml"))
PRETRAIN = sorted((FOLDER / "pretrain").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch):
    """LightningCLI warns if pytest's own arguments stand in ``sys.argv``."""
    monkeypatch.setattr(sys, "argv", ["textseg"])


def printed_by(run, arguments, capsys):
    """The configuration as parsed; nothing is built, no data are touched."""
    with pytest.raises(SystemExit) as end:
        run([*arguments, "--print_config"])
    output = capsys.readouterr()
    assert end.value.code == 0, output.err
    return yaml.safe_load(output.out)


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def test_every_yaml_lies_where_a_command_reads_it():
    assert TRAIN
    assert set(FOLDER.rglob("*.y*ml")) == {*TRAIN, *PRETRAIN}


@named(TRAIN)
def test_fit_accepts_the_configuration_and_keeps_its_values(path, capsys):
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    parsed = printed_by(cli.fit, ["-c", str(path)], capsys)
    assert parsed["trainer"]["max_epochs"] == written["trainer"]["max_epochs"]
    assert [d["name"] for d in parsed["data"]["domains"]] == [
        domain["name"] for domain in written["data"]["domains"]
    ]


@named(PRETRAIN)
def test_pretrain_accepts_the_configuration(path, capsys):
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    stage = path.stem.replace("_", "-")
    parsed = printed_by(partial(cli.pretrain, stage), ["-c", str(path)], capsys)
    assert parsed["trainer"]["max_epochs"] == written["trainer"]["max_epochs"]


@named(TRAIN)
def test_what_fit_prints_can_be_given_back_to_it(path, tmp_path, capsys):
    parsed = printed_by(cli.fit, ["-c", str(path)], capsys)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(parsed), encoding="utf-8")
    assert printed_by(cli.fit, ["-c", str(again)], capsys) == parsed


@pytest.mark.parametrize(
    ("argument", "named_in_message"),
    [
        ("--model.network.fusion=early", "fusion"),
        ("--data.stepz=3", "stepz"),
        ("--trainer.max_epochs=many", "max_epochs"),
    ],
)
def test_a_wrong_value_is_refused_by_name(argument, named_in_message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.fit(["-c", str(TRAIN[0]), argument, "--print_config"])
    assert end.value.code == 2
    assert named_in_message in capsys.readouterr().err


@named(TRAIN)
def test_domains_name_registered_data_sets_and_known_concepts(path):
    registry = load_registry()
    domains = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["domains"]
    datasets = {dataset for domain in domains for dataset in domain["datasets"]}
    skipped = {concept for domain in domains for concept in domain.get("skip", [])}
    assert datasets <= set(registry)
    assert {concept for concept in skipped if concept not in load_tree()} == set()
    assert sum(domain.get("share", 1.0) for domain in domains) == pytest.approx(1)


@named(TRAIN)
def test_the_notice_credits_the_data_the_embedded_weights_learned_from(path):
    registry = load_registry()
    notice = " ".join((CHECKOUT / "NOTICE").read_text(encoding="utf-8").split())
    domains = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["domains"]
    missing = [
        dataset
        for domain in domains
        for dataset in domain["datasets"]
        if registry[dataset].citation not in notice
    ]
    assert missing == []
