"""Every configuration is accepted by the parser that will read it, and its data are credited."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fakes import TINY_QUERY, case_entry, tiny_sat_encoder, write_model, write_nifti
from fakes import one_thread as one_thread

from textseg.datasets import load_registry, registered
from textseg.knowledge import load_tree
from textseg.training import cli

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / "configs"
FINETUNE = sorted((FOLDER / "finetune").glob("*.yaml"))
REPORT = sorted((FOLDER / "report").glob("*.yaml"))
TRAIN = [*sorted((FOLDER / "train").glob("*.yaml")), *FINETUNE, *REPORT]
DATA = sorted((FOLDER / "data").glob("*.yaml"))
MODEL = sorted((FOLDER / "model").glob("*.yaml"))
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
    assert set(FOLDER.rglob("*.y*ml")) == {*TRAIN, *PRETRAIN, *DATA, *MODEL}


def test_the_72_data_sets_are_all_in_the_mixture_and_no_other():
    (path,) = DATA
    domains = yaml.safe_load(path.read_text(encoding="utf-8"))["domains"]
    mixed = [name for domain in domains for name in domain["datasets"]]
    registry = registered(load_registry())
    assert sorted(mixed) == sorted(registry)
    for domain in domains:
        assert {tuple(registry[name].modalities) for name in domain["datasets"]} == {
            (domain["modality"],)
        }


def test_a_configuration_that_ships_goes_by_its_name(tmp_path, monkeypatch):
    assert cli.find_config("finetune/sat-nano") == FOLDER / "finetune/sat-nano.yaml"
    assert cli.config_arguments(["-c", "nano", "--x=1"]) == [
        "-c",
        str(FOLDER / "train/nano.yaml"),
        "--x=1",
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").touch()
    assert cli.config_arguments(["-c", "nano"]) == ["-c", "nano"]
    assert cli.config_arguments(["--init-from", "nano", "--y"]) == ["--model.init_from=nano", "--y"]


@named(TRAIN)
def test_fit_accepts_the_configuration_and_keeps_its_values(path, capsys):
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    parsed = printed_by(cli.fit, ["-c", str(path)], capsys)
    assert parsed["trainer"]["max_epochs"] == written["trainer"]["max_epochs"]
    assert [d["name"] for d in parsed["data"]["domains"]] == [d["name"] for d in domains_of(path)]


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


SMALL = {"unet": (4, 4, 6, 6, 8, 8), "residual_unet": (4, 6, 6, 8, 8, 8)}
"""Widths of a network that has as many stages as any configuration's."""


def shrunk(network):
    """The network with the same parts, as small as they go."""
    backbone = dict(network["backbone"])
    count = len(backbone["channels"])
    if backbone["kind"] == "swin":
        backbone["channels"] = [4, *(24 * 2**level for level in range(count - 1))]
        backbone["blocks"] = [1] * count
    else:
        backbone["channels"] = list(SMALL[backbone["kind"]][:count])
        backbone["blocks"] = [min(1, blocks) for blocks in backbone["blocks"]]
        if not backbone["blocks"][0]:
            backbone["channels"][0] = backbone.get("in_channels", 1)
    sizes = {
        "full_channels": 6,
        "half_channels": min(2, network.get("half_channels", 0)),
        "embedding": 18,
        "layers": 1,
        "heads": 3,
        "hidden": 12,
    }
    asked_as_they_are = not network["query_projection"]
    report = network.get("report")
    report = report and {**report, "width": 12, "heads": 2, "hidden": 12}
    if report and report["size"]:
        report["size"] = [2, 1, 1]
    return {
        **network,
        **sizes,
        "report": report,
        "prompt_maps": 2,
        "least_channels": 0,
        "query_features": sizes["embedding"] if asked_as_they_are else TINY_QUERY,
        "token_hidden": network["token_hidden"] and 12,
        "mask_hidden": [10] * len(network["mask_hidden"]),
        "backbone": backbone,
    }


def with_report(entry, channels, folder, features):
    """The entry of a scan with channels and a report, or the file of its features."""
    if features is None:
        report = "A mass in the left frontal lobe. No edema."
    else:
        np.save(folder / "report.npy", np.zeros((1, 5, features), np.float32))
        report = f"{folder.name}/report.npy"
    image = entry.pop("image")
    return {**entry, "image": None, "channels": dict.fromkeys(channels, image), "report": report}


