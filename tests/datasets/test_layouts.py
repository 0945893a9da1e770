"""Every registry entry, and every layout, reads a tiny data set back to the right concepts."""

import json

import nibabel
import numpy as np
import pydicom
import pytest
from pydantic import ValidationError
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tests.datasets.trees import CASES, SPACING_MM, place_of, shape_for, write_tree
from textseg.datasets import LabelSpace, find_cases, load_registry, read_label_map, registered
from textseg.datasets.layouts import bids
from textseg.datasets.layouts.nnunet import read_description
from textseg.datasets.layouts.pattern import Pattern
from textseg.datasets.segments import inside_polygon, read_segments
from textseg.datasets.spec import DatasetSpec
from textseg.errors import InputError, ModelError
from textseg.imaging.readers.dicom import STRUCTURE_SET
from textseg.knowledge import load_tree

TREE = load_tree()
REGISTRY = registered(load_registry())
FACTS = {
    "name": "toy",
    "title": "Toy",
    "modality": {"ct": []},
    "region": "abdomen",
    "complete": "all",
    "licence": "CC0-1.0",
    "citation": "Nobody 2020.",
    "homepage": "https://example.org",
}
NUMBERED = {1: "liver", 2: "kidney.left", 4: None, 7: ["kidney.right", "liver"]}
NAMED = {"Liver": "liver", "kidney_left": "kidney.left", "junk": None}


def toy(layout, labels=NUMBERED, **changes):
    return DatasetSpec(**{**FACTS, "layout": layout, "labels": labels, **changes})


TOYS = {
    "one file": {"kind": "files", "images": {"": "{case}.nrrd"}, "masks": "{case}-seg.nrrd"},
    "sequences": {
        "kind": "files",
        "images": {"t1": "{case}/t1.nii.gz", "t2": "{case}/t2_*.mha"},
        "masks": "**/{case}_seg.nii",
    },
    "channels": {
        "kind": "files",
        "images": {"": "{case}.nii.gz"},
        "masks": "m/{case}.nii.gz",
        "channels": True,
    },
    "slices": {"kind": "files", "images": {"": "{case}/ct"}, "masks": "{case}/png"},
    "matlab": {"kind": "files", "images": {"": "{case}/ct"}, "masks": "{case}.mat"},
    "nnunet": {"kind": "nnunet", "folder": "Dataset001_Toy"},
    "decathlon": {"kind": "nnunet", "folder": "Task01_Toy", "sequences": ["t2", "adc"]},
    "bids": {
        "kind": "bids",
        "images": {"t1": "T1w", "flair": "FLAIR"},
        "entities": {"label": "L"},
        "derivatives": "derivatives/manual",
    },
    "freesurfer": {"kind": "freesurfer"},
}
NAMED_TOYS = {
    "structures": {
        "kind": "files",
        "images": {"": "{case}/ct.nii.gz"},
        "masks": "{case}/segmentations/{structure}.nii.gz",
    },
    "segments": {"kind": "dicom", "cases": "patients/{case}"},
}
ARRAYS = ("toothfairy",)
"""Data sets of NumPy arrays, which do not say where their voxels lie."""
SPECS = {
    **{name: spec for name, spec in REGISTRY.items() if name not in ARRAYS},
    "textbrats": load_registry()["textbrats"],
    **{f"toy: {name}": toy(layout) for name, layout in TOYS.items()},
    **{f"toy: {name}": toy(layout, NAMED) for name, layout in NAMED_TOYS.items()},
}


