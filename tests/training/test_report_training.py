"""Training on scans of several channels with reports, from files on disk to a model that runs."""

from __future__ import annotations

import dataclasses
import json

import muted
import numpy as np
import pytest
import torch
import yaml
from fakes import (
    CLEAN,
    STILL,
    seeded,
    tiny_encoder,
    tiny_segmenter,
    write_model,
)

from tests.training.reported import (
    CHANNELS,
    REPORTS,
    SHAPE,
    WORDS,
    domain,
    network,
    write_textbrats,
)
from textseg.datasets import find_cases, load_cases, load_registry
from textseg.datasets.prepare import PrepareConfig, prepare
from textseg.datasets.spec import DatasetSpec
from textseg.errors import ModelError
from textseg.network.report_encoder import ReportEncoderConfig, make_report_encoder
from textseg.network.report_tokens import ReportTokens
from textseg.segmenter import Segmenter
from textseg.training import datamodule
from textseg.training.adaptation import AdaptationConfig
from textseg.training.checkpoint import LAST
from textseg.training.cli import fit
from textseg.training.conditions import encode_report
from textseg.training.datamodule import MixtureDataModule, held_out, validation_cases
from textseg.training.export import export_model
from textseg.training.sampling import MixtureDataset
from textseg.training.segmentation_task import SegmentationTask
from textseg.training.validation import answer_case

pytestmark = muted.TRAINING


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """The data set as it is handed out, prepared, and a model whose text encoder asks."""
    root = tmp_path_factory.mktemp("reports")
    write_textbrats(root)
    facts = load_registry()["textbrats"].model_dump(exclude={"layout", "name"})
    layout = {"kind": "textbrats", "channels": list(CHANNELS)}
    spec = DatasetSpec(name="two", layout=layout, **{**facts, "shares_scans_with": ()})
    prepare(
        find_cases(spec, root), root / "prepared", specs=[spec], config=PrepareConfig(crop=False)
    )
    write_model(root / "words")
    return root


def make_data(folder, *domains, report_encoder=WORDS):
    data = MixtureDataModule(
        folder / "prepared" / "cases.json",
        list(domains) or [domain(validation=["two"])],
        encoder=str(folder / "words"),
        steps=2,
        workers=0,
        report_encoder=report_encoder,
    )
    data.setup("fit")
    return data


@pytest.fixture(scope="module", name="data")
def _data(folder):
    return make_data(folder)


def write_config(folder, run, **model):
    kind = "textseg.training.checkpoint.ResumableCheckpoint"
    settings = dataclasses.asdict(domain(validation=["two"], channel_dropout=0.3))
    config = {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "default_root_dir": str(run.parent),
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
            "callbacks": [{"class_path": kind, "init_args": {"folder": str(run)}}],
        },
        "model": {"network": json.loads(network().model_dump_json()), **model},
        "data": {
            "cases": str(folder / "prepared" / "cases.json"),
            "encoder": str(folder / "words"),
            "steps": 2,
            "workers": 0,
            "report_encoder": WORDS.model_dump(),
            "domains": [{**settings, "window": list(settings["window"])}],
        },
    }
    path = run.parent / "config.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    return path


def test_a_model_trained_on_the_layout_of_textbrats_reads_channels_and_reports(folder, tmp_path):
    run = fit(["-c", str(write_config(folder, tmp_path / "run"))])
    assert run.trainer.global_step == 2
    assert 0 <= float(run.trainer.callback_metrics["val/tumor"]) <= 1
    data = run.datamodule
    manifest = export_model(
        tmp_path / "run" / LAST,
        tmp_path / "toy",
        network=network(),
        adaptation=AdaptationConfig(),
        spaces=[(data.domains[0], data.labels[0].space)],
        encoder=tiny_encoder(),
        report_encoder=data.report_encoder,
        name="toy",
        version="0.0.1",
        licence="CC0-1.0",
    )
    assert manifest.channels == CHANNELS
    assert ReportEncoderConfig.model_validate(manifest.report_encoder) == WORDS
    scan = {channel: folder / f"c/c_{channel}.nii.gz" for channel in CHANNELS}
    prompts = ["brain tumor", "tumor core", "enhancing tumor"]
    result = Segmenter.from_pretrained(tmp_path / "toy", device="cpu")(
        scan, prompts, report=REPORTS["c"]
    )
    assert {result[prompt].status for prompt in prompts} <= {"ok", "not_found"}
    assert {result[prompt].mask.shape for prompt in prompts} == {SHAPE}
    assert result["tumor core"].resolution.concepts == ("brain_tumor.core",)


