from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import yaml

from textseg.datasets import load_registry
from textseg.errors import InputError
from textseg.outputs.manifest import (
    InputRecord,
    Manifest,
    ModelRecord,
    PromptRecord,
    RunRecord,
    SoftwareRecord,
)
from textseg.resources import data_folder
from textseg.training.evaluation import evaluate, read_case_table, read_label_names

AFFINE = np.array([[0, -1.5, 0, 9], [2.0, 0, 0, -4], [0, 0, 3.0, 1], [0, 0, 0, 1]])
VOXEL_ML = 0.009
NAMES = {"liver": 1, "kidney_left": 2, "kidney_right": 3}


@pytest.fixture
def labels():
    """10 x 8 x 6 voxels: liver 60, left kidney 12, right kidney 8."""
    values = np.zeros((10, 8, 6), dtype=np.uint8)
    values[1:6, 1:5, 1:4] = 1
    values[7:9, 1:4, 2:4] = 2
    values[7:9, 5:7, 2:4] = 3
    return values


def write(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def by_structure(table):
    return {row.structure: row for row in table.rows}


def write_result(folder, masks, absent=()):
    """A result folder as a prediction leaves it, sure of what it found and unsure of the rest."""
    prompts = [
        PromptRecord(
            prompt=prompt, status="ok", file=f"{number}.nii.gz", concepts=concepts, presence=0.9
        )
        for number, (prompt, (_, concepts)) in enumerate(masks.items())
    ]
    prompts += [PromptRecord(prompt=prompt, status="not_found", presence=0.2) for prompt in absent]
    for number, (mask, _) in enumerate(masks.values()):
        write(folder / f"{number}.nii.gz", mask.astype(np.uint8))
    manifest = Manifest(
        software=SoftwareRecord.current(),
        input=InputRecord(
            path=None,
            format="array",
            sha256=None,
            shape=(10, 8, 6),
            spacing_mm=(2, 1.5, 3),
            orientation="ALS",
            modality="ct",
        ),
        run=RunRecord(
            model=ModelRecord(name="m", version="1", sha256="0"), device="cpu", precision="float32"
        ),
        prompts=tuple(prompts),
    )
    (folder / "textseg.json").write_text(manifest.model_dump_json())


def test_two_binary_masks_give_one_row_whatever_their_foreground_value(labels, tmp_path):
    ref = (labels == 1).astype(np.uint8) * 255
    pred = (labels == 1).astype(np.uint8)
    pred[1] = 0  # 12 of 60 voxels
    table = evaluate(write(tmp_path / "p" / "liver.nii.gz", pred), write(tmp_path / "r.nii", ref))
    (row,) = table.rows
    assert (row.structure, row.status) == ("liver", "ok")
    assert row.dice == 2 * 48 / (48 + 60)
    assert row.volume_pred_ml == pytest.approx(48 * VOXEL_ML)
    assert row.volume_ref_ml == pytest.approx(60 * VOXEL_ML)
    # a slab of one voxel is missing along the first axis, where voxels measure 2 mm
    assert row.hd95_mm == pytest.approx(2.0)
    assert row.nsd == 1.0


def test_an_empty_prediction_is_a_score_not_an_error(labels, tmp_path):
    pred = write(tmp_path / "p.nii.gz", np.zeros_like(labels))
    (row,) = evaluate(pred, write(tmp_path / "r.nii.gz", (labels == 1).astype(np.uint8))).rows
    assert (row.dice, row.nsd, row.hd95_mm) == (0.0, 0.0, math.inf)


def test_label_maps_are_compared_name_by_name(labels, tmp_path):
    pred = labels.copy()
    pred[labels == 2], pred[labels == 3] = 3, 2
    paths = write(tmp_path / "p.nii.gz", pred), write(tmp_path / "r.nii.gz", labels)
    names = {**NAMES, "kidneys": [2, 3], "uterus": 9}
    rows = by_structure(evaluate(*paths, names=names))
    assert list(rows) == ["liver", "kidney_left", "kidney_right", "kidneys"]
    assert [row.dice for row in rows.values()] == [1.0, 0.0, 0.0, 1.0]
    assert set(by_structure(evaluate(*paths))) == {"1", "2", "3"}


def test_a_result_folder_is_paired_with_a_label_map_by_prompt_or_concept(labels, tmp_path):
    masks = {
        "left kidney": (labels == 2, ()),
        "the big one": (labels == 1, ("liver",)),
        "pancreas": (labels == 1, ()),
    }
    write_result(tmp_path / "out", masks, absent=["right kidney"])
    ref = write(tmp_path / "ref.nii.gz", labels)
    table = evaluate(tmp_path / "out", ref, names=NAMES)
    rows = by_structure(table)
    assert rows["left kidney"].dice == rows["the big one"].dice == 1.0
    assert (rows["right kidney"].status, rows["right kidney"].dice) == ("not_found", 0.0)
    assert table.unmatched == ("out: 'pancreas' is only in the prediction",)


def test_a_structure_absent_from_both_counts_apart_from_the_mean(labels, tmp_path):
    masks = {"liver": (labels == 1, ()), "spleen": (labels == 2, ())}
    write_result(tmp_path / "out", masks, absent=["uterus"])
    ref = write(tmp_path / "ref.nii.gz", np.where(labels == 1, 1, 0).astype(np.uint8))
    table = evaluate(tmp_path / "out", ref, names={"liver": 1, "uterus": 7, "spleen": 8})
    assert by_structure(table)["uterus"].dice == 1.0
    assert by_structure(table)["spleen"].dice == 0.0
    summary = table.summary()
    assert (summary["structures"], summary["dice"]) == (1, 1.0)
    assert (summary["absent"], summary["absent_but_predicted"]) == (2, 1)


def test_folders_of_results_are_paired_by_case(labels, tmp_path):
    for case in ("a", "b"):
        write_result(tmp_path / "out" / case, {"liver": (labels == 1, ())})
    write(tmp_path / "ref" / "a.nii.gz", labels)
    write(tmp_path / "ref" / "b" / "liver.nii.gz", (labels == 1).astype(np.uint8))
    table = evaluate(tmp_path / "out", tmp_path / "ref", names=NAMES)
    assert [(row.case, row.structure, row.dice) for row in table.rows] == [
        ("a", "liver", 1.0),
        ("b", "liver", 1.0),
    ]


def test_predictions_named_after_nnunet_scans_are_paired_with_their_masks(labels, tmp_path):
    write_result(tmp_path / "results" / "a_0000", {"liver": (labels == 1, ())}, absent=["spleen"])
    write(tmp_path / "maps" / "a_0000.nii.gz", labels)
    write(tmp_path / "ref" / "a.nii.gz", labels)
    names = {"liver": 1, "spleen": 9}
    from_results = evaluate(tmp_path / "results", tmp_path / "ref", names=names)
    from_maps = evaluate(tmp_path / "maps", tmp_path / "ref", names=names)
    for table in (from_results, from_maps):
        assert (table.rows[0].case, table.rows[0].dice) == ("a", 1.0)
    assert by_structure(from_results)["spleen"].status == "not_found"
    assert from_results.rows[0].modality == "ct"  # its manifest was found, too


def test_folders_of_mask_files_are_paired_by_file_name(labels, tmp_path):
    for value, name in enumerate(("liver", "left", "only pred"), start=1):
        write(tmp_path / "pred" / f"{name}.nii.gz", (labels == value).astype(np.uint8))
    for value, name in enumerate(("liver", "left", "only ref"), start=1):
        write(tmp_path / "ref" / f"{name}.nii", (labels == value).astype(np.uint8))
    table = evaluate(tmp_path / "pred", tmp_path / "ref")
    assert {(row.case, row.dice) for row in table.rows} == {("liver", 1.0), ("left", 1.0)}
    assert len(table.unmatched) == 2


@pytest.mark.parametrize("change", ["shape", "moved", "turned", "spacing"])
def test_masks_on_different_grids_are_not_compared(labels, tmp_path, change):
    affine, values = AFFINE.copy(), labels
    if change == "shape":
        values = labels[:-1]
    if change == "moved":
        affine[0, 3] += 1
    if change == "turned":
        affine[0, 1] *= -1
    if change == "spacing":
        affine[2, 2] = 3.3
    paths = write(tmp_path / "p.nii.gz", labels), write(tmp_path / "r.nii.gz", values, affine)
    with pytest.raises(InputError) as caught:
        evaluate(*paths, names=NAMES)
    assert caught.value.code == "E321"
    assert caught.value.path == paths[0]


def test_rounding_of_a_stored_affine_is_not_a_different_grid(labels, tmp_path):
    paths = (
        write(tmp_path / "p.nii.gz", labels),
        write(tmp_path / "r.nii.gz", labels, AFFINE + 1e-4),
    )
    assert evaluate(*paths, names=NAMES).mean("dice") == 1.0


def test_probabilities_are_not_labels(tmp_path):
    soft = np.linspace(0, 1, 480, dtype=np.float32).reshape(10, 8, 6)
    path = write(tmp_path / "p.nii.gz", soft)
    with pytest.raises(InputError, match="no labels"):
        evaluate(path, path)


@pytest.mark.parametrize(
    ("pred", "code"), [("gone.nii.gz", "E301"), ("text.nii.gz", "E305"), ("empty", "E300")]
)
def test_what_cannot_be_compared_has_its_code(labels, tmp_path, pred, code):
    (tmp_path / "text.nii.gz").write_text("not a mask, though its name says so")
    (tmp_path / "empty").mkdir()
    ref = write(tmp_path / "ref.nii.gz", labels)
    with pytest.raises(InputError) as caught:
        evaluate(tmp_path / pred, ref, names=NAMES)
    assert caught.value.code == code


@pytest.mark.parametrize("content", ['{"liver": 1}', '{"1": "liver"}', '{"liver": [1]}'])
def test_label_names_may_be_written_either_way_round(tmp_path, content):
    path = tmp_path / "names.json"
    path.write_text(content)
    assert read_label_names(path) == {"liver": (1,)}


def test_label_names_may_come_from_nnunet(tmp_path):
    path = tmp_path / "dataset.json"
    about = {"channel_names": {"0": "CT"}, "numTraining": 2, "file_ending": ".nii.gz"}
    labels = {"background": 0, "kidneys": [2, 3], "kidney": 3, "ignore": 4}
    path.write_text(json.dumps({**about, "labels": labels}), encoding="utf-8")
    assert read_label_names(path) == {"kidneys": (2, 3), "kidney": (3,)}


def test_label_names_may_come_from_the_description_of_a_data_set(tmp_path):
    path = tmp_path / "mine.yaml"
    described = load_registry()["msd-hippocampus"].model_dump(mode="json", exclude_defaults=True)
    described |= {"name": "mine", "labels": {1: ["liver", "spleen"], 4: ["liver"]}}
    described |= {"complete": "all", "derived": []}
    path.write_text(yaml.safe_dump(described), encoding="utf-8")
    assert read_label_names(path) == {"liver": (1, 4), "spleen": (1,)}


def test_a_description_without_values_names_no_label_map(tmp_path):
    path = tmp_path / "totalsegmentator-organs.yaml"
    text = data_folder("datasets_registry") / path.name
    path.write_text(text.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match="a file or segment for each structure"):
        read_label_names(path)


@pytest.mark.parametrize("content", ["[1]", '{"liver": null}', '{"liver": "spleen"}', "{"])
def test_what_is_no_table_of_names_is_refused(tmp_path, content):
    path = tmp_path / "names.json"
    path.write_text(content)
    with pytest.raises(InputError, match="label names"):
        read_label_names(path)


def test_tables_are_written_as_csv_and_json(labels, tmp_path):
    pred = np.where(labels == 3, 0, labels)
    paths = write(tmp_path / "p.nii.gz", pred), write(tmp_path / "r.nii.gz", labels)
    table = evaluate(*paths, names=NAMES)
    table.write_csv(tmp_path / "t.csv")
    table.write_json(tmp_path / "t.json")
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["structure"] for row in rows] == list(NAMES)
    assert (rows[0]["dice"], rows[2]["hd95_mm"]) == ("1.0", "inf")
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["rows"][2]["hd95_mm"] is None
    assert content["summary"]["missed"] == 1
    assert content["summary"]["dice"] == pytest.approx(2 / 3)