@pytest.mark.parametrize("name", SPECS)
def test_an_entry_reads_its_layout_back_to_its_concepts(name, tmp_path):
    spec = SPECS[name]
    write_tree(spec, tmp_path)
    cases = find_cases(spec, tmp_path)
    sequences = (
        len(getattr(spec.layout, "images", None) or getattr(spec.layout, "sequences", "")) or 1
    )
    assert len(cases) == len({case.id for case in cases}) == len(CASES) * sequences
    case = cases[-1]
    scan = case.read_image()
    assert scan.data.shape[1:] == shape_for(spec)
    seen, labels = read_label_map(case)
    assert labels.geometry.matches(scan.geometry)
    for key, concepts in spec.labels.items():
        value = labels.values[place_of(spec, key)]
        assert seen.labels.get(value, ()) == concepts, key
    assert labels.values[0, 0, 0] == 0
    assert set(seen.unnamed) | set(seen.labels) == set(labels.present())


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_without_a_placement_are_refused(name, tmp_path):
    write_tree(REGISTRY[name], tmp_path)
    case = find_cases(REGISTRY[name], tmp_path)[0]
    with pytest.raises(InputError, match=r"E305.*\.npy"):
        read_label_map(case)
    with pytest.raises(InputError, match=r"E305.*\.npy"):
        case.read_image()


@pytest.mark.parametrize("name", sorted(SPECS.keys() & REGISTRY.keys()))
def test_every_concept_of_an_entry_is_told_by_its_masks(name, tmp_path):
    spec = SPECS[name]
    write_tree(spec, tmp_path)
    seen, labels = read_label_map(find_cases(spec, tmp_path)[0])
    concepts = (*spec.concepts, *spec.derived)
    space = LabelSpace.of([seen], tree=TREE, also=spec.derived)
    told = space.values(seen)
    for concept in concepts:
        mask = np.isin(labels.values, told[concept])
        own = [key for key, ids in spec.labels.items() if concept in ids]
        assert mask.any()
        assert all(mask[place_of(spec, key)] for key in own)


def test_structures_may_overlap(tmp_path):
    spec = SPECS["toy: structures"]
    write_tree(spec, tmp_path)
    seen, labels = read_label_map(find_cases(spec, tmp_path)[0])
    shared = labels.values[-1, -1, -1]
    assert seen.labels[shared] == ("liver", "kidney.left")
    assert np.isin(labels.values, seen.values("liver")).sum() == 2


def test_fields_join_scans_to_masks_and_name_the_case(tmp_path):
    layout = {
        "kind": "files",
        "images": {"": "img/{case}_{frame}.nii.gz"},
        "masks": "seg/{case}_by{rater}.nii.gz",
    }
    for name in ("img/a_1", "img/a_2", "img/b_1", "seg/a_byX", "seg/c_byX"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    cases = find_cases(toy(layout), tmp_path)
    assert [case.id for case in cases] == ["a_1_X", "a_2_X"]
    assert [case.masks[""].name for case in cases] == ["a_byX.nii.gz"] * 2


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        ("{case}.nii", "a.nii", {"case": "a"}),
        ("{case}.nii", "a/b.nii", None),
        ("{case}.nii", "a.niix", None),
        ("**/{case}.nii", "x/y/a.nii", {"case": "a"}),
        ("**/{case}.nii", "a.nii", {"case": "a"}),
        ("s*/{case}_*.nii", "s1/a_t1.nii", {"case": "a"}),
        ("{case}/{case}.nii", "a/b.nii", None),
        ("a{b:[05]*}.nii", "a07.nii", {"b": "07"}),
        ("a{b:[05]*}.nii", "a17.nii", None),
        ("{a}_{b}.nii", "x_y.nii", {"a": "x", "b": "y"}),
    ],
)
def test_a_pattern_fits_a_path_or_not(pattern, path, fields):
    assert Pattern(pattern).match(path) == fields