def phantom_cases(folder, domains, *, features=None):
    """A case list with one tiny scan of the first two data sets of every domain.

    Those of domains with channels have a report, or its features if a length of them is given.
    """
    registry = load_registry()
    for domain in domains:
        domain["datasets"] = domain["datasets"][:2]
    names = {name: domain for domain in domains for name in domain["datasets"]}
    entries = []
    for name, domain in names.items():
        spec = registry[name]
        concepts = [ids for ids in spec.labels.values() if ids][:3]
        labels = np.zeros((34, 36, 33), np.int16)
        for value in range(1, len(concepts) + 1):
            labels[8 * value : 8 * value + 7, 5:30, 6:28] = value
        image = np.random.default_rng(0).normal(0, 20, labels.shape).astype(np.float32)
        write_nifti(folder / name / "labels.nii.gz", labels, (3.0, 3.0, 3.0))
        write_nifti(folder / name / "image.nii.gz", image + 90 * labels, (3.0, 3.0, 3.0))
        for split in ("train", "val"):
            entry = case_entry(
                f"{name}-{split}",
                name,
                domain["modality"].upper(),
                split,
                image="image.nii.gz",
                label="labels.nii.gz",
            )
            if domain["channels"]:
                entry = with_report(entry, domain["channels"], folder / name, features)
            meanings = {str(v): list(ids) for v, ids in enumerate(concepts, start=1)}
            entries.append({**entry, "dataset": name, "concepts": meanings})
    (folder / "cases.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder / "cases.json"


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "paths",
    [*([path] for path in TRAIN), *([FOLDER / "train/finetune.yaml", path] for path in MODEL)],
    ids=lambda paths: "+".join(path.stem for path in paths),
)
def test_a_configuration_trains_on_generated_data(paths, tmp_path, capsys):
    config = printed_by(cli.fit, [word for path in paths for word in ("-c", str(path))], capsys)
    stride = 2 ** (len(config["model"]["network"]["backbone"]["channels"]) - 1)
    config["model"]["network"] = shrunk(config["model"]["network"])
    config["model"]["init_from"] = None
    config["model"]["losses"] = {**(config["model"]["losses"] or {}), "block": 8}
    for domain in config["data"]["domains"]:
        # instance normalisation needs more than one voxel at the coarsest level
        domain |= {"window": [2 * stride, stride, stride], "batch": 1, "spacing_mm": 3.0}
        domain |= {"validation": [], "test": [], "hold_out_every": 0}
    network = config["model"]["network"]
    encoder = None if network["query_projection"] else tiny_sat_encoder(network["embedding"])
    write_model(tmp_path / "words", encoder=encoder)
    reading = config["data"]["report_encoder"] or {}
    features = reading["features"] if reading.get("kind") == "features" else None
    config["data"] |= {
        "cases": str(phantom_cases(tmp_path, config["data"]["domains"], features=features)),
        "encoder": str(tmp_path / "words"),
        "steps": 2,
        "workers": 0,
    }
    config["trainer"] |= {
        "accelerator": "cpu",
        "devices": 1,
        "precision": "32-true",
        "max_epochs": 1,
        "logger": False,
        "log_every_n_steps": 1,
        "callbacks": None,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(tmp_path),
    }
    written = tmp_path / "small.yaml"
    written.write_text(yaml.safe_dump(config), encoding="utf-8")
    done = cli.fit(["-c", str(written)])
    assert done.trainer.global_step == 2
    assert torch.isfinite(done.trainer.callback_metrics["loss"])


def domains_of(path):
    """The domains of a configuration, which may stand in a file of their own."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]
    if isinstance(data, str):
        data = yaml.safe_load((path.parent / data).read_text(encoding="utf-8"))
    return data["domains"]


@named(TRAIN)
def test_domains_name_registered_data_sets_and_known_concepts(path):
    registry = load_registry()
    domains = domains_of(path)
    datasets = {dataset for domain in domains for dataset in domain["datasets"]}
    skipped = {concept for domain in domains for concept in domain.get("skip", [])}
    assert datasets <= set(registry)
    assert {concept for concept in skipped if concept not in load_tree()} == set()
    shares = [domain.get("share") for domain in domains]
    assert shares == [None] * len(domains) or sum(shares) == pytest.approx(1)


@named([path for path in TRAIN if path.stem == "nano"])
def test_the_notice_credits_the_data_the_embedded_weights_learned_from(path):
    registry = load_registry()
    notice = " ".join((CHECKOUT / "NOTICE").read_text(encoding="utf-8").split())
    domains = domains_of(path)
    missing = [
        dataset
        for domain in domains
        for dataset in domain["datasets"]
        if registry[dataset].citation not in notice
    ]
    assert missing == []
