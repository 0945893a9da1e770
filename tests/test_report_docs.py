"""The page on reports leads from made-up tumors to a model that reads: its commands run."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import documents
import muted
import pytest

from textseg.cli import main

pytestmark = [
    pytest.mark.slow,
    *muted.TRAINING,
]

PAGE = documents.REPORTS_PAGE
SHORT = {
    "data tumors": {"--cases": 8, "--test": 2, "--spacing": 6},
    "data prepare": {"--workers": 0},
    "fit": {"--trainer.max_epochs": 1, "--data.steps": 2, "--trainer.enable_progress_bar": "false"},
    "export": {"--sensitivity-cases": 1},
    "evaluate": {"--limit": 1},
}
"""What a command is given here in addition, so that it is soon done."""


def blocks_of(section, language):
    """The fenced blocks of a language below a heading of the page."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(f"## {section}\n")
    end = text.find("\n## ", start)
    lines = text.count("\n", 0, start), text.count("\n", 0, end if end > 0 else len(text))
    return [
        block
        for block in documents.blocks(PAGE)
        if block.language == language and lines[0] < block.line <= lines[1]
    ]


def run(section):
    """Runs the commands of a section, each of which succeeds; the words of the last."""
    words = []
    for block in blocks_of(section, "console"):
        for line in documents.shell_lines(block):
            words = shlex.split(line)[1:]
            short = next((v for k, v in SHORT.items() if " ".join(words).startswith(k)), {})
            more = [f"{option}={value}" for option, value in short.items()]
            assert main([*words, *more]) == 0, line
    return words


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """Where the commands of the page run, after those that train a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reports"))
        # LightningCLI warns if pytest's own arguments stand there
        patch.setattr(sys, "argv", ["textseg"])
        run("Train")
        for channel in ("flair", "t1", "t1ce", "t2"):
            shutil.copy(f"tumors/images/test0001_{channel}.nii.gz", f"{channel}.nii.gz")
        shutil.copy("tumors/reports/test0001.txt", "report.txt")
        shutil.copy("flair.nii.gz", "brain.nii.gz")
        shutil.move("out", "first")
        yield patch


def manifest_of(folder):
    return json.loads(Path(folder, "textseg.json").read_text(encoding="utf-8"))


def test_the_model_of_the_page_answers_with_the_report_of_the_scan(folder):
    written = manifest_of("first")
    assert [entry["prompt"] for entry in written["prompts"]] == [
        "whole tumor",
        "tumor core",
        "enhancing tumor",
    ]
    assert written["run"]["report"]["is_read"]
    assert {entry["status"] for entry in written["prompts"]} <= {"ok", "not_found"}


def test_a_scan_of_ones_own_is_segmented_as_the_page_says(folder):
    run("Predict")
    names = [channel["name"] for channel in manifest_of("out")["run"]["channels"]]
    assert names == ["flair", "t1", "t1ce", "t2"]


def test_the_python_of_the_page_runs(folder):
    for block in blocks_of("Predict", "python"):
        exec(compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec"), {})


def test_the_findings_of_a_report_become_prompts_of_the_embedded_model(folder):
    words = "There is a white matter lesion in the left frontal lobe. No hemorrhage."
    Path("report.txt").write_text(words, encoding="utf-8")
    run("Prompts from a report")
    written = manifest_of("findings")
    (asked,) = written["prompts"]
    assert asked["concepts"] == ["white_matter_lesion"]
    assert [said["sentence"] for said in asked["said"]] == [0]
    assert written["run"]["model"]["name"] == "nano"
    assert written["run"]["findings"]["num_denied"] == 1