def test_the_terminal_table_shows_every_row_and_the_mean(labels, tmp_path):
    from rich.console import Console

    path = write(tmp_path / "scan.nii.gz", labels)
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(evaluate(path, path, names=NAMES).to_rich())
    text = console.export_text()
    assert all(word in text for word in (*NAMES, "mean", "1.000", "scan"))


def test_progress_is_told_for_every_structure(labels, tmp_path):
    path = write(tmp_path / "scan.nii.gz", labels)
    calls = []
    evaluate(path, path, names=NAMES, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_rows_carry_the_modality_and_the_presence_scores_of_the_manifest(labels, tmp_path):
    for case in ("a", "b"):
        write_result(tmp_path / "out" / case, {"liver": (labels == 1, ())}, absent=["spleen"])
        write(tmp_path / "ref" / f"{case}.nii.gz", labels)
    table = evaluate(tmp_path / "out", tmp_path / "ref", names={"liver": 1, "spleen": 9})
    assert [(row.case, row.structure, row.presence, row.modality) for row in table.rows] == [
        (case, structure, presence, "ct")
        for case in ("a", "b")
        for structure, presence in (("liver", 0.9), ("spleen", 0.2))
    ]
    single = evaluate(tmp_path / "out" / "a", tmp_path / "ref" / "a.nii.gz", names={"liver": 1})
    assert [(row.presence, row.modality) for row in single.rows] == [(0.9, "ct")]


def test_names_of_structures_are_read_as_concepts_and_regions(labels, tmp_path):
    path = write(tmp_path / "scan.nii.gz", labels)
    names = {
        "kidney_left": 1,
        "Left Kidney": 1,
        "liver tumor": 2,
        "liver and spleen": 3,
        "liver and femur": 3,
        "Structure_17": 1,
    }
    rows = evaluate(path, path, names=names).rows
    assert {row.structure: (row.concept, row.region) for row in rows} == {
        "kidney_left": ("kidney.left", "abdomen"),
        "Left Kidney": ("kidney.left", "abdomen"),
        "liver tumor": ("liver_tumor", "lesion"),
        "liver and spleen": ("liver and spleen", "abdomen"),
        "liver and femur": ("liver and femur", "whole_body"),
        "Structure_17": ("structure 17", "other"),
    }
    assert {(row.dataset, row.modality, row.presence) for row in rows} == {("", "", None)}


def test_the_table_of_cases_says_which_data_set_and_modality_a_scan_is_of(labels, tmp_path):
    write_result(tmp_path / "out", {"liver": (labels == 1, ())})
    path = write(tmp_path / "ref.nii.gz", labels)
    cases = {"out": {"dataset": "BTCV", "modality": "MR", "sex": "f"}}
    (row,) = evaluate(tmp_path / "out", path, names={"liver": 1}, cases=cases).rows
    assert (row.dataset, row.modality) == ("BTCV", "mr")
    silent = {"out": {"modality": ""}}
    (row,) = evaluate(tmp_path / "out", path, names={"liver": 1}, cases=silent).rows
    assert (row.dataset, row.modality) == ("", "ct")


def test_cases_that_their_table_lacks_are_all_named_before_any_is_scored(labels, tmp_path):
    for case in ("a", "b", "c", "lonely"):
        write(tmp_path / "pred" / f"{case}.nii.gz", labels)
    for case in ("a", "b", "c"):
        write(tmp_path / "ref" / f"{case}.nii.gz", labels)
    calls = []
    with pytest.raises(InputError, match="lacks 'a', 'c'"):
        evaluate(
            tmp_path / "pred",
            tmp_path / "ref",
            names=NAMES,
            cases={"b": {}, "x": {}},
            progress=lambda *call: calls.append(call),
        )
    assert calls == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'case,sex,site\na,f,"Bern, CH"\nb,,1\n'),
        ("t.TSV", "case\tsex\tsite\na\tf\tBern, CH\nb\t\t1\n"),
        (
            "t.json",
            '[{"case": "a", "sex": "f", "site": "Bern, CH"},'
            ' {"case": "b", "sex": null, "site": 1}]',
        ),
        ("bom.csv", '\ufeffcase,sex,site\na,f,"Bern, CH"\nb,,1\n'),
    ],
)
def test_tables_of_cases_are_read_in_three_formats(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    table = read_case_table(path)
    assert table == {"a": {"sex": "f", "site": "Bern, CH"}, "b": {"sex": "", "site": "1"}}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.csv", "id,sex\na,f\n", "'id'"),
        ("t.csv", "sex,case\nf,a\n", "first column"),
        ("t.csv", "case,sex\na,f\na,m\n", "'a' is there twice"),
        ("t.csv", "case,sex\na,f,extra\n", "extra"),
        ("t.csv", "case,sex\na\n", "None"),
        ("t.csv", 'case,sex\na,"f', "table of cases"),
        ("t.json", '{"a": {"sex": "f"}}', "list"),
        ("t.json", "[{}]", "one line"),
        ("t.json", "[", "JSON"),
        ("t.xlsx", "case,sex\n", "xlsx"),
    ],
)
def test_what_is_no_table_of_cases_is_refused(tmp_path, name, content, why):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=why) as caught:
        read_case_table(path)
    assert caught.value.path == path


def test_a_table_of_cases_that_is_not_there_cannot_be_read(tmp_path):
    with pytest.raises(InputError) as caught:
        read_case_table(tmp_path / "gone.csv")
    assert caught.value.code == "E303"


def test_evaluation_needs_no_training_framework():
    script = (
        "import sys, textseg.training.evaluation as e; "
        "raise SystemExit(bool({'lightning', 'monai', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
