"""What could have been reported instead, and groups of cases, from a data set to the case list."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakes import contrast, write_nifti

from textseg.datasets import find_cases, load_cases, load_registry
from textseg.datasets.prepare import PrepareConfig, prepare
from textseg.errors import ModelError

SPACING = (2.0, 2.5, 3.0)
CHANNELS = ("flair", "t1", "t1ce", "t2")
SAID, COULD_BE_SAID = "A mass on the left.", "A mass on the right."


@pytest.fixture
def root(tmp_path):
    """A data set in the layout of TextBraTS whose first case has a report of another kind."""
    labels = np.zeros((11, 9, 7), dtype=np.int16)
    labels[2:6, 3:7, 2:5] = 2
    entries = []
    for number, about in enumerate(
        (
            {"swapped_report": "reports/0_swapped.txt", "ambiguous": "which"},
            {"swapped_report": COULD_BE_SAID, "group": "extent"},
            {},
        )
    ):
        images = [f"{number}_{channel}.nii" for channel in CHANNELS]
        for seed, image in enumerate(images):
            write_nifti(tmp_path / image, contrast(labels, seed=seed), SPACING)
        write_nifti(tmp_path / f"{number}_seg.nii", labels, SPACING)
        entry = {"fold": 0, "image": images, "label": f"{number}_seg.nii", "report": SAID}
        entries.append(entry | about)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/0_swapped.txt").write_text(COULD_BE_SAID)
    (tmp_path / "Train.json").write_text(json.dumps({"training": entries}))
    return tmp_path


def test_a_layout_finds_other_reports_and_groups(root):
    cases = find_cases(load_registry()["textbrats"], root)
    found = [(case.report, case.swapped_report, case.group) for case in cases]
    assert found == [
        (SAID, root / "reports/0_swapped.txt", "which"),
        (SAID, COULD_BE_SAID, "extent"),
        (SAID, None, ""),
    ]


def test_a_report_file_that_is_not_there_is_named(root):
    (root / "reports/0_swapped.txt").unlink()
    with pytest.raises(ModelError, match=r"E406.*reports/0_swapped\.txt"):
        find_cases(load_registry()["textbrats"], root)


def test_prepared_cases_keep_them(root, tmp_path):
    spec = load_registry()["textbrats"]
    found = find_cases(spec, root)
    run = {"specs": [spec], "config": PrepareConfig()}
    path = prepare(found, tmp_path / "out", **run).path
    cases = load_cases(path)
    assert [case.group for case in cases] == ["which", "extent", ""]
    swapped = [case.swapped_report and case.swapped_report.read_text() for case in cases]
    assert swapped == [COULD_BE_SAID, COULD_BE_SAID, None]
    assert prepare(found, tmp_path / "out", **run).made == 0
    (root / "reports/0_swapped.txt").write_text("No mass.")
    assert prepare(found, tmp_path / "out", **run).made == 1
    assert load_cases(path)[0].swapped_report.read_text() == "No mass."


def test_a_list_may_call_groups_by_what_is_ambiguous(root, tmp_path):
    spec = load_registry()["textbrats"]
    run = {"specs": [spec], "config": PrepareConfig()}
    path = prepare(find_cases(spec, root), tmp_path / "out", **run).path
    entries = json.loads(path.read_text())
    entries[1]["ambiguous"] = entries[1].pop("group")
    path.write_text(json.dumps(entries))
    assert [case.group for case in load_cases(path)] == ["which", "extent", ""]