@pytest.mark.parametrize(
    ("layout", "labels", "cause"),
    [
        ({"kind": "files", "images": {}, "masks": "{case}"}, NUMBERED, "at least 1"),
        ({"kind": "files", "images": {"": "{case}"}, "masks": "m"}, NUMBERED, "tells cases apart"),
        ({"kind": "files", "images": {"": "x"}, "masks": "{case}"}, NUMBERED, "share no field"),
        (NAMED_TOYS["structures"], NUMBERED, "labels are numbers"),
        (TOYS["one file"], NAMED, "labels are names"),
        (NAMED_TOYS["structures"] | {"channels": True}, NAMED, "not both"),
        ({"kind": "zip"}, NUMBERED, "zip"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(layout, labels, cause):
    with pytest.raises(ValidationError, match=cause):
        toy(layout, labels)


def test_a_layout_is_for_one_modality():
    with pytest.raises(ValidationError, match="one modality"):
        toy(TOYS["one file"], modality={"ct": [], "mr": []})


def test_a_folder_without_cases_says_how_it_should_look(tmp_path):
    with pytest.raises(ModelError, match=r"E406.*no scan with a mask as toy lies.*data show toy"):
        find_cases(toy(TOYS["one file"]), tmp_path)
    with pytest.raises(ModelError, match=r"E406.*is no folder"):
        find_cases(toy(TOYS["one file"]), tmp_path / "absent")


def test_nnunet_files_per_channel_are_its_sequences(tmp_path):
    about = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "file_ending": ".nii.gz",
        "numTraining": 1,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    for name in ("imagesTr/a_0000", "imagesTr/a_0001", "labelsTr/a"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = toy({"kind": "nnunet"}, {1: "liver", 2: "spleen"}).layout.find(tmp_path, [])
    assert [(f.sequence, f.image.name) for f in found] == [
        ("CT", "a_0000.nii.gz"),
        ("PET", "a_0001.nii.gz"),
    ]
    labels = read_description(tmp_path / "dataset.json").labels
    assert labels == {1: ("whole",), 2: ("whole", "core")}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"labels": {"a": 1}}', '{"modality": 3, "labels": {}}']
)
def test_a_damaged_description_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ModelError, match=r"E406.*dataset\.json"):
        read_description(tmp_path / "dataset.json")


def test_names_of_bids_labels_come_from_the_nearest_table(tmp_path):
    mask = tmp_path / "sub-1/anat/sub-1_dseg.nii.gz"
    mask.parent.mkdir(parents=True)
    assert bids.read_names(mask, tmp_path) == {}
    (tmp_path / "dseg.tsv").write_text("index\tname\tcolor\n0\tbackground\t#0\n7\tLiver\t#f\n")
    assert bids.read_names(mask, tmp_path) == {7: "Liver"}
    (mask.parent / "sub-1_dseg.tsv").write_text("index\tname\n1\tSpleen\n")
    assert bids.read_names(mask, tmp_path) == {1: "Spleen"}


def test_masks_that_are_no_labels_are_refused_by_file(tmp_path):
    spec = SPECS["toy: one file"]
    write_tree(spec, tmp_path)
    case = find_cases(spec, tmp_path)[0]
    half = nibabel.Nifti1Image(np.full(shape_for(spec), 0.5, np.float32), np.eye(4))
    nibabel.save(half, tmp_path / "half.nii.gz")
    (tmp_path / "half.nii.gz").replace(case.masks[""])
    with pytest.raises(InputError, match=r"E322.*c1-seg\.nrrd"):
        read_label_map(case)


def test_structures_that_lie_apart_are_refused(tmp_path):
    spec = SPECS["toy: structures"]
    write_tree(spec, tmp_path)
    case = find_cases(spec, tmp_path)[0]
    path = case.masks["Liver"]
    moved = np.diag([-0.5, -0.75, 3.0, 1.0])
    moved[2, 3] = 9
    nibabel.save(nibabel.Nifti1Image(np.ones(shape_for(spec), np.uint8), moved), path)
    with pytest.raises(InputError, match=r"E321.*lies elsewhere"):
        read_label_map(case)


def test_a_mask_on_its_own_grid_is_brought_onto_that_of_the_scan(tmp_path):
    spec = toy(
        {"kind": "files", "images": {"": "{case}.nii"}, "masks": "m{case}.nii", "own_grid": True}
    )
    fine = np.zeros((12, 8, 9), np.uint8)
    fine[6:8, 2:4, 3:6] = 2
    nibabel.save(nibabel.Nifti1Image(fine, np.diag([-1, 1, 1, 1.0])), tmp_path / "m1.nii")
    coarse = np.diag([-2, 2, 3, 1.0])
    coarse[:3, 3] = [-0.5, 0.5, 1.0]
    scan = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(scan, coarse), tmp_path / "1.nii")
    case = find_cases(spec, tmp_path)[0]
    _, labels = read_label_map(case)
    assert labels.values.shape == (6, 4, 3)
    assert np.argwhere(labels.values).tolist() == [[3, 1, 1]]


