"""The fingerprint of data sets written for the purpose, compared with what was written."""

import nibabel
import numpy as np
import pytest

from tests.datasets.trees import CASES, write_tree
from textseg.datasets import find_cases
from textseg.datasets.fingerprint import SAMPLED_VOXELS, Fingerprint, fingerprint
from textseg.datasets.spec import DatasetSpec
from textseg.errors import InputError, ModelError
from textseg.knowledge import load_tree

TREE = load_tree()
FACTS = {
    "title": "Toy",
    "modality": {"ct": []},
    "region": "abdomen",
    "complete": "all",
    "licence": "CC0-1.0",
    "citation": "Nobody 2020.",
    "homepage": "https://example.org",
}
FILES = {"kind": "files", "images": {"": "{case}-img.nii"}, "masks": "{case}-seg.nii"}
LABELS = {1: "liver", 2: "kidney.left", 3: "kidney.right", 4: "liver_tumor", 9: None}

UP_LEFT_FRONT = np.array(
    [[0, -0.7, 0, 5.0], [0, 0, 1.9, -2.0], [3.1, 0, 0, 0], [0, 0, 0, 1.0]], dtype=np.float64
)
"""Array axes run up (3.1 mm), to the left (0.7 mm) and to the front (1.9 mm)."""
VOXEL_ML = 3.1 * 0.7 * 1.9 / 1000


def toy(name="toy", **changes):
    return DatasetSpec(name=name, **{**FACTS, "layout": FILES, "labels": LABELS, **changes})


def labels(**boxes):
    """A map with a box for each value named ``v1``, ``v2``..."""
    data = np.zeros((7, 5, 3), np.int16)
    for name, box in boxes.items():
        data[tuple(slice(*ends) for ends in box)] = int(name[1:])
    return data


def write(folder, name, mask, image=None, affine=UP_LEFT_FRONT):
    folder.mkdir(exist_ok=True)
    if image is None:
        image = np.random.default_rng(1).normal(50, 9, mask.shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{name}-seg.nii")
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"{name}-img.nii")


def taken(spec, folder, **options):
    return fingerprint(find_cases(spec, folder), tree=TREE, **options)


def test_axes_run_to_the_right_front_and_head_whatever_the_file_says(tmp_path):
    write(tmp_path, "a", labels(v1=((1, 5), (2, 4), (0, 1))))
    facts = taken(toy(), tmp_path).total
    assert facts.orientations == {"SLA": 1}
    assert [axis.median for axis in facts.shape] == [5, 3, 7]
    assert [axis.median for axis in facts.spacing_mm] == pytest.approx([0.7, 1.9, 3.1])
    assert [axis.max for axis in facts.field_of_view_mm] == pytest.approx([3.5, 5.7, 21.7])
    assert facts.concepts["liver"].extent_mm == pytest.approx((2 * 0.7, 1.9, 4 * 3.1))
    assert facts.concepts["liver"].volume_ml.median == pytest.approx(8 * VOXEL_ML)
    assert facts.scanned_ml == pytest.approx(105 * VOXEL_ML)
    assert (facts.voxels, facts.bytes) == (105, 630)


def test_a_whole_is_as_large_as_its_parts_and_what_it_contains(tmp_path):
    mask = labels(v1=((0, 2), (0, 2), (0, 1)), v4=((3, 4), (0, 1), (0, 1)))
    mask[6, 4, 0], mask[6, 0, 2] = 2, 3
    write(tmp_path, "a", mask)
    concepts = taken(toy(), tmp_path).total.concepts
    volumes = {i: round(held.volume_ml.median / VOXEL_ML, 6) for i, held in concepts.items()}
    sides = {"kidney.left": 1, "kidney.right": 1, "kidney": 2}
    assert volumes == {"liver": 5, "liver_tumor": 1, **sides}
    assert concepts["liver"].extent_mm == pytest.approx((2 * 0.7, 1.9, 4 * 3.1))
    assert concepts["kidney"].extent_mm == pytest.approx((5 * 0.7, 3 * 1.9, 3.1))


@pytest.mark.parametrize(("complete", "known"), [("all", 2), (["liver"], 1)])
def test_an_unlabelled_concept_is_absent_only_where_labels_are_complete(tmp_path, complete, known):
    mask = labels(v1=((0, 1), (0, 1), (0, 1)), v2=((2, 3), (0, 1), (0, 1)))
    write(tmp_path, "a", mask)
    write(tmp_path, "b", np.where(mask == 1, mask, 0))
    concepts = taken(toy(complete=complete), tmp_path).total.concepts
    assert (concepts["kidney.left"].known, concepts["kidney.left"].present) == (known, 1)
    assert (concepts["liver"].known, concepts["liver"].present) == (2, 2)
    right = concepts.get("kidney.right")
    if complete == "all":
        assert (right.known, right.present, right.volume_ml, right.extent_mm) == (2, 0, None, None)
    else:
        assert right is None


def test_volumes_are_spread_over_the_cases_that_have_the_concept(tmp_path):
    for size, name in enumerate("abcde", start=1):
        write(tmp_path, name, labels(v1=((0, size), (0, 1), (0, 1))))
    write(tmp_path, "empty", labels(v2=((0, 1), (0, 1), (0, 1))))
    volume = taken(toy(), tmp_path).total.concepts["liver"].volume_ml
    found = np.array([volume.min, volume.p10, volume.median, volume.p90, volume.max]) / VOXEL_ML
    assert found == pytest.approx([1, 1.4, 3, 4.6, 5])


