"""``textseg predict --report`` without prompts: what a report states is what is asked."""

from __future__ import annotations

import json

import fakes
import nibabel as nib
import numpy as np
import pytest

from textseg.network.weights import Domain
from textseg.outputs.manifest import is_complete, read_manifest

REPORT = "There is a 2 cm tumor in the liver. No ascites. Possible quux lesion."
SECOND = "The liver is normal. A cyst is seen in the left kidney."
TUMOR = "liver_tumor_in_liver.nii.gz"
CYST = "left_kidney_cyst_in_left_kidney.nii.gz"


@pytest.fixture(scope="module")
def lesion_model(tmp_path_factory):
    """Random weights that see every structure everywhere."""
    concepts = ("liver", "kidney.left", "kidney.right", "liver_tumor", "kidney_cyst")
    folder = tmp_path_factory.mktemp("models") / "lesions"
    domain = Domain(
        name="torso-ct",
        spacing_mm=(6.0, 6.0, 6.0),
        window=(24, 12, 20),
        modalities=("ct",),
        concepts=concepts,
    )
    fakes.write_model(
        folder,
        domains=[domain],
        network=fakes.tiny_segmenter(),
        mask_threshold=0.05,
        presence_threshold=0.0,
    )
    return folder


@pytest.fixture
def predict(textseg, lesion_model):
    def run(*arguments):
        options = ("-m", lesion_model, "--modality", "ct", "--precision", "float32")
        return textseg("predict", *arguments, *options)

    return run


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text(f"{REPORT} {SECOND}", encoding="utf-8")
    return path


def test_findings_become_masks_and_the_table_tells_their_sentences(predict, scan, report, tmp_path):
    said = predict(scan, "--report", report, "-o", tmp_path / "out")
    assert said.code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        TUMOR,
        CYST,
        "statistics.json",
        "textseg.json",
    }
    assert nib.load(tmp_path / "out" / TUMOR).shape == nib.load(scan).shape
    header, *rows = [
        line.split() for line in said.out.splitlines()[1:] if "in" in line or "prompt" in line
    ]
    assert header[:3] == ["prompt", "sentence", "status"]
    told = {" ".join(row[: row.index("ok")]) for row in rows}
    assert told == {"liver tumor in liver 1", "left kidney cyst in left kidney 5"}
    assert "warning: 'liver tumor in liver': Narrowed to liver." in said.lines
    assert "warning[passed-over] sentence 3: Its words are not understood." in said.lines
    assert not any("does not read reports" in line for line in said.lines)


def test_no_word_of_the_report_is_stored_or_said(predict, scan, report, tmp_path):
    said = predict(scan, "--report", report, "-o", tmp_path / "out", "--json")
    stored = "".join(path.read_text() for path in (tmp_path / "out").glob("*.json"))
    assert "quux" not in f"{stored}{said.out}{said.err}".lower()
    findings = json.loads(said.out)["run"]["findings"]
    assert findings["num_denied"] == 1
    assert [f["sentence"] for f in findings["passed_over"]] == [2]


def test_a_report_without_a_finding_is_an_empty_answer(predict, scan, tmp_path):
    said = predict(scan, "--report", "The study is normal.", "-o", tmp_path / "out")
    assert said.code == 0
    assert said.lines == [
        "warning: the report states nothing that the model lesions can segment "
        "(0 findings stated, 0 denied)"
    ]
    assert is_complete(tmp_path / "out")
    assert read_manifest(tmp_path / "out").prompts == ()
    again = predict(scan, "--report", "The study is normal.", "-o", tmp_path / "out", "--resume")
    assert again.lines[0].startswith("kept ")


def test_channels_may_go_with_a_report_alone(predict, scan, report, tmp_path):
    said = predict("--channel", f"ct={scan}", "--report", report, "-o", tmp_path / "out")
    assert said.code == 0
    assert (tmp_path / "out" / CYST).exists()


