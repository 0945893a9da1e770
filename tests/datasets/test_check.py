"""Checks of data sets: each fault is found by its kind, and sound data have none."""

import json
import os
import zlib
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from tests.datasets.trees import write_tree
from textseg.datasets import find_cases, read_label_map
from textseg.datasets.checks import check_case, check_cases
from textseg.datasets.checks.measures import measure
from textseg.datasets.spec import DatasetSpec
from textseg.errors import Cancelled, ResourceError
from textseg.knowledge import load_tree

TREE = load_tree()
SHAPE = (9, 7, 5)
AFFINE = np.diag([-8.0, 9.0, 11.0, 1.0])
"""The first axis runs to the left: the higher the index, the further to the patient's left."""
LABELS = {
    1: "liver",
    2: "kidney.left",
    3: "kidney.right",
    4: None,
    5: "adrenal_gland.left",
    6: "adrenal_gland.right",
    7: "lung.left",
    8: "lung.right",
}
PLACES = {1: 3, 2: 7, 3: 1, 4: 4, 5: 6, 6: 2, 7: 8, 8: 0}
"""Index along the first axis of each label's voxels."""
ONE_MAP = {"kind": "files", "images": {"": "{case}/ct.nii.gz"}, "masks": "{case}/mask.nii.gz"}
STRUCTURES = ONE_MAP | {"masks": "{case}/masks/{structure}.nii.gz"}


def toy(layout=ONE_MAP, labels=LABELS, **changes):
    facts = {
        "name": "toy",
        "title": "Toy",
        "modality": {"ct": []},
        "region": "abdomen",
        "complete": "all",
        "licence": "CC0-1.0",
        "citation": "Nobody 2020.",
        "homepage": "https://example.org",
    }
    return DatasetSpec(**facts | {"layout": layout, "labels": labels} | changes)


def save(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)


def scan_of(name="a"):
    return np.random.default_rng(zlib.crc32(name.encode())).integers(-900, 900, SHAPE, np.int16)


def mask_of(places=PLACES):
    mask = np.zeros(SHAPE, np.int16)
    for value, x in places.items():
        mask[x, 2:5, 1:3] = value
    return mask


def rows(first, last):
    mask = np.zeros(SHAPE, bool)
    mask[first:last, 2:5, 1:4] = True
    return mask


def write_case(root, name="a", *, scan=None, mask=None, affine=AFFINE, mask_affine=None):
    """A case of the toy data set with one label map, as it is found on disk."""
    save(root / name / "ct.nii.gz", scan_of(name) if scan is None else scan, affine)
    moved = affine if mask_affine is None else mask_affine
    save(root / name / "mask.nii.gz", mask_of() if mask is None else mask, moved)
    return next(case for case in find_cases(toy(), root) if case.id == name)


def write_structures(root, masks):
    """A case with one file for each structure, which is named by its concept."""
    save(root / "a" / "ct.nii.gz", scan_of())
    for concept, mask in masks.items():
        save(root / "a" / "masks" / f"{concept}.nii.gz", mask.astype(np.uint8))
    return find_cases(toy(STRUCTURES, {concept: concept for concept in masks}), root)[0]


def found(case):
    return [(f.severity, f.kind) for f in check_case(case, TREE).findings]


def only(case):
    """The one finding of a case."""
    (finding,) = check_case(case, TREE).findings
    assert finding.case == case.id
    return finding


def moved_by(millimetres):
    affine = AFFINE.copy()
    affine[2, 3] += millimetres
    return affine


def scan_with(*values):
    """A scan whose first voxels in the last row are these."""
    scan = scan_of().astype(np.float32)
    for place, value in enumerate(values):
        scan[place, -1, -1] = value
    return scan


def test_sound_cases_have_no_finding(tmp_path):
    cases = [write_case(tmp_path, name) for name in "ab"]
    told = []
    report = check_cases(cases, tree=TREE, progress=lambda *state: told.append(state))
    assert (report.num_cases, report.findings) == (2, ())
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_sides_are_told_in_the_world_whatever_the_order_of_the_axes(tmp_path, axes):
    affine = AFFINE[:, [*axes, 3]]
    data = {"scan": scan_of().transpose(axes), "mask": mask_of().transpose(axes)}
    assert found(write_case(tmp_path, affine=affine, **data)) == []
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine
    case = write_case(tmp_path, affine=mirrored, **data)
    assert found(case) == [("error", "sides-swapped")]


def test_pairs_that_are_all_swapped_are_one_error_that_names_them(tmp_path):
    finding = only(write_case(tmp_path, mask=mask_of()[::-1]))
    assert (finding.severity, finding.kind) == ("error", "sides-swapped")
    assert "3 of 3 pairs" in finding.message
    assert "adrenal_gland.left and adrenal_gland.right" in finding.message
    assert "orientation of the scan or the table of labels" in finding.message


