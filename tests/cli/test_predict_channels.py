"""``textseg predict --channel`` and ``--report``: what they mean, what is kept, what is redone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import fakes
import nibabel as nib
import numpy as np
import pytest
import torch

from textseg.cli.job_file import read_jobs
from textseg.cli.jobs import Question
from textseg.network.backbones import BackboneConfig
from textseg.network.report_encoder import ReportEncoderConfig
from textseg.network.report_fusion import ReportConfig
from textseg.network.weights import Domain
from textseg.outputs.manifest import is_complete, read_manifest

SHAPE = (19, 15, 11)
SPACING = (7.0, 6.5, 9.0)
REPORT = "There is a mass in the left thalamus. No edema."


@pytest.fixture(scope="session")
def channel_model(tmp_path_factory):
    """Random weights that read a FLAIR, a T1 and a report, and see every structure everywhere."""
    report = ReportConfig(token_features=12, width=8, heads=2, layers=1, hidden=8, context_layers=1)
    backbone = BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1), in_channels=2)
    network = fakes.tiny_segmenter(
        fakes.tiny_network(backbone=backbone, channels=("flair", "t1"), report=report)
    )
    with torch.no_grad():
        for weight in network.report_fusion.parameters():
            weight += 0.2
    folder = tmp_path_factory.mktemp("models") / "channels"
    head = Domain(
        name="head-mr",
        spacing_mm=(5.0, 5.0, 5.0),
        window=(12, 16, 12),
        modalities=("mr",),
        concepts=("thalamus.left", "thalamus.right"),
    )
    fakes.write_model(
        folder,
        domains=(head,),
        network=network,
        mask_threshold=0.05,
        presence_threshold=0.0,
        report_encoder=ReportEncoderConfig(features=12).model_dump(mode="json"),
    )
    return folder


def test_a_model_shows_its_channels_and_that_it_reads_reports(textseg, channel_model, model):
    said = textseg("models", "show", channel_model).out
    assert ["channels", "flair,", "t1"] in [line.split() for line in said.splitlines()]
    assert ["reports", "reads", "them"] in [line.split() for line in said.splitlines()]
    shown = json.loads(textseg("models", "show", channel_model, "--json").out)
    assert (shown["channels"], shown["reads_reports"]) == (["flair", "t1"], True)
    assert "channels" not in textseg("models", "show", model).out


@pytest.fixture
def predict(textseg, channel_model):
    def run(*arguments):
        return textseg("predict", *arguments, "-m", channel_model, "--precision", "float32")

    return run


@pytest.fixture
def write_channel(tmp_path):
    def write(name, *, seed=0, shape=SHAPE, spacing=SPACING):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = np.random.default_rng(seed).normal(300, 50, shape).astype(np.float32)
        data[:2] = 0
        nib.save(nib.Nifti1Image(data, np.diag([*spacing, 1.0])), path)
        return path

    return write


@pytest.fixture
def channels(write_channel):
    """The arguments that name the two channels of a patient."""
    flair, t1 = write_channel("flair.nii.gz"), write_channel("t1.nii.gz", seed=1)
    return "--channel", f"flair={flair}", "--channel", f"T1w={t1}"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_channels_take_the_place_of_the_input_and_all_words_are_prompts(
    predict, channels, tmp_path
):
    said = predict("left thalamus", "right thalamus", *channels, "-o", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    assert nib.load(tmp_path / "out" / "left_thalamus.nii.gz").shape == SHAPE
    assert (tmp_path / "out" / "right_thalamus.nii.gz").exists()
    manifest = read_manifest(tmp_path / "out")
    assert [(c.name, c.sha256) for c in manifest.run.channels] == [
        ("flair", sha256(tmp_path / "flair.nii.gz")),
        ("t1", sha256(tmp_path / "t1.nii.gz")),
    ]
    assert manifest.input.modality == "mr"


def test_results_go_beside_the_first_channel(predict, channels, tmp_path):
    assert predict("left thalamus", *channels).code == 0
    assert is_complete(tmp_path / "flair_textseg")


def test_one_prompt_may_name_its_file(predict, channels, tmp_path):
    assert predict(*channels, "left thalamus", "-o", tmp_path / "mask.nii.gz").code == 0
    assert is_complete(tmp_path / "mask.json")


def test_a_missing_channel_is_a_warning(predict, channels, tmp_path):
    said = predict("left thalamus", *channels[2:], "-o", tmp_path / "out")
    assert said.code == 0
    assert said.err.startswith(
        "warning: answered without flair; the model's stand-in took its place"
    )
    assert read_manifest(tmp_path / "out").run.channels[1].is_missing


def test_a_report_is_read_and_none_of_its_words_is_kept(predict, channels, tmp_path):
    path = tmp_path / "report.txt"
    path.write_text(REPORT)
    said = predict("left thalamus", *channels, "--report", path, "-o", tmp_path / "file")
    assert (said.code, said.err) == (0, "")
    assert (
        predict("left thalamus", *channels, "--report", REPORT, "-o", tmp_path / "text").code == 0
    )
    manifests = [read_manifest(tmp_path / name) for name in ("file", "text")]
    assert manifests[0].run.report == manifests[1].run.report
    assert manifests[0].run.report.sha256 == hashlib.sha256(REPORT.encode()).hexdigest()
    assert manifests[0].run.report.is_read
    kept = [*tmp_path.glob("file/*.json"), *tmp_path.glob("text/*.json")]
    assert len(kept) == 4
    assert all("edema" not in file.read_text() for file in kept)


def test_a_report_for_a_model_that_reads_none_is_a_warning(textseg, model, scan, tmp_path):
    said = textseg(
        *("predict", scan, "liver", "--modality", "ct", "-m", model, "-o", tmp_path / "out"),
        *("--report", REPORT),
    )
    assert said.code == 0
    assert said.lines == [
        "warning: the model tiny does not read reports; the prompts were answered without it"
    ]
    assert read_manifest(tmp_path / "out").run.report.is_read is False


# errors


def assert_refused(said, *, exit_code, start, words=()):
    assert (said.code, said.out, len(said.lines)) == (exit_code, "", 1)
    assert said.err.startswith(start)
    assert all(word in said.err for word in words)


@pytest.mark.parametrize("text", ["flair.nii.gz", "=flair.nii.gz", "flair=", ""])
def test_a_channel_without_name_or_file_is_wrong_usage(predict, text):
    assert_refused(predict("liver", "--channel", text), exit_code=2, start="error[usage] --channel")


def test_channels_without_a_prompt_or_with_jobs_are_wrong_usage(predict, channels):
    assert_refused(predict(*channels), exit_code=2, start="error[usage] Give at least one PROMPT")
    said = predict(*channels, "--jobs", "jobs.jsonl", "liver")
    assert_refused(said, exit_code=2, start="error[usage] jobs.jsonl holds jobs")
    said = predict(*channels, "liver", "spleen", "-o", "mask.nii.gz")
    assert_refused(said, exit_code=2, start="error[usage] one file cannot hold 2 prompts")


def test_one_report_for_many_scans_is_wrong_usage(predict, write_channel, tmp_path):
    write_channel("scans/a.nii.gz")
    said = predict(tmp_path / "scans", "left thalamus", "--report", REPORT)
    assert_refused(said, exit_code=2, start="error[usage] a --report is that of one scan")


def test_a_channel_given_twice_exits_with_3(predict, channels):
    said = predict("left thalamus", *channels, "--channel", "t1n=again.nii.gz")
    assert_refused(
        said,
        exit_code=3,
        start="error[E300 unusable-input] channel t1 is given twice, as T1w and as t1n.",
    )


def test_a_channel_that_is_missing_exits_with_3(predict, channels, tmp_path):
    absent = tmp_path / "absent.nii.gz"
    said = predict("left thalamus", *channels[:2], "--channel", f"t1={absent}")
    assert_refused(said, exit_code=3, start=f"error[E301 missing] {absent}:")


def test_channels_on_two_grids_exit_with_3(predict, channels, write_channel, tmp_path):
    moved = write_channel("moved.nii.gz", spacing=(7.0, 6.5, 8.0))
    said = predict("left thalamus", *channels[:2], "--channel", f"t1={moved}")
    # ten gaps of 1 mm
    words = (str(tmp_path / "flair.nii.gz"), "corners up to 10 mm apart", "Register it to flair")
    assert_refused(
        said, exit_code=3, start=f"error[E321 geometry-mismatch] {moved}: channel t1", words=words
    )
    assert not (tmp_path / "flair_textseg").exists()


def test_a_4d_file_is_no_channel(predict, write_channel):
    path = write_channel("four.nii.gz", shape=(*SHAPE, 2))
    said = predict("left thalamus", "--channel", f"flair={path}")
    assert_refused(said, exit_code=3, start=f"error[E309 several-volumes] {path}: as channel flair")


def test_a_channel_the_model_does_not_take_exits_with_3(predict, channels, write_channel):
    adc = write_channel("adc.nii.gz")
    said = predict("left thalamus", *channels, "--channel", f"adc={adc}")
    words = ("the model takes the channels flair, t1, but not adc",)
    assert_refused(said, exit_code=3, start="error[E300 ", words=words)


def test_a_scan_alone_is_refused_by_a_model_with_channels(predict, write_channel):
    said = predict(write_channel("scan.nii.gz"), "left thalamus", "--modality", "mr")
    assert_refused(said, exit_code=3, start="error[E300 ", words=("--channel flair=FILE",))


def test_several_channels_are_refused_by_a_model_of_one(textseg, model, channels):
    said = textseg("predict", "liver", *channels, "-m", model)
    assert_refused(said, exit_code=3, start="error[E300 ", words=("takes a single scan",))


def test_a_volume_is_not_chosen_of_channels(predict, channels):
    said = predict("left thalamus", *channels, "--volume", 0)
    assert_refused(said, exit_code=3, start="error[E300 ", words=("given as channels",))


def test_a_report_that_is_missing_exits_with_3(predict, channels, tmp_path):
    said = predict("left thalamus", *channels, "--report", tmp_path / "absent.txt")
    assert_refused(said, exit_code=3, start=f"error[E301 missing] {tmp_path / 'absent.txt'}")


# another channel or another report is another question


def test_resume_keeps_what_was_answered_from_the_same_files_and_report(
    predict, channels, write_channel, tmp_path
):
    report = tmp_path / "report.txt"
    report.write_text(REPORT)
    asked = ("left thalamus", "-o", tmp_path / "out", "--resume")

    def run(*arguments):
        said = predict(*asked, *arguments)
        assert said.code == 0
        return "kept" if any(line.startswith("kept") for line in said.lines) else "done"

    told = ("--report", report)
    assert run(*channels, *told) == "done"
    assert run(*channels, *told) == "kept"
    assert run(*channels[2:], *channels[:2], "--report", REPORT) == "kept"
    report.write_text(REPORT.replace("left", "right"))
    assert run(*channels, *told) == "done"
    assert run(*channels) == "done"
    assert run(*channels) == "kept"
    write_channel("t1.nii.gz", seed=2)
    assert run(*channels) == "done"
    assert run(*channels[:2]) == "done"  # without the T1
    assert run(*channels[:2]) == "kept"


def test_a_plain_scan_is_another_question_than_its_channel(textseg, model, scan, tmp_path):
    asked = ("liver", "-m", model, "--modality", "ct", "-o", tmp_path / "out", "--resume")
    assert textseg("predict", scan, *asked).code == 0
    assert "kept" in textseg("predict", scan, *asked).err
    named = ("--channel", f"ct={scan}")
    assert "kept" not in textseg("predict", *asked, *named).err
    assert "kept" in textseg("predict", *asked, *named).err


# jobs


@pytest.fixture
def write_jobs(tmp_path):
    def write(*lines):
        path = tmp_path / "jobs.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines))
        return path

    return write


def test_a_line_may_name_channels_and_a_report(write_jobs, tmp_path):
    (tmp_path / "told").write_text(REPORT)
    lines = [
        {"channels": {"T2-FLAIR": "a/flair.nii.gz", "t1": "/b/t1.nii.gz"}, "report": "told"},
        {"channels": {"flair": "c.nii.gz"}, "report": REPORT, "name": "second"},
        {"scan": "d.nii.gz", "report": "absent.txt"},
    ]
    first, second, third = read_jobs(
        write_jobs(*lines), tmp_path / "out", Question(("liver",))
    ).jobs
    assert first.source == {"flair": tmp_path / "a" / "flair.nii.gz", "t1": first.channels[1][1]}
    assert (first.scan, first.name) == (tmp_path / "a" / "flair.nii.gz", "flair")
    assert str(first.channels[1][1]) == "/b/t1.nii.gz"
    assert first.out == tmp_path / "out" / "flair"
    assert first.question.report == str(tmp_path / "told")
    assert (second.name, second.question.report) == ("second", REPORT)
    assert third.source == tmp_path / "d.nii.gz"
    assert third.question.report == str(tmp_path / "absent.txt")
    assert REPORT not in repr(second)


def test_files_beside_a_list_that_is_named_relatively_hold_in_any_folder(
    write_jobs, tmp_path, monkeypatch
):
    line = {"channels": {"flair": "c.nii.gz"}, "report": "told.txt"}
    monkeypatch.chdir(write_jobs(line).parent)
    (job,) = read_jobs(Path("jobs.jsonl"), tmp_path / "out", Question(("liver",))).jobs
    assert job.question.report == str(tmp_path / "told.txt")
    assert job.channels == (("flair", tmp_path / "c.nii.gz"),)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"prompts": "liver"}, "'scan' is missing, and so is 'channels'"),
        ({"scan": "a.nii", "channels": {"t1": "a.nii"}}, "'scan' and 'channels' are both given"),
        ({"channels": {}}, "'channels': Value error, no channel is given"),
        ({"channels": {"t1": "a.nii", "T1w": "b.nii"}}, "channel t1 is given twice"),
        ({"channels": {"t1": " "}}, "'channels': Value error, is blank"),
        ({"channels": ["a.nii"]}, "'channels': "),
        ({"scan": "a.nii", "report": ""}, "'report': Value error, is blank"),
    ],
)
def test_a_line_that_names_no_one_scan_is_told(predict, write_jobs, line, fault):
    said = predict("--jobs", write_jobs(line), "left thalamus")
    assert_refused(said, exit_code=3, start="error[E300 ", words=("Line 1: ", fault))


def test_each_job_has_its_own_channels_and_report(predict, write_jobs, write_channel, tmp_path):
    for number, name in enumerate(("a/flair", "a/t1", "b/flair")):
        write_channel(f"{name}.nii.gz", seed=number)
    (tmp_path / "a" / "report.txt").write_text(REPORT)
    path = write_jobs(
        {
            "channels": {"flair": "a/flair.nii.gz", "t1": "a/t1.nii.gz"},
            "report": "a/report.txt",
            "name": "a",
        },
        {"channels": {"flair": "b/flair.nii.gz"}, "name": "b"},
        {"channels": {"flair": "b/flair.nii.gz"}, "name": "c", "report": "c.txt"},
    )
    said = predict("--jobs", path, "left thalamus", "-o", tmp_path / "out")
    assert said.code == 6
    assert said.lines[0] == ("warning: b: answered without t1; the model's stand-in took its place")
    assert said.lines[1].startswith(f"error[E301 missing] {tmp_path / 'c.txt'}")
    first, second = (read_manifest(tmp_path / "out" / name) for name in "ab")
    assert first.run.report.is_read
    assert second.run.report is None
    assert [c.is_missing for c in second.run.channels] == [False, True]
    # the failed one alone is tried again
    again = predict("--jobs", path, "left thalamus", "-o", tmp_path / "out", "--resume")
    assert [line.partition(":")[0] for line in again.lines[:2]] == ["kept a", "kept b"]


def test_one_report_for_all_jobs_is_wrong_usage(predict, write_jobs):
    path = write_jobs({"channels": {"flair": "a.nii.gz"}})
    said = predict("--jobs", path, "left thalamus", "--report", REPORT)
    assert_refused(said, exit_code=2, start="error[usage] a --report is that of one scan")