def assert_wrong_usage(said, words):
    assert (said.code, said.out, len(said.lines)) == (2, "", 1)
    assert said.err.startswith("error[usage] ")
    assert words in said.err


def test_what_gives_no_prompts_is_wrong_usage(predict, scan, tmp_path):
    assert_wrong_usage(predict(scan), "no report whose findings")
    features = tmp_path / "report.npy"
    np.save(features, np.zeros((1, 3, 12), np.float32))
    assert_wrong_usage(predict(scan, "--report", features), "features of a report do not tell")
    file = predict(scan, "--report", REPORT, "-o", tmp_path / "mask.nii.gz")
    assert_wrong_usage(file, "one file cannot hold a report's findings")


def test_strict_prompts_refuses_findings_that_the_model_does_not_know(predict, scan, tmp_path):
    told = ("--report", "A nodule in the right upper lobe of the lung.", "-o", tmp_path / "out")
    said = predict(scan, *told, "--strict-prompts")
    assert said.code == 7
    assert "not trained on lung nodule" in said.err
    assert predict(scan, *told).code == 0
    assert read_manifest(tmp_path / "out").prompts[0].status == "unsupported"


# resuming


def outcome(said):
    assert said.code == 0
    return "kept" if any(line.startswith("kept") for line in said.lines) else "done"


def test_resume_keeps_the_findings_of_the_same_report(predict, scan, report, tmp_path):
    asked = (scan, "--report", report, "-o", tmp_path / "out", "--resume")
    assert outcome(predict(*asked)) == "done"
    assert outcome(predict(*asked)) == "kept"
    assert outcome(predict(*asked, "-f", "nifti", "-f", "nrrd")) == "done"
    assert outcome(predict(*asked, "-f", "nrrd")) == "kept"
    report.write_text(SECOND)
    assert outcome(predict(*asked)) == "done"
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == [CYST]


def test_findings_and_prompts_are_different_questions(predict, scan, report, tmp_path):
    asked = (scan, "--report", report, "-o", tmp_path / "out", "--resume")
    assert outcome(predict(*asked)) == "done"
    said = predict(scan, "liver", "--report", report, "-o", tmp_path / "out", "--resume")
    assert (said.code, "E504" in said.err) == (5, True)
    written = predict(
        *(scan, "liver tumor in liver", "left kidney cyst in left kidney"),
        *("--report", report, "-o", tmp_path / "out", "--resume"),
    )
    assert outcome(written) == "done"
    assert read_manifest(tmp_path / "out").run.findings is None
    assert predict(*asked).code == 5  # what somebody wrote is not given up


# jobs


def test_a_job_may_have_a_report_and_no_prompts(predict, scan, report, tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    lines = [
        {"scan": scan.name, "report": "report.txt"},
        {"scan": scan.name, "name": "b", "report": SECOND},
    ]
    jobs.write_text("\n".join(map(json.dumps, lines)))
    asked = ("--jobs", jobs, "-o", tmp_path / "out")
    assert predict(*asked).code == 0
    assert (tmp_path / "out" / "patient" / TUMOR).exists()
    assert not (tmp_path / "out" / "b" / TUMOR).exists()
    assert (tmp_path / "out" / "b" / CYST).exists()
    assert [line[:4] for line in predict(*asked, "--resume").lines] == ["kept", "kept"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"scan": "a.nii"}, "no 'prompts', and none on the command line; there is no report"),
        ({"scan": "a.nii", "report": "a.npy"}, "features of a report do not tell"),
        (
            {"scan": "a.nii", "report": "A cyst.", "out": "m.nii.gz"},
            "hold the findings of a report",
        ),
    ],
)
def test_a_job_that_asks_nothing_is_told(predict, tmp_path, line, fault):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps(line))
    said = predict("--jobs", jobs)
    assert said.code == 3
    assert "Line 1: " in said.err
    assert fault in said.err