def test_a_swapped_pair_among_others_is_named(tmp_path):
    finding = only(write_case(tmp_path, mask=mask_of(PLACES | {2: 1, 3: 7})))
    assert (finding.severity, finding.kind) == ("error", "pair-swapped")
    assert "kidney.left 48 mm to the right of kidney.right" in finding.message


def test_a_pair_that_lies_behind_one_another_has_no_sides(tmp_path):
    mask = mask_of(PLACES | {2: 4, 3: 5, 4: 1})
    mask[4:6] = 0
    # 8 mm to the wrong side, with 4 rows of 9 mm and 4 planes of 11 mm between: most of 57 mm
    mask[4, 0, 0], mask[5, 4, 4] = 2, 3
    assert found(write_case(tmp_path, mask=mask)) == [("error", "pair-swapped")]
    mask[5, 4, 4], mask[4, 4, 4] = 0, 3
    assert found(write_case(tmp_path, mask=mask)) == []


def test_a_few_millimetres_tell_no_sides(tmp_path):
    small = np.diag([-0.6, 0.7, 0.9, 1.0])
    assert found(write_case(tmp_path, mask=mask_of()[::-1], affine=small)) == []


@pytest.mark.parametrize(
    ("places", "kinds"),
    [
        ({2: 7, 5: 6, 6: 2}, []),
        ({2: 1, 5: 6, 6: 2}, ["wrong-side"]),
        ({3: 7, 5: 6, 6: 2}, ["wrong-side"]),
        # 8 mm beyond the middle is where midline structures reach
        ({2: 3, 5: 6, 6: 2}, []),
        # no pair, no middle
        ({2: 1, 5: 6, 8: 2}, []),
    ],
)
def test_a_lone_structure_is_compared_with_the_middle_between_pairs(tmp_path, places, kinds):
    case = write_case(tmp_path, mask=mask_of(places))
    assert found(case) == [("warning", kind) for kind in kinds]


def test_centroids_are_those_of_scipy(tmp_path):
    rng = np.random.default_rng(5)
    affine = np.array([[2, 0.3, 0, 5], [-0.4, 3, 0, 6], [0, 0, 4, -7], [0, 0, 0, 1.0]])
    mask = rng.integers(-2, 9, SHAPE).astype(np.int16)
    case = write_case(tmp_path, mask=mask, affine=affine)
    measures = measure(read_label_map(case))
    assert measures.num_voxels == {v: (mask == v).sum() for v in (1, 2, 3, 5, 6, 7, 8)}
    centre = ndimage.center_of_mass(mask == 6)
    expected = affine @ [*centre, 1]
    # sums of a few hundred whole numbers are exact, one division and one product are not
    assert np.allclose(measures.centroids["adrenal_gland.right"], expected[:3], atol=1e-9)


@pytest.mark.parametrize(
    ("broken", "kind", "code"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "truncated", "E306"),
        (lambda path: path.write_bytes(b""), "empty", "E304"),
        (lambda path: path.write_bytes(b"no scan" * 99), "not-an-image", "E305"),
        (lambda path: path.unlink(), "missing", "E301"),
        (lambda path: save(path, np.full(SHAPE, 0.5, np.float32)), None, None),
    ],
)
@pytest.mark.parametrize("name", ["ct.nii.gz", "mask.nii.gz"])
def test_a_file_that_cannot_be_read_is_a_finding_with_the_code(tmp_path, name, broken, kind, code):
    case = write_case(tmp_path)
    broken(tmp_path / "a" / name)
    if kind is None:
        is_mask = name.startswith("mask")
        kind, code = ("not-a-label-map", "E322") if is_mask else ("constant-image", "E316")
    finding = only(case)
    assert (finding.severity, finding.kind) == ("error", kind)
    assert finding.file == tmp_path / "a" / name
    assert finding.message.endswith(f"({code})")


def test_one_unreadable_case_does_not_stop_the_others(tmp_path):
    cases = [write_case(tmp_path, name) for name in "abc"]
    cases[0].image.write_bytes(b"")
    cases[2].masks[""].write_bytes(b"")
    report = check_cases(cases, tree=TREE)
    assert [(f.case, f.kind) for f in report.findings] == [("a", "empty"), ("c", "empty")]
    assert (report.num_errors, report.counts) == (2, {"empty": 2})


def test_a_damaged_scan_is_reported_once_where_its_mask_needs_it(tmp_path):
    spec = toy({"kind": "files", "images": {"": "{case}.nii.gz"}, "masks": "{case}.mat"})
    write_tree(spec, tmp_path)
    case = find_cases(spec, tmp_path)[0]
    case.image.write_bytes(b"")
    assert found(case) == [("error", "empty")]


