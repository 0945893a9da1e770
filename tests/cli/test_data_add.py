"""``textseg data add``, from a folder to the file and what is said of it."""

from __future__ import annotations

import json

import fakes
import pytest
import typer

from textseg.cli.data.add import add
from textseg.cli.terminal import UsageError
from textseg.datasets import find_cases, find_dataset
from textseg.errors import ResourceError

LABELS = {"Left Kidney": fakes.KIDNEY_LEFT, "liver": fakes.LIVER, "tumor": fakes.SPLEEN}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two scans with masks, and a table of names; the current folder is empty."""
    root = tmp_path / "My Torsos"
    for case in ("a", "b"):
        labels = fakes.torso_labels((9, 7, 5))
        fakes.write_nifti(root / f"images/{case}.nii.gz", fakes.contrast(labels), (3, 4, 5))
        fakes.write_nifti(root / f"labels/{case}.nii.gz", labels, (3, 4, 5))
    (tmp_path / "names.json").write_text(json.dumps(LABELS))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return root


@pytest.fixture
def data_add(capsys):
    app = typer.Typer()
    app.command()(add)

    def run(*arguments):
        capsys.readouterr()
        given = [str(argument) for argument in arguments]
        typer.main.get_command(app).main(args=given, standalone_mode=False)
        return capsys.readouterr()

    return run


def test_the_file_lies_here_under_the_name_of_the_folder(folder, data_add):
    said = data_add(folder, "--labels", "../names.json")
    spec = find_dataset("my-torsos.yaml")
    assert [case.id for case in find_cases(spec, folder)] == ["a", "b"]
    assert spec.labels[fakes.KIDNEY_LEFT] == ("kidney.left",)
    assert spec.labels[fakes.SPLEEN] == ()
    assert "Left Kidney" in said.out
    assert "kidney.left" in said.out


def test_what_is_left_open_and_the_next_step_are_said_on_stderr(folder, data_add):
    lines = data_add(folder, "--labels", "../names.json").err.splitlines()
    assert lines[0].startswith(f"warning[unmapped] label {fakes.SPLEEN} 'tumor' is left open.")
    assert "Closest: " in lines[0]
    assert lines[-2].startswith("my-torsos.yaml: 2 scans, 2 of 6 labels mapped")
    assert lines[-1].endswith(f"textseg data check my-torsos.yaml '{folder}'")


def test_json_is_all_that_stdout_holds(folder, data_add):
    said = data_add(folder, "--json", "--labels", "../names.json", "--name", "mine")
    answer = json.loads(said.out)
    assert (answer["path"], answer["cases"], answer["name"]) == ("mine.yaml", 2, "mine")
    liver = next(label for label in answer["labels"] if label["key"] == fakes.LIVER)
    assert (liver["name"], liver["concept"]) == ("liver", "liver")


def test_a_file_is_only_replaced_on_request(folder, data_add, tmp_path):
    target = tmp_path / "mine.yaml"
    target.write_text("old")
    with pytest.raises(ResourceError, match="E504"):
        data_add(folder, "-o", target)
    assert target.read_text() == "old"
    data_add(folder, "-o", target, "--overwrite", "--modality", "mr")
    assert find_dataset(str(target)).modality == {"mr": ()}


@pytest.mark.parametrize("options", [("-o", "mine.txt"), ("-o", "mine.yaml", "--name", "other")])
def test_the_file_is_named_after_the_data_set(folder, data_add, options):
    with pytest.raises(UsageError, match=r"NAME\.yaml"):
        data_add(folder, *options)
