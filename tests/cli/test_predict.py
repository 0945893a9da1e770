"""``textseg predict`` on one scan: files, tables, JSON, and an exit code for every failure."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset

from textseg.cli import scans
from textseg.outputs.manifest import is_complete, read_manifest

SHAPE = (19, 15, 11)
SPACING = (7.0, 6.5, 9.0)
PROMPTS = ("liver", "left kidney", "spleen")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and the time it was written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_each_prompt_becomes_a_mask_on_the_scans_grid(predict, scan, tmp_path):
    said = predict(scan, *PROMPTS, "-o", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    masks = {"liver.nii.gz", "left_kidney.nii.gz", "spleen.nii.gz"}
    assert names == masks | {"statistics.json", "textseg.json"}
    image, source = nib.load(tmp_path / "out" / "left_kidney.nii.gz"), nib.load(scan)
    assert image.shape == SHAPE
    assert np.array_equal(image.affine, source.affine)
    assert np.asarray(image.dataobj).any()


def test_the_table_gives_status_volume_and_file_of_each_prompt(predict, scan, tmp_path):
    said = predict(scan, "liver", "kindey", "-o", tmp_path / "out")
    rows = {line.split()[0]: line.split() for line in said.out.splitlines() if line.split()}
    voxel_ml = np.prod(SPACING) / 1000
    num_voxels = np.count_nonzero(nib.load(tmp_path / "out" / "liver.nii.gz").dataobj)
    assert rows["liver"][1] == "ok"
    assert float(rows["liver"][2]) == pytest.approx(num_voxels * voxel_ml, abs=0.005)
    assert 0 <= float(rows["liver"][3]) <= 1
    assert rows["liver"][4] == "liver.nii.gz"
    assert rows["kindey"][1:4] == ["reject", "-", "-"]
    assert "kidney" in rows["kindey"][-1]


def test_prompts_without_a_mask_are_a_warning_each_and_no_error(predict, scan, tmp_path):
    said = predict(scan, "liver", "uterus", "kindey", "-o", tmp_path / "out", "-q")
    assert (said.code, said.out) == (0, "")
    assert [line.partition(": ")[0] for line in said.lines] == [
        "warning[unsupported] 'uterus'",
        "warning[reject] 'kindey'",
    ]
    assert "kidney" in said.lines[1]


def test_a_structure_that_is_not_there_is_an_answer(predict, scan, tmp_path):
    said = predict(scan, "liver", "--threshold", "1", "-o", tmp_path / "out")
    assert said.code == 0
    assert said.err.startswith("warning[not_found] 'liver': ")
    assert not (tmp_path / "out" / "liver.nii.gz").exists()
    assert read(tmp_path / "out" / "textseg.json")["prompts"][0]["status"] == "not_found"


def test_json_prints_the_manifest_and_nothing_else_on_stdout(predict, scan, tmp_path):
    said = predict(scan, "liver", "uterus", "--json", "-o", tmp_path / "out")
    printed = json.loads(said.out)
    assert printed == read(tmp_path / "out" / "textseg.json")
    assert [p["status"] for p in printed["prompts"]] == ["ok", "unsupported"]


def test_one_prompt_may_name_its_file(predict, scan, tmp_path):
    out = tmp_path / "mask.nii.gz"
    assert predict(scan, "liver", "-o", out).code == 0
    written = {path.name for path in tmp_path.iterdir()} - {scan.name}
    assert written == {"mask.nii.gz", "mask.json"}
    assert is_complete(tmp_path / "mask.json", prompts=["liver"])


def test_a_single_file_may_still_have_statistics(predict, scan, tmp_path):
    assert predict(scan, "liver", "-o", tmp_path / "mask.nrrd", "--stats").code == 0
    assert read(tmp_path / "mask.statistics.json")["liver"]["status"] == "ok"


def test_without_o_results_go_beside_the_scan(predict, scan):
    assert predict(scan, "liver").code == 0
    assert is_complete(scan.with_name("patient_textseg"))


def test_beside_a_scan_that_is_read_only_results_go_to_the_current_folder(
    scan, tmp_path, monkeypatch
):
    current = tmp_path / "here"
    current.mkdir()
    monkeypatch.chdir(current)
    # root may write anywhere, so the system's answer is given for it
    monkeypatch.setattr(scans.os, "access", lambda path, mode: Path(path) != tmp_path)
    assert scans.default_place(scan) == current / "patient_textseg"


def test_formats_may_be_several(predict, scan, tmp_path):
    said = predict(scan, "liver", "-f", "nrrd", "-f", "nii", "--no-stats", "-o", tmp_path / "out")
    assert said.code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"liver.nrrd", "liver.nii", "textseg.json"}


def test_a_preview_is_drawn(predict, scan, tmp_path):
    assert predict(scan, "liver", "--preview", "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_prompts_come_from_a_file_too(predict, scan, tmp_path):
    listed = tmp_path / "prompts.txt"
    listed.write_text("\ufeffspleen\n\n  left kidney \nliver\n", encoding="utf-8")
    said = predict(scan, "liver", "--prompts-file", listed, "--json", "-o", tmp_path / "out")
    prompts = [entry["prompt"] for entry in json.loads(said.out)["prompts"]]
    assert prompts == ["liver", "spleen", "left kidney"]


def test_the_scans_own_caveats_are_warnings(textseg, model, scan, tmp_path):
    image = nib.load(scan)
    shifted = nib.Nifti1Image(np.asarray(image.dataobj) + np.int16(2000), image.affine)
    nib.save(shifted, tmp_path / "odd.nii.gz")
    said = textseg(
        "predict", tmp_path / "odd.nii.gz", "liver", "--modality", "ct", "-m", model, "-q"
    )
    assert said.code == 0
    assert any("Hounsfield" in line for line in said.lines)
    assert all(line.startswith("warning") for line in said.lines)


def test_verbose_tells_the_memory_and_the_grids(predict, scan, tmp_path):
    said = predict(scan, "liver", "-v", "-o", tmp_path / "out")
    assert said.code == 0
    assert any("MiB" in line for line in said.lines)
    assert any("torso-ct grid" in line for line in said.lines)


def test_a_dicom_folder_is_one_scan(predict, tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for place in range(5):
        write_slice(folder / f"slice{place}", place=place)
    said = predict(folder, "liver", "--json")
    assert said.code == 0
    manifest = json.loads(said.out)
    assert (manifest["input"]["format"], manifest["input"]["shape"]) == ("dicom", [12, 9, 5])
    assert nib.load(tmp_path / "series_textseg" / "liver.nii.gz").shape == (12, 9, 5)


# what fails, and how


@pytest.fixture
def damaged(write_scan, tmp_path):
    path = write_scan(tmp_path / "damaged.nii.gz")
    path.write_bytes(path.read_bytes()[:-40])
    return path


def assert_one_error(said, *, exit_code: int, code: str) -> None:
    assert (said.code, said.out) == (exit_code, "")
    assert len(said.lines) == 1
    assert said.err.startswith(f"error[{code} ")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("absent.nii.gz", None, "E301"),
        ("empty.nii.gz", b"", "E304"),
        ("notes.nii.gz", b"these are not voxels" * 50, "E305"),
    ],
)
def test_a_scan_that_cannot_be_used_exits_with_3(predict, tmp_path, name, content, code):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    said = predict(tmp_path / name, "liver", "-o", tmp_path / "out")
    assert_one_error(said, exit_code=3, code=code)
    assert not (tmp_path / "out").exists()


def test_a_damaged_scan_leaves_no_output(predict, damaged, tmp_path):
    said = predict(damaged, "liver", "-o", tmp_path / "out")
    assert_one_error(said, exit_code=3, code="E306")
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_exits_with_3(predict, tmp_path):
    (tmp_path / "nothing").mkdir()
    said = predict(tmp_path / "nothing", "liver")
    assert_one_error(said, exit_code=3, code="E318")


def test_a_prompts_file_that_is_missing_or_binary_exits_with_3(predict, scan, tmp_path):
    said = predict(scan, "--prompts-file", tmp_path / "absent.txt")
    assert_one_error(said, exit_code=3, code="E301")
    (tmp_path / "binary.txt").write_bytes(b"liver\n\xff\xfe")
    said = predict(scan, "--prompts-file", tmp_path / "binary.txt")
    assert_one_error(said, exit_code=3, code="E303")


def test_an_unknown_model_exits_with_4(textseg, scan):
    said = textseg("predict", scan, "liver", "-m", "gigantic")
    assert_one_error(said, exit_code=4, code="E401")


def test_damaged_weights_exit_with_4(textseg, model, scan, tmp_path):
    copy = shutil.copytree(model, tmp_path / "model")
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    said = textseg("predict", scan, "liver", "-m", copy)
    assert_one_error(said, exit_code=4, code="E402")


def test_a_device_that_is_not_there_exits_with_4(predict, scan):
    assert_one_error(predict(scan, "liver", "-d", "cuda:97"), exit_code=4, code="E400")


def test_results_that_exist_are_refused_before_the_work(predict, scan, tmp_path, monkeypatch):
    out = tmp_path / "out"
    predict(scan, "liver", "-o", out)
    before = contents(out)
    monkeypatch.setattr("textseg.cli.answering._load", unwanted)
    said = predict(scan, "liver", "-o", out)
    assert_one_error(said, exit_code=5, code="E504")
    assert "--overwrite" in said.err
    assert contents(out) == before


def test_a_place_that_is_no_folder_is_refused_before_the_work(predict, scan, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("textseg.cli.answering._load", unwanted)
    said = predict(scan, "liver", "-o", tmp_path / "file" / "out")
    assert_one_error(said, exit_code=5, code="E503")


def test_a_full_disk_exits_with_5(predict, scan, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        said = predict(scan, "liver", "-o", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_one_error(said, exit_code=5, code="E502")
    assert list((tmp_path / "out").iterdir()) == []


def test_strict_prompts_are_refused_before_the_scan_is_read(predict, damaged, tmp_path):
    said = predict(damaged, "liver", "uterus", "kindey", "--strict-prompts")
    assert_one_error(said, exit_code=7, code="E700")
    assert "'uterus'" in said.err
    assert "'kindey'" in said.err
    assert "'liver'" not in said.err


def test_strict_prompts_that_all_mean_something_go_through(predict, scan):
    assert predict(scan, "liver", "kidneys", "--strict-prompts", "-q").code == 0


# again, on the same place


def test_overwrite_replaces_a_result_and_its_outdated_masks(predict, scan, tmp_path):
    out = tmp_path / "out"
    predict(scan, "liver", "spleen", "-o", out)
    assert predict(scan, "left kidney", "-o", out, "--overwrite").code == 0
    masks = {path.name for path in out.glob("*.nii.gz")}
    assert masks == {"left_kidney.nii.gz"}
    assert is_complete(out, prompts=["left kidney"])


def test_resume_keeps_a_complete_answer_untouched(predict, scan, tmp_path, monkeypatch):
    out = tmp_path / "out"
    predict(scan, *PROMPTS, "-o", out)
    before = contents(out)
    monkeypatch.setattr("textseg.cli.answering._load", unwanted)
    said = predict(scan, *PROMPTS, "-o", out, "--resume", "--json")
    assert said.code == 0
    assert said.err.startswith("kept patient.nii.gz")
    assert json.loads(said.out) == read(out / "textseg.json")
    assert contents(out) == before


@pytest.mark.parametrize(
    "more",
    [
        ["--threshold", "0.4"],
        ["--roi", "auto"],
        ["--mirror"],
        ["--instances"],
        ["--instances", "--least-instance-ml", "2"],
        ["-f", "nifti", "-f", "nrrd"],
        ["--preview"],
        ["right kidney"],
    ],
    ids=" ".join,
)
def test_resume_redoes_an_answer_to_another_question(predict, scan, tmp_path, more):
    out = tmp_path / "out"
    predict(scan, "liver", "-o", out)
    before = (out / "textseg.json").read_bytes()
    said = predict(scan, "liver", *more, "-o", out, "--resume")
    assert said.code == 0
    assert (out / "textseg.json").read_bytes() != before
    assert "kept" not in said.err
    assert "kept" in predict(scan, "liver", *more, "-o", out, "--resume").err


def test_resume_keeps_what_a_version_with_fewer_options_answered(predict, scan, tmp_path):
    out = tmp_path / "out"
    predict(scan, "liver", "-o", out)
    manifest = read(out / "textseg.json")
    for option in ("mirror", "least_instance_ml", "findings"):
        del manifest["run"]["settings"][option]
    (out / "textseg.json").write_text(json.dumps(manifest))
    assert "kept" in predict(scan, "liver", "-o", out, "--resume").err
    assert "kept" not in predict(scan, "liver", "--mirror", "-o", out, "--resume").err
    assert read_manifest(out).run.settings["mirror"] is True


def damage_mask(out, scan, write_scan):
    (out / "liver.nii.gz").write_bytes(gzip.compress(b"torn"))


def forget_manifest(out, scan, write_scan):
    (out / "textseg.json").unlink()


def change_scan(out, scan, write_scan):
    write_scan(scan, seed=7)


@pytest.mark.parametrize("change", [damage_mask, forget_manifest, change_scan])
def test_resume_redoes_what_no_longer_stands(predict, scan, tmp_path, write_scan, change):
    out = tmp_path / "out"
    predict(scan, "liver", "-o", out)
    change(out, scan, write_scan)
    said = predict(scan, "liver", "-o", out, "--resume")
    assert said.code == 0
    assert "kept" not in said.err
    assert is_complete(out, prompts=["liver"])
    assert nib.load(out / "liver.nii.gz").shape == SHAPE


def test_resume_does_not_discard_masks_of_prompts_not_asked_for(predict, scan, tmp_path):
    out = tmp_path / "out"
    predict(scan, "spleen", "-o", out)
    said = predict(scan, "liver", "-o", out, "--resume")
    assert_one_error(said, exit_code=5, code="E504")
    assert is_complete(out, prompts=["spleen"])


def test_resume_notices_a_changed_dicom_folder(predict, tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for place in range(4):
        write_slice(folder / f"slice{place}", place=place)
    predict(folder, "liver")
    assert "kept" in predict(folder, "liver", "--resume").err
    written = (tmp_path / "series_textseg" / "textseg.json").stat().st_mtime
    write_slice(folder / "slice4", place=4)
    os.utime(folder / "slice4", (written + 5, written + 5))
    said = predict(folder, "liver", "--resume")
    assert (said.code, "kept" in said.err) == (0, False)
    assert read_manifest(tmp_path / "series_textseg").input.shape == (12, 9, 5)


def unwanted(*arguments, **options):
    pytest.fail("the model was loaded although everything was known before")


def write_slice(path: Path, *, place: int) -> None:
    """An axial CT slice of 9 rows and 12 columns."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{place + 1}"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    one = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, f"1.2.3.{place + 1}"
    one.SeriesInstanceUID, one.Modality = "1.2.3", "CT"
    one.Rows, one.Columns, one.SamplesPerPixel = 9, 12, 1
    one.PixelSpacing, one.ImageOrientationPatient = [6.5, 7.0], [1, 0, 0, 0, 1, 0]
    one.ImagePositionPatient = [-40, -30, 9.0 * place]
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    one.PhotometricInterpretation = "MONOCHROME2"
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    values = np.random.default_rng(place).normal(1064, 30, (9, 12)).astype(np.int16)
    one.PixelData = values.tobytes()
    one.save_as(path, enforce_file_format=True)