def test_non_finite_voxels_are_an_error_however_few(tmp_path):
    finding = only(write_case(tmp_path, scan=scan_with(np.nan, np.inf)))
    assert (finding.severity, finding.kind) == ("error", "non-finite-voxels")
    assert finding.message.startswith("2 voxels were NaN or infinite")


def test_a_ct_without_hounsfield_units_is_a_warning(tmp_path):
    case = write_case(tmp_path, scan=scan_of() + np.int16(900))
    assert found(case) == [("warning", "not-hounsfield")]


def test_what_else_the_reader_notes_is_a_warning(tmp_path):
    finding = only(write_case(tmp_path, affine=None))
    assert (finding.severity, finding.kind) == ("warning", "odd-scan")
    assert "left and right may be swapped" in finding.message


@pytest.mark.parametrize(
    ("shift_mm", "expected"),
    [
        (0.004, []),
        (0.2, [("warning", "shifted-grid")]),
        (3.0, [("error", "geometry-mismatch")]),
    ],
)
def test_how_far_a_mask_lies_from_its_scan_decides(tmp_path, shift_mm, expected):
    assert found(write_case(tmp_path, mask_affine=moved_by(shift_mm))) == expected


def test_a_mask_of_another_size_than_its_scan_is_an_error(tmp_path):
    finding = only(write_case(tmp_path, mask=mask_of()[:, :-1]))
    assert (finding.severity, finding.kind) == ("error", "geometry-mismatch")
    assert "has 9 x 6 x 5 voxels, its scan 9 x 7 x 5" in finding.message


def test_values_without_a_label_are_named(tmp_path):
    mask = mask_of()
    mask[0, 0, :3] = 9, -2, 4
    finding = only(write_case(tmp_path, mask=mask))
    assert (finding.severity, finding.kind) == ("error", "unknown-label")
    assert finding.message.startswith("holds -2, 9, of which")


@pytest.mark.parametrize(
    ("layout", "labels", "known", "unknown"),
    [
        (
            {"images": {"": "{case}.nii.gz"}, "masks": "m/{case}.nii.gz", "channels": True},
            {1: "liver", 2: "spleen", 3: None},
            {1: "liver"},
            "2, 3",
        ),
        (
            {"kind": "dicom"},
            {"Liver": "liver", "Splen": "spleen", "junk": None},
            {"Liver": "liver", "junk": None},
            "Splen",
        ),
    ],
)
def test_volumes_and_segments_without_a_label_are_named(tmp_path, layout, labels, known, unknown):
    layout = {"kind": "files"} | layout
    write_tree(toy(layout, labels), tmp_path)
    findings = check_case(find_cases(toy(layout, known), tmp_path)[0], TREE).findings
    messages = [f.message for f in findings if f.kind == "unknown-label"]
    assert [message.partition(", of which")[0] for message in messages] == [f"holds {unknown}"]


def test_an_empty_volume_needs_no_label(tmp_path):
    layout = {"kind": "files", "images": {"": "{case}.nii"}, "masks": "{case}-m.nii"}
    spec = toy(layout | {"channels": True}, {1: "liver"})
    save(tmp_path / "a.nii", scan_of())
    save(tmp_path / "a-m.nii", np.stack([rows(0, 2), rows(0, 0)], axis=-1).astype(np.uint8))
    assert found(find_cases(spec, tmp_path)[0]) == []


@pytest.mark.parametrize("places", [{}, {4: 4}])
def test_a_mask_without_any_structure_is_a_warning(tmp_path, places):
    assert found(write_case(tmp_path, mask=mask_of(places))) == [("warning", "empty-mask")]


@pytest.mark.parametrize(
    ("other", "mask", "kinds"),
    [
        ("spleen", rows(4, 6), ["overlap"]),
        ("spleen", rows(5, 7), []),
        ("liver_tumor", rows(2, 3), []),
        ("abdomen", rows(0, 9), []),
        ("tumor", rows(3, 6), []),
    ],
)
def test_structures_overlap_only_where_the_tree_relates_them(tmp_path, other, mask, kinds):
    case = write_structures(tmp_path, {"liver": rows(0, 5), other: mask})
    assert found(case) == [("warning", kind) for kind in kinds]


def test_the_largest_overlap_is_named_first(tmp_path):
    masks = {"liver": rows(0, 5), "spleen": rows(4, 6), "stomach": rows(2, 6)}
    message = only(write_structures(tmp_path, masks)).message
    assert "spleen and stomach by 100% of the smaller, liver and stomach by 75%" in message


def test_a_rim_that_two_outlines_share_is_no_overlap(tmp_path):
    rim = rows(5, 9)
    rim[4, 2, 1:4] = True  # 3 voxels of the 39 of this structure
    assert found(write_structures(tmp_path, {"liver": rows(0, 5), "spleen": rim})) == []