def test_the_nested_regions_are_trained_as_prompts_of_their_own(data):
    concepts = data.labels[0].space.concepts
    assert {"brain_tumor", "brain_tumor.core", "brain_tumor.enhancing"} <= set(concepts)
    row = {concept: data.labels[0].membership[k] for k, concept in enumerate(concepts)}
    inner = row["brain_tumor.enhancing"] <= row["brain_tumor.core"]
    assert (inner & (row["brain_tumor.core"] <= row["brain_tumor"])).all()


def test_a_case_list_of_files_gives_the_batches_of_the_prepared_one(folder, tmp_path):
    """No store is needed to train: a list with channels and a report text will do."""
    (folder / "datasets").mkdir(exist_ok=True)
    spec = (folder / "prepared/datasets/two.yaml").read_bytes()
    (folder / "datasets/two.yaml").write_bytes(spec)
    entries = [
        {
            "id": name,
            "dataset": "two",
            "split": "train" if name != "c" else "val",
            "modality": "MR",
            "channels": {channel: f"{name}/{name}_{channel}.nii.gz" for channel in CHANNELS},
            "label": f"{name}/{name}_seg.nii.gz",
            "labels": {"1": "", "2": "", "4": ""},
            "report": text,
        }
        for name, text in REPORTS.items()
    ]
    (folder / "cases.json").write_text(json.dumps(entries))
    other_order = domain(channels=["t1ce", "flair"])
    listed = MixtureDataModule(
        folder / "cases.json", [other_order], encoder=str(folder / "words"), report_encoder=WORDS
    )
    listed.setup("fit")
    stored = make_data(folder, other_order)
    for number in range(4):
        one, other = (
            MixtureDataset(data._samplers, seed=0, start=0, length=4)[number]
            for data in (listed, stored)
        )
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.report.tokens, other.report.tokens)
        torch.testing.assert_close(one.image, other.image, rtol=0, atol=2e-3)


def test_reports_of_a_batch_are_the_tokens_of_their_texts(data):
    encoder = make_report_encoder(WORDS)
    right = "Mass in the right frontal lobe."
    known = [encoder.tokens([text]) for text in (*REPORTS.values(), right)]
    mirrored = 0
    dataset = MixtureDataset(data._samplers, seed=0, start=0, length=20)
    for batch in (dataset[number] for number in range(20)):
        (tokens,), (mask,) = batch.report
        (text,) = [k for k, t in enumerate(known) if torch.equal(t, tokens[mask])] or [None]
        mirrored += text == 3
    assert mirrored  # case a, whose report says left


def test_losses_reach_the_stand_ins_and_the_fusion(data):
    task = seeded(lambda: SegmentationTask(network()))
    task.set_domains(data.prompts)
    batch = MixtureDataset(data._samplers, seed=0, start=0, length=1)[0]
    image = batch.image.clone()
    image[:, 1] = torch.nan
    losses = task.losses(batch._replace(image=image))
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    first, second = task.network.stand_ins.grad.tolist()
    assert first == 0
    assert second != 0
    gradients = [p.grad for p in task.network.report_fusion.parameters() if p.grad is not None]
    assert any(bool(g.abs().max() > 0) for g in gradients)


def test_without_reports_the_losses_are_those_of_reports_that_say_nothing(data):
    task = seeded(lambda: SegmentationTask(network()))
    for parameter in task.network.report_fusion.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    task.set_domains(data.prompts)
    batch = MixtureDataset(data._samplers, seed=0, start=0, length=1)[0]
    silent = ReportTokens.of([torch.zeros(0, 16)])
    unheard = batch.told._replace(report=silent)
    told, none, nothing = (
        task.losses(batch._replace(report=report, told=also))
        for report, also in ((batch.report, batch.told), (None, None), (silent, unheard))
    )
    assert nothing.pop("place") == 0
    assert none == nothing
    assert none.keys() < told.keys()
    assert all(told[name] != loss for name, loss in none.items())


