from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from textseg.errors import InputError
from textseg.outputs.manifest import FileRecord, PromptRecord, is_complete, read_manifest


@pytest.fixture
def saved(make_segmentation, box_mask, tmp_path):
    segmentation = make_segmentation({"liver": box_mask}, absent=["uterus"])
    segmentation.save(tmp_path / "out")
    return tmp_path / "out"


def test_the_manifest_reads_back_as_it_was_written(make_segmentation, box_mask, tmp_path):
    written = make_segmentation({"liver": box_mask}, absent=["uterus"]).save(tmp_path)
    assert read_manifest(tmp_path) == written
    assert read_manifest(tmp_path / "textseg.json") == written
    assert [entry.status for entry in written.prompts] == ["ok", "not_found"]
    assert written.prompts[0].file == "liver.nii.gz"
    assert written.prompts[1].reason == "Not in the scan."
    assert written.input.orientation == "PLS"
    assert written.run.grids[0].windows_skipped == 3
    assert written.software.torch != "unknown"


def test_a_whole_result_is_complete(saved):
    assert is_complete(saved)
    assert is_complete(saved, prompts=["liver", "uterus"], input_sha256="ab" * 32)


def test_the_answer_to_another_question_is_not_complete(saved):
    assert not is_complete(saved, prompts=["liver", "spleen"])
    assert not is_complete(saved, input_sha256="cd" * 32)
    assert not is_complete(saved, model_sha256="1" * 64)


@pytest.mark.parametrize("name", ["liver.nii.gz", "statistics.json"])
def test_a_damaged_or_missing_file_makes_it_incomplete(saved, name):
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    assert not is_complete(saved)
    (saved / name).unlink()
    assert not is_complete(saved)


def test_a_folder_without_manifest_is_not_complete(tmp_path):
    assert not is_complete(tmp_path)
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path)
    assert caught.value.code in {"E301", "E303"}


@pytest.mark.parametrize("damage", ["cut", "foreign", "extra", "outside"])
def test_what_is_no_manifest_is_refused_in_one_line(saved, damage):
    path = saved / "textseg.json"
    content = json.loads(path.read_text())
    if damage == "extra":
        content["surprise"] = 1
    if damage == "outside":
        content["files"][0]["name"] = "../../etc/passwd"
    text = {"cut": path.read_text()[:-40], "foreign": "[1, 2]"}.get(damage, json.dumps(content))
    path.write_text(text)
    with pytest.raises(InputError, match="Not a textseg manifest") as caught:
        read_manifest(saved)
    assert "\n" not in caught.value.line()
    assert not is_complete(saved)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "a\\b", "..", ""])
def test_file_names_never_lead_out_of_the_folder(name):
    with pytest.raises(ValidationError):
        FileRecord(name=name, sha256="0" * 64)


def test_numbers_that_json_does_not_have_are_refused():
    with pytest.raises(ValidationError):
        PromptRecord(prompt="x", status="ok", presence=float("nan"))
