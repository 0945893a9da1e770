"""``textseg data check``, from a folder to what it prints, writes and exits with."""

import json

import nibabel
import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from textseg.cli.data.check import check
from textseg.errors import ResourceError

FACTS = {
    "name": "toy",
    "title": "Toy",
    "modality": {"ct": []},
    "region": "abdomen",
    "labels": {1: "liver", 2: "kidney.left", 3: "kidney.right"},
    "complete": "all",
    "licence": "CC0-1.0",
    "citation": "Nobody 2020.",
    "homepage": "https://example.org",
    "layout": {"kind": "files", "images": {"": "{case}_ct.nii"}, "masks": "{case}_seg.nii"},
}

app = typer.Typer()
app.command()(check)


def write_case(folder, name, *, seed, kidneys=(1, 5)):
    shape, affine = (7, 5, 3), np.diag([9.0, 8.0, 7.0, 1.0])
    mask = np.zeros(shape, np.uint8)
    mask[3, 2, 1] = 1
    mask[kidneys[0], 2, 1], mask[kidneys[1], 2, 1] = 2, 3
    scan = np.random.default_rng(seed).integers(-900, 900, shape, np.int16)
    nibabel.save(nibabel.Nifti1Image(scan, affine), folder / f"{name}_ct.nii")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{name}_seg.nii")


@pytest.fixture
def dataset(tmp_path):
    """A description and a folder with one sound case, as arguments."""
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(FACTS))
    folder = tmp_path / "scans"
    folder.mkdir()
    write_case(folder, "a", seed=1)
    return [str(tmp_path / "toy.yaml"), str(folder)]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_sound_data_set_exits_with_0(dataset):
    said = run(*dataset)
    assert said.exit_code == 0
    assert "1 cases, nothing found." in said.stderr
    assert said.stdout == ""


def test_an_error_exits_with_3_and_is_shown_before_warnings(dataset, tmp_path):
    write_case(tmp_path / "scans", "b", seed=1)
    write_case(tmp_path / "scans", "c", seed=2, kidneys=(5, 1))
    said = run(*dataset)
    assert said.exit_code == 3
    assert said.stdout.startswith("3 cases, 1 errors")
    assert said.stdout.index("sides-swapped") < said.stdout.index("same-scan")
    assert "c_seg.nii" in said.stdout
    assert "kidney.left and kidney.right" in said.stdout


def test_warnings_alone_exit_with_0(dataset, tmp_path):
    write_case(tmp_path / "scans", "b", seed=1)
    said = run(*dataset)
    assert said.exit_code == 0
    assert "same-scan" in said.stdout


def test_only_the_first_of_many_findings_are_printed(dataset, tmp_path):
    for number in range(12):
        write_case(tmp_path / "scans", f"n{number:02}", seed=number + 2, kidneys=(5, 1))
    said = run(*dataset)
    assert "n09_seg.nii" in said.stdout
    assert "n10_seg.nii" not in said.stdout
    assert "2 more; read all with --json or -o FILE." in said.stderr


def test_json_is_all_of_stdout_and_the_same_as_the_file(dataset, tmp_path):
    write_case(tmp_path / "scans", "c", seed=2, kidneys=(5, 1))
    target = tmp_path / "new" / "report.json"
    said = run(*dataset, "--json", "-o", target)
    assert said.exit_code == 3
    report = json.loads(said.stdout)
    assert report["counts"] == {"sides-swapped": 1}
    assert json.loads(target.read_text(encoding="utf-8")) == report
    assert [path.name for path in target.parent.iterdir()] == ["report.json"]


def test_a_report_is_replaced_only_on_request(dataset, tmp_path):
    target = tmp_path / "report.json"
    target.write_text("mine")
    said = run(*dataset, "-o", target)
    assert isinstance(said.exception, ResourceError)
    assert said.exception.code == "E504"
    assert target.read_text() == "mine"
    assert run(*dataset, "-o", target, "--overwrite").exit_code == 0
    assert json.loads(target.read_text(encoding="utf-8"))["num_cases"] == 1