def test_structures_that_one_label_joins_overlap_by_declaration(tmp_path):
    labels = {"liver": "liver", "both": ["liver", "spleen"], "spleen": "spleen"}
    masks = {"liver": rows(0, 3), "both": rows(2, 4), "spleen": rows(2, 3)}
    case = write_structures(tmp_path, masks)
    case = replace(case, labels={key: tuple(np.atleast_1d(ids)) for key, ids in labels.items()})
    assert found(case) == []


def test_the_same_scan_in_two_cases_is_a_warning(tmp_path):
    cases = [write_case(tmp_path, name) for name in "abc"]
    cases[2].image.write_bytes(cases[0].image.read_bytes())
    (finding,) = check_cases(cases, tree=TREE).findings
    assert (finding.severity, finding.kind, finding.case) == ("warning", "same-scan", "a")
    assert finding.message.startswith("is the scan of c, too")


def test_volumes_of_one_file_are_different_scans(tmp_path):
    case = write_case(tmp_path, scan=np.stack([scan_of("x"), scan_of("y")], axis=-1))
    frames = [replace(case, id=str(index), volume_index=index) for index in (0, 1)]
    assert check_cases(frames, tree=TREE).findings == ()


def test_a_complete_concept_that_no_case_shows_is_one_warning(tmp_path):
    without = {value: x for value, x in PLACES.items() if value not in (1, 7, 8)}
    cases = [
        write_case(tmp_path, "a", mask=mask_of(without | {7: 8, 8: 0})),
        write_case(tmp_path, "b", mask=mask_of(without)),
    ]
    (finding,) = check_cases(cases, tree=TREE).findings
    assert (finding.severity, finding.kind, finding.case) == ("warning", "never-shown", None)
    assert finding.message.startswith("No mask of toy shows liver, said")
    incomplete = [replace(case, complete=frozenset()) for case in cases]
    assert check_cases(incomplete, tree=TREE).findings == ()


def test_a_data_set_without_a_label_of_known_meaning_is_an_error(tmp_path):
    case = replace(write_case(tmp_path), labels={}, complete=frozenset())
    report = check_cases([case], tree=TREE)
    finding = report.findings[-1]
    assert (finding.severity, finding.kind, finding.case) == ("error", "no-labels", None)
    assert "no-labels" not in check_cases([write_case(tmp_path / "b")], tree=TREE).counts


def test_a_report_is_json(tmp_path):
    cases = [write_case(tmp_path, mask=mask_of({1: 3}))]
    cases[0].image.write_bytes(b"")
    content = json.loads(json.dumps(check_cases(cases, tree=TREE).as_dict()))
    assert [content[f"num_{what}"] for what in ("cases", "errors", "warnings")] == [1, 1, 1]
    assert content["counts"] == {"empty": 1, "never-shown": 1}
    first, last = content["findings"]
    assert (first["case"], first["file"]) == ("a", str(tmp_path / "a/ct.nii.gz"))
    assert (last["case"], last["file"]) == (None, None)


def test_workers_report_the_same_in_the_same_order(tmp_path):
    cases = [write_case(tmp_path, name) for name in "abcdefghi"]
    for case in cases[::2]:
        case.image.write_bytes(b"")
    cases[1] = write_case(tmp_path, "b", mask=mask_of()[::-1])
    told = []
    report = check_cases(cases, tree=TREE, workers=2, progress=lambda *n: told.append(n))
    assert report == check_cases(cases, tree=TREE)
    assert report.num_errors == 6
    assert told == [(done, 9) for done in range(1, 10)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_surfaces_with_its_traceback_and_the_case(tmp_path, workers):
    case = write_case(tmp_path)
    wrong = replace(case, id="b", masks={"x": case.masks[""]})
    with pytest.raises(KeyError) as caught:
        check_cases([case, wrong], tree=TREE, workers=workers)
    assert "case 'b'" in caught.value.__notes__[0]
    if workers:
        assert "in read_label_map" in str(caught.value.__cause__)


class EndsItsProcess:
    """Ends the process that unpacks it, as the system does where memory runs out."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_worker_that_is_killed_is_an_error_of_resources(tmp_path):
    case = replace(write_case(tmp_path), labels={1: (EndsItsProcess(),)})
    with pytest.raises(ResourceError, match=r"E501.*fewer --workers"):
        check_cases([case], tree=TREE, workers=1)


class Stops(dict):
    """Labels that are being looked up when the user stops the command."""

    def get(self, key, default=None):
        raise Cancelled("stopped")


def test_a_stop_by_the_user_is_no_finding(tmp_path):
    case = replace(write_case(tmp_path), labels=Stops())
    with pytest.raises(Cancelled):
        check_cases([case], tree=TREE)