def test_intensities_are_those_under_named_labels(tmp_path):
    mask = labels(v1=((0, 1), (0, 5), (0, 1)), v9=((3, 4), (0, 5), (0, 3)))
    image = np.where(mask == 1, 0, 700).astype(np.float32)
    image[0, :, 0] = [10, 20, 30, 40, 100]
    write(tmp_path, "a", mask, image)
    found = taken(toy(), tmp_path).total.intensities["ct"]
    assert (found.voxels, found.mean, found.p50) == (5, 40, 30)
    assert found.sd == pytest.approx(np.std([10, 20, 30, 40, 100]))
    assert found.p0_5 == pytest.approx(10.2)
    assert found.p99_5 == pytest.approx(98.8)


def test_a_large_case_counts_with_a_sample_of_its_voxels(tmp_path):
    mask = np.ones((31, 29, 17), np.int16)
    image = np.random.default_rng(0).normal(100, 20, mask.shape).astype(np.float32)
    write(tmp_path, "a", mask, image)
    write(tmp_path, "b", labels(v1=((0, 1), (0, 1), (0, 3))))
    found = taken(toy(), tmp_path).total.intensities["ct"]
    assert found.voxels == SAMPLED_VOXELS + 3
    # ten standard errors of the mean of ten thousand
    assert found.mean == pytest.approx(100, abs=2)


def test_masks_of_one_file_per_structure_may_overlap(tmp_path):
    layout = {
        "kind": "files",
        "images": {"": "{case}/ct.nii.gz"},
        "masks": "{case}/{structure}.nii.gz",
    }
    spec = toy(layout=layout, labels={"l": "liver", "k": "kidney.left", "x": None})
    write_tree(spec, tmp_path)
    concepts = taken(spec, tmp_path).total.concepts
    voxel_ml = 0.5 * 0.75 * 3 / 1000
    for concept in ("liver", "kidney.left"):
        assert concepts[concept].volume_ml.min == pytest.approx(2 * voxel_ml)
        assert concepts[concept].present == len(CASES)


def test_data_sets_are_told_apart_and_added_up(tmp_path):
    write(tmp_path / "one", "a", labels(v1=((0, 2), (0, 1), (0, 1))))
    layout = {**FILES, "images": {"t1": "{case}-img.nii", "t2": "{case}-im*.nii"}}
    other = toy("other", modality={"mr": ["t1", "t2"]}, layout=layout, labels={1: "spleen"})
    write(tmp_path / "two", "b", labels(v1=((0, 4), (0, 1), (0, 1))), affine=np.eye(4))
    cases = [*find_cases(toy(), tmp_path / "one"), *find_cases(other, tmp_path / "two")]
    found = fingerprint(cases, tree=TREE)
    assert list(found.datasets) == ["toy", "other"]
    assert [facts.cases for facts in found.datasets.values()] == [1, 2]
    assert found.total.modalities == {"ct": {"": 1}, "mr": {"t1": 1, "t2": 1}}
    assert set(found.total.intensities) == {"ct", "mr"}
    assert found.total.orientations == {"RAS": 2, "SLA": 1}
    assert "spleen" not in found.datasets["toy"].concepts
    assert (found.total.concepts["spleen"].known, found.total.cases) == (2, 3)


def test_threads_do_not_change_the_fingerprint(tmp_path):
    for size, name in enumerate("abc", start=20):
        write(tmp_path, name, np.ones((size, 31, 23), np.int16))
    moves = []
    alone = taken(toy(), tmp_path, progress=lambda *move: moves.append(move))
    assert moves == [(1, 3), (2, 3), (3, 3)]
    assert taken(toy(), tmp_path, workers=3) == alone


def test_a_fingerprint_reads_back_from_json(tmp_path):
    write(tmp_path, "a", labels(v1=((0, 2), (0, 1), (0, 1))))
    found = taken(toy(), tmp_path)
    path = tmp_path / "f.json"
    path.write_text(found.model_dump_json())
    assert Fingerprint.read(path) == found


@pytest.mark.parametrize("text", ["", "[]", '{"datasets": {}}'])
def test_another_file_is_no_fingerprint(tmp_path, text):
    path = tmp_path / "f.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=r"E406.*f\.json.*data fingerprint"):
        Fingerprint.read(path)
    path.unlink()
    with pytest.raises(ModelError, match=r"E406.*f\.json"):
        Fingerprint.read(path)


@pytest.mark.parametrize("which", ["img", "seg"])
def test_a_damaged_case_is_named_and_not_skipped(tmp_path, which):
    for name in "ab":
        write(tmp_path, name, labels(v1=((0, 2), (0, 1), (0, 1))))
    path = tmp_path / f"b-{which}.nii"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"b-{which}\.nii.*textseg data check"):
        taken(toy(), tmp_path)


def test_a_mask_beside_its_scan_is_refused(tmp_path):
    write(tmp_path, "a", labels(v1=((0, 2), (0, 1), (0, 1))))
    moved = UP_LEFT_FRONT.copy()
    moved[0, 3] += 4
    nibabel.save(nibabel.Nifti1Image(labels(), moved), tmp_path / "a-seg.nii")
    with pytest.raises(InputError, match=r"E321.*a-seg\.nii"):
        taken(toy(), tmp_path)