CONTOURS = [
    [[0.6, 0.6], [5.2, 0.6], [5.2, 3.4], [0.6, 3.4]],
    [[1.6, 1.6], [4.4, 1.6], [4.4, 2.4], [1.6, 2.4]],
]


def write_contours(path, case, *, level):
    """An outline and a hole in it, in pixels of the slice at a level, as an RTSTRUCT."""
    headers = [pydicom.dcmread(p) for p in sorted((case / "scan").glob("*.dcm"))]
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = STRUCTURE_SET, generate_uid()
    header.Modality = "RTSTRUCT"
    series = pydicom.Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    study, frame = pydicom.Dataset(), pydicom.Dataset()
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    header.ReferencedFrameOfReferenceSequence = [frame]
    roi, drawn = pydicom.Dataset(), pydicom.Dataset()
    roi.ROINumber, roi.ROIName = 5, "Liver"
    drawn.ReferencedROINumber, drawn.ContourSequence = 5, []
    for corners in CONTOURS:
        contour = pydicom.Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        points = [[x * SPACING_MM[0], y * SPACING_MM[1], level * SPACING_MM[2]] for x, y in corners]
        contour.ContourData = np.round(points, 4).ravel().tolist()
        drawn.ContourSequence.append(contour)
    header.StructureSetROISequence, header.ROIContourSequence = [roi], [drawn]
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = STRUCTURE_SET
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(path, enforce_file_format=True)


def test_contours_become_masks_with_holes(tmp_path):
    spec = SPECS["toy: segments"]
    write_tree(spec, tmp_path)
    folder = tmp_path / "patients/p1"
    write_contours(folder / "mask.dcm", folder, level=1)
    case = find_cases(spec, tmp_path)[0]
    seen, labels = read_label_map(case)
    (value,) = seen.values("liver")
    expected = np.zeros(shape_for(spec), bool)
    expected[1:6, 1:4, 1] = True
    expected[2:5, 2:3, 1] = False
    assert np.array_equal(labels.values == value, expected)


def test_contours_between_slices_are_refused(tmp_path):
    spec = SPECS["toy: segments"]
    write_tree(spec, tmp_path)
    folder = tmp_path / "patients/p1"
    write_contours(folder / "mask.dcm", folder, level=1.5)
    with pytest.raises(InputError, match=r"E321.*'Liver' between the slices"):
        read_label_map(find_cases(spec, tmp_path)[0])


def test_a_dicom_file_that_is_no_mask_is_refused(tmp_path):
    spec = SPECS["toy: segments"]
    write_tree(spec, tmp_path)
    case = find_cases(spec, tmp_path)[0]
    with pytest.raises(InputError, match=r"E305.*neither a SEG nor an RTSTRUCT"):
        read_segments(next((tmp_path / "patients/p1/scan").iterdir()), case.read_image().geometry)


def test_slices_may_run_from_head_to_feet(tmp_path):
    layout = TOYS["slices"]
    write_tree(toy(layout), tmp_path)
    up, down = (
        read_label_map(find_cases(toy({**layout, "head_first": first}), tmp_path)[0])[1].values
        for first in (False, True)
    )
    assert np.array_equal(up, down[:, :, ::-1])
    assert not np.array_equal(up, down)


def test_slices_of_another_size_than_the_scan_are_refused(tmp_path):
    spec = SPECS["toy: slices"]
    write_tree(spec, tmp_path)
    case = find_cases(spec, tmp_path)[0]
    next(iter(sorted(case.masks[""].glob("*.png")))).unlink()
    with pytest.raises(InputError, match=r"E321.*7 x 5 x 2 voxels, its scan 7 x 5 x 3"):
        read_label_map(case)


def test_a_polygon_holds_the_pixels_whose_centres_it_encloses():
    triangle = np.array([[-0.5, -0.5], [4.6, -0.5], [-0.5, 4.6]])
    expected = np.add.outer(np.arange(5), np.arange(5)) < 4.1
    assert np.array_equal(inside_polygon(triangle, (5, 5)), expected)
    assert not inside_polygon(triangle + 20, (5, 5)).any()