def test_a_scan_is_scored_with_its_report_and_a_stand_in_for_what_it_lacks(folder, data):
    (case,) = data.validation
    assert (case.id, case.image.shape[0]) == ("c", 2)
    expected = make_report_encoder(WORDS).tokens([REPORTS["c"]])
    assert torch.equal(case.report.tokens[0], expected)
    model = tiny_segmenter(network())
    for parameter in model.report_fusion.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    torch.nn.init.constant_(model.stand_ins, 0.5)
    queries = data.prompts[0].queries["mr"]

    def presences(**changes):
        changed = dataclasses.replace(case, **changes)
        answers = answer_case(model, changed, queries, window=(16, 16, 12))
        return [answer.presence for _, answer in answers]

    assert presences() != presences(report=None)
    lacking, filled = case.image.clone(), case.image.clone()
    lacking[1], filled[1] = torch.nan, 0.5
    assert presences(image=lacking) == presences(image=filled)
    assert presences(image=lacking) != presences()


def test_a_scan_that_lacks_a_channel_is_loaded_without_it(folder):
    (case,) = (c for c in load_cases(folder / "prepared/cases.json") if c.id == "c")
    more = make_data(folder, domain(channels=["t2", "T1ce", "flair"], validation=["two"]))
    image = more.validation[0].image
    assert image[0].isnan().all()
    whole = make_data(folder, domain(validation=["two"])).validation[0].image
    assert torch.equal(image[1:], whole.flip(0))
    assert more.validation[0].id == case.id


def test_a_domain_and_its_scans_agree_on_channels(folder):
    with pytest.raises(ModelError, match=r"E404.*'a' has flair, t1ce; its domain takes a single"):
        make_data(folder, domain(channels=[]))
    with pytest.raises(ModelError, match=r"E404.*has flair, t1ce; its domain takes t1, t2"):
        make_data(folder, domain(channels=["t1", "t2"]))


def test_features_are_taken_where_features_are_read(folder, tmp_path):
    case = next(c for c in load_cases(folder / "prepared/cases.json") if c.id == "a")
    features = np.random.default_rng(0).normal(size=(1, 5, 16)).astype(np.float32)
    np.save(tmp_path / "a.npy", features)
    given = dataclasses.replace(case, report=tmp_path / "a.npy")
    precomputed = make_report_encoder(ReportEncoderConfig(kind="features", features=16))
    report = encode_report(given, precomputed)
    np.testing.assert_array_equal(report.tokens.numpy(), features[0])
    assert report.mirrored is None
    with pytest.raises(ModelError, match=r"E404.*a\.npy.*given as features"):
        encode_report(given, make_report_encoder(WORDS))
    with pytest.raises(ModelError, match=r"E404.*'a' is a text"):
        encode_report(case, precomputed)
    assert encode_report(given, None) is None


def test_cases_for_tests_are_scored_after_training_alone(folder):
    cases = load_cases(folder / "prepared/cases.json")
    both = domain(validation=["two"], test=["two"])
    # no case is for tests: those for validation stand in
    assert [case.id for case in datamodule.test_cases(both, cases)] == ["c"]
    split = [dataclasses.replace(c, split="test") if c.id == "b" else c for c in cases]
    assert [case.id for case in datamodule.test_cases(both, split)] == ["b"]
    assert [case.id for case in validation_cases(both, split)] == ["c"]
    assert held_out(both, split) == frozenset()


def test_the_channels_of_a_crop_are_cut_from_one_place(folder):
    """So that their tumors coincide."""
    still = domain(geometry=STILL, quality=CLEAN, mirror=0.0, foreground=1.0, jitter=0.0)
    data = make_data(folder, still)
    batch = MixtureDataset(data._samplers, seed=1, start=0, length=1)[0]
    flair, t1ce = batch.image[0]
    inside = batch.labels[0] > 0
    assert inside.any()
    for channel in (flair, t1ce):
        assert float(channel[inside].mean()) > float(channel[~inside].mean()) + 0.5
