"""``textseg predict`` on folders: which scans are found, where results go, and what failures do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textseg.cli.jobs import Question
from textseg.cli.scans import plan_jobs
from textseg.errors import InputError
from textseg.outputs.manifest import is_complete, read_manifest

LIVER = Question(("liver",))
DICOM_HEAD = b"\0" * 128 + b"DICM"


def touch(root: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def places(root: Path) -> dict[str, str]:
    """Scan -> folder of its results, both relative."""
    planned = plan_jobs(root, root.parent / "out", LIVER)
    assert planned.is_batch
    return {
        str(job.scan.relative_to(root)): str(job.out.relative_to(root.parent / "out"))
        for job in planned.jobs
    }


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


def test_a_file_is_one_scan(root):
    touch(root, "a.nii.gz")
    planned = plan_jobs(root / "a.nii.gz", None, LIVER)
    assert not planned.is_batch
    assert planned.jobs[0].out == root / "a_textseg"


def test_a_folder_of_dicom_files_is_one_scan_with_its_subfolders(root):
    touch(root, "1", "2", "more/3", content=DICOM_HEAD)
    planned = plan_jobs(root, None, LIVER)
    assert not planned.is_batch
    assert (planned.jobs[0].scan, planned.jobs[0].out) == (root, root.with_name("scans_textseg"))


def test_a_folder_of_files_is_a_batch_in_a_stable_order(root):
    touch(root, "b.mha", "a.nii.gz", "c.NII", "notes.txt", ".hidden.nii", "d/e.nrrd", "d/e.json")
    found = {"a.nii.gz": "a", "b.mha": "b", "c.NII": "c", "d/e.nrrd": "d/e"}
    assert places(root) == found
    assert list(places(root)) == list(found)


def test_a_single_file_in_a_folder_is_a_batch_too(root):
    touch(root, "a.nii.gz")
    assert places(root) == {"a.nii.gz": "a"}


def test_each_dicom_subfolder_is_a_scan(root):
    touch(root, "one/1", "one/2", "two/1", "two/report.txt", content=DICOM_HEAD)
    touch(root, "three.nii")
    assert places(root) == {"three.nii": "three", "one": "one", "two": "two"}


def test_scans_that_differ_in_the_suffix_alone_get_places_of_their_own(root):
    touch(root, "a.nii.gz", "a.nrrd", "b.nii")
    assert places(root) == {"a.nii.gz": "a_nii_gz", "a.nrrd": "a_nrrd", "b.nii": "b"}


def test_a_dicom_folder_named_like_a_file_still_gets_a_folder(root):
    touch(root, "odd.nii.gz/1", content=DICOM_HEAD)
    touch(root, "a.nii")
    assert places(root) == {"a.nii": "a", "odd.nii.gz": "odd_nii_gz"}


def test_results_of_earlier_runs_are_no_scans(root, predict, write_scan):
    write_scan(root / "a.nii.gz")
    single = ("liver", "--instances", "-o", root / "mask.nii.gz")
    assert predict(root / "a.nii.gz", *single).code == 0
    assert (root / "mask_instances.nii.gz").exists()
    assert predict(root / "a.nii.gz", "liver", "-o", root / "named").code == 0
    assert predict(root / "a.nii.gz", "liver").code == 0
    assert places(root) == {"a.nii.gz": "a"}


def test_an_unfinished_result_folder_is_not_searched(root):
    touch(root, "a.nii.gz", "a_textseg/liver.nii.gz", "out/b/liver.nii.gz")
    planned = plan_jobs(root, root / "out", LIVER)
    assert [job.scan.name for job in planned.jobs] == ["a.nii.gz"]


def test_results_need_a_folder_of_their_own(root, predict, write_scan):
    write_scan(root / "a.nii.gz")
    said = predict(root, "liver", "-o", root)
    assert said.code == 2
    assert list(root.iterdir()) == [root / "a.nii.gz"]


def test_a_folder_of_scans_may_be_called_like_a_result(tmp_path):
    touch(tmp_path / "about_textseg", "a.nii.gz")
    assert places(tmp_path / "about_textseg") == {"a.nii.gz": "a"}


def test_a_folder_without_scans_is_left_to_the_reader(root):
    touch(root, "notes.txt")
    planned = plan_jobs(root, None, LIVER)
    assert (planned.is_batch, planned.jobs[0].scan) == (False, root)


def test_a_source_that_is_missing_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="E301"):
        plan_jobs(tmp_path / "absent", None, LIVER)


@pytest.fixture
def three_scans(root, write_scan):
    """Two good scans around a damaged one."""
    for number, name in enumerate(("a", "b", "sub/c")):
        write_scan(root / f"{name}.nii.gz", seed=number)
    damaged = root / "b.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    return root


def test_a_bad_scan_is_reported_and_the_others_are_segmented(predict, three_scans, tmp_path):
    said = predict(three_scans, "liver", "-o", tmp_path / "out")
    assert said.code == 6
    assert said.lines[0].startswith(f"error[E306 truncated] {three_scans / 'b.nii.gz'}: ")
    assert said.lines[1].startswith("warning: 1 of 3 scans failed")
    assert len(said.lines) == 2
    assert is_complete(tmp_path / "out" / "a", prompts=["liver"])
    assert is_complete(tmp_path / "out" / "sub" / "c", prompts=["liver"])
    assert not (tmp_path / "out" / "b").exists()


def test_json_of_a_batch_is_one_manifest_per_line(predict, three_scans, tmp_path):
    said = predict(three_scans, "liver", "--json", "-o", tmp_path / "out")
    printed = [json.loads(line) for line in said.out.splitlines()]
    stored = [read_manifest(tmp_path / "out" / name) for name in ("a", "sub/c")]
    assert printed == [manifest.model_dump(mode="json") for manifest in stored]


def test_warnings_of_a_batch_name_the_scan(predict, three_scans, tmp_path):
    said = predict(three_scans, "uterus", "-q", "-o", tmp_path / "out")
    refused = [line for line in said.lines if line.startswith("warning[unsupported] ")]
    assert [line.split()[1] for line in refused] == ["a.nii.gz:", "sub/c.nii.gz:"]


def test_resume_goes_on_with_what_failed(predict, three_scans, tmp_path, write_scan):
    predict(three_scans, "liver", "-o", tmp_path / "out")
    write_scan(three_scans / "b.nii.gz", seed=1)
    said = predict(three_scans, "liver", "-o", tmp_path / "out", "--resume")
    assert said.code == 0
    assert [line.split(":")[0] for line in said.lines] == ["kept a.nii.gz", "kept sub/c.nii.gz"]
    assert all(is_complete(tmp_path / "out" / name) for name in ("a", "b", "sub/c"))


def test_one_result_in_the_way_stops_a_batch_before_the_work(
    predict, three_scans, tmp_path, monkeypatch
):
    touch(tmp_path / "out", "sub/c/textseg.json")
    monkeypatch.setattr("textseg.cli.answering._load", lambda *_: pytest.fail("loaded"))
    said = predict(three_scans, "liver", "-o", tmp_path / "out")
    assert said.code == 5
    assert said.err.startswith("error[E504 output-exists] ")
    assert len(said.lines) == 1
    assert not (tmp_path / "out" / "a").exists()


def test_a_batch_cannot_be_one_file(predict, three_scans, tmp_path):
    said = predict(three_scans, "liver", "-o", tmp_path / "mask.nii.gz")
    assert said.code == 2
    assert said.err.startswith("error[usage] ")


def test_a_bug_in_one_scan_does_not_stop_the_night(predict, three_scans, tmp_path, monkeypatch):
    from textseg.segmenter import Segmenter

    whole = Segmenter.__call__

    def fail_on_first(self, scan, *arguments, **options):
        if scan.source.path.name == "a.nii.gz":
            raise ZeroDivisionError("by chance")
        return whole(self, scan, *arguments, **options)

    monkeypatch.setattr(Segmenter, "__call__", fail_on_first)
    said = predict(three_scans, "liver", "-o", tmp_path / "out")
    assert said.code == 1
    assert said.lines[0].startswith("error[bug] ")
    assert is_complete(tmp_path / "out" / "sub" / "c")
