"""Single lesions: numbered by size, measured, and saved beside the masks."""

from __future__ import annotations

import json
from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from textseg.imaging.volume import Geometry
from textseg.outputs.instances import find_instances, label_instances, write_instances
from textseg.outputs.layout import plan_output
from textseg.outputs.manifest import is_complete

SPACING = (0.7, 0.8, 3.1)
VOXEL_ML = 0.7 * 0.8 * 3.1 / 1000


def three_pieces(shape=(13, 9, 7)):
    """Of 4, 12 and 4 voxels, in the order of the axes."""
    mask = np.zeros(shape, dtype=bool)
    mask[0:2, 0:2, 0] = True
    mask[4:7, 2:4, 2:4] = True
    mask[10:12, 6:8, 6] = True
    return mask


def test_the_largest_is_first_and_of_two_of_one_size_the_first_in_order():
    labels = label_instances(three_pieces(), SPACING)
    assert labels.dtype == np.int32
    assert (labels[0, 0, 0], labels[4, 2, 2], labels[10, 6, 6]) == (2, 1, 3)
    assert [int((labels == n).sum()) for n in range(1, 4)] == [12, 4, 4]
    assert np.array_equal(labels > 0, three_pieces())


def test_pieces_that_touch_at_a_corner_are_one():
    mask = np.zeros((5, 7, 3), dtype=bool)
    mask[1, 1, 1] = mask[2, 2, 2] = mask[4, 6, 0] = True
    labels = label_instances(mask, SPACING)
    assert labels.max() == 2
    assert labels[1, 1, 1] == labels[2, 2, 2] == 1


def test_a_piece_of_exactly_the_least_volume_stays():
    assert label_instances(three_pieces(), SPACING, 4 * VOXEL_ML).max() == 3
    assert label_instances(three_pieces(), SPACING, 4.5 * VOXEL_ML).max() == 1
    assert label_instances(three_pieces(), SPACING, 13 * VOXEL_ML).max() == 0


def test_an_empty_mask_has_no_instances():
    mask = np.zeros((5, 7, 3), dtype=bool)
    found = find_instances(mask, Geometry((5, 7, 3), np.eye(4)))
    assert not found.labels.any()
    assert found.statistics == ()


@given(seed=st.integers(0, 10_000), density=st.floats(0.02, 0.5))
def test_numbers_go_by_size_and_then_by_the_first_voxel(seed, density):
    mask = np.random.default_rng(seed).random((6, 7, 5)) < density
    labels = label_instances(mask, SPACING)
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    keys = [(-(pieces == n).sum(), np.flatnonzero(pieces == n)[0]) for n in range(1, count + 1)]
    expected = np.zeros_like(labels)
    for number, piece in enumerate(sorted(range(count), key=keys.__getitem__), start=1):
        expected[pieces == piece + 1] = number
    assert np.array_equal(labels, expected)


def test_a_piece_is_measured_in_world_mm():
    affine = np.array([[0, -0.8, 0, 5], [0.7, 0, 0, -3], [0, 0, 3.1, 2], [0, 0, 0, 1.0]])
    found = find_instances(three_pieces(), Geometry((13, 9, 7), affine))
    first = found.statistics[0]
    assert (first["number"], first["voxels"]) == (1, 12)
    assert first["volume_ml"] == pytest.approx(12 * VOXEL_ML)
    assert first["bbox"] == [[4, 7], [2, 4], [2, 4]]
    # the box's center is voxel 5, 2.5, 2.5
    assert first["centroid_mm"] == pytest.approx([5 - 0.8 * 2.5, -3 + 0.7 * 5, 2 + 3.1 * 2.5])


def test_a_row_of_voxels_is_as_long_as_it_is():
    mask = np.zeros((9, 4, 5), dtype=bool)
    mask[2:7, 1, 3] = True
    geometry = Geometry(mask.shape, np.diag([2.0, 0.5, 0.25, 1.0]))
    assert find_instances(mask, geometry).statistics[0]["longest_diameter_mm"] == pytest.approx(10)


def test_a_lone_voxel_is_as_long_as_its_longest_edge():
    mask = np.zeros((3, 4, 5), dtype=bool)
    mask[1, 2, 3] = True
    geometry = Geometry(mask.shape, np.diag([*SPACING, 1.0]))
    assert find_instances(mask, geometry).statistics[0]["longest_diameter_mm"] == pytest.approx(3.1)


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_the_longest_diameter_is_that_of_all_pairs_of_faces(seed):
    generator = np.random.default_rng(seed)
    mask = np.zeros((7, 6, 5), dtype=bool)
    mask[1:6, 1:5, 1:4] = ndimage.binary_dilation(generator.random((5, 4, 3)) < 0.1)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, :3] = np.linalg.qr(generator.normal(size=(3, 3)))[0] @ affine[:3, :3]
    found = find_instances(mask, Geometry(mask.shape, affine))
    for piece in found.statistics:
        faces = [
            affine[:3, :3] @ (voxel + shift * np.eye(3)[axis])
            for voxel in np.argwhere(found.labels == piece["number"])
            for axis in range(3)
            for shift in (-0.5, 0.5)
        ]
        longest = max(float(np.linalg.norm(a - b)) for a, b in combinations(faces, 2))
        assert piece["longest_diameter_mm"] == pytest.approx(longest)


@pytest.fixture
def spotted():
    return three_pieces()


def test_results_list_their_instances(make_segmentation, spotted):
    result = make_segmentation({"liver metastasis": spotted}, absent=["stroke"])
    assert [piece["voxels"] for piece in result["liver metastasis"].instances] == [12, 4, 4]
    assert result["stroke"].instances == ()


def test_saving_writes_the_map_and_what_each_measures(make_segmentation, spotted, tmp_path):
    segmentation = make_segmentation({"liver metastasis": spotted}, absent=["stroke"])
    manifest = segmentation.save(tmp_path, instances=True)
    stored = nib.load(tmp_path / "liver_metastasis_instances.nii.gz")
    assert stored.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(stored.dataobj), label_instances(spotted, SPACING))
    assert np.allclose(stored.affine, segmentation.geometry.affine, atol=1e-5)
    assert "liver_metastasis_instances.nii.gz" in {record.name for record in manifest.files}
    assert not (tmp_path / "stroke_instances.nii.gz").exists()
    content = json.loads((tmp_path / "statistics.json").read_text())
    pieces = content["liver metastasis"]["instances"]
    assert [piece["number"] for piece in pieces] == [1, 2, 3]
    assert content["stroke"]["instances"] == []
    assert is_complete(tmp_path)


def test_a_damaged_map_makes_the_result_incomplete(make_segmentation, spotted, tmp_path):
    make_segmentation({"cyst": spotted}).save(tmp_path, instances=True)
    (tmp_path / "cyst_instances.nii.gz").write_bytes(b"torn")
    assert not is_complete(tmp_path)


def test_small_pieces_are_left_out_when_asked(make_segmentation, spotted, tmp_path):
    make_segmentation({"cyst": spotted}).save(
        tmp_path, instances=True, least_instance_ml=10 * VOXEL_ML
    )
    stored = np.asarray(nib.load(tmp_path / "cyst_instances.nii.gz").dataobj)
    assert (stored.max(), (stored == 1).sum()) == (1, 12)


def test_without_being_asked_nothing_is_said_of_instances(make_segmentation, spotted, tmp_path):
    make_segmentation({"cyst": spotted}).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "cyst.nii.gz",
        "statistics.json",
        "textseg.json",
    }
    assert "instances" not in json.loads((tmp_path / "statistics.json").read_text())["cyst"]


def test_a_map_of_an_earlier_run_goes_when_it_is_not_wanted_again(
    make_segmentation, spotted, tmp_path
):
    segmentation = make_segmentation({"cyst": spotted})
    segmentation.save(tmp_path, instances=True)
    segmentation.save(tmp_path, overwrite=True)
    assert not (tmp_path / "cyst_instances.nii.gz").exists()


def test_a_prompt_that_is_named_like_a_map_keeps_its_mask(make_segmentation, spotted, tmp_path):
    masks = {"cyst": spotted, "cyst instances": ~spotted}
    manifest = make_segmentation(masks).save(tmp_path, instances=True)
    names = [record.name for record in manifest.files]
    assert len(names) == len(set(names)) == 5
    stored = np.asarray(nib.load(tmp_path / "cyst_instances.nii.gz").dataobj)
    assert np.array_equal(stored > 0, ~spotted)
    assert (tmp_path / "cyst-instances.nii.gz").is_file()


def test_a_single_file_has_its_map_beside_it(tmp_path):
    plan = plan_output(tmp_path / "lesions.nii.gz", ["cyst"], instances=True)
    assert plan.instances == {"cyst": tmp_path / "lesions_instances.nii.gz"}
    assert list(plan.paths())[-1] == plan.manifest


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_many_pieces_take_a_wider_type_in_the_scan_header_byte_order(
    make_volume, nifti_header, tmp_path, endianness
):
    volume = make_volume(header=nifti_header(endianness=endianness))
    labels = np.arange(13 * 9 * 7, dtype=np.int32).reshape(13, 9, 7)
    write_instances(tmp_path / "many.nii.gz", labels, volume, label="cyst")
    stored = nib.load(tmp_path / "many.nii.gz")
    assert stored.get_data_dtype().newbyteorder("=") == np.uint16
    assert np.array_equal(np.asarray(stored.dataobj), labels)


def test_the_mask_is_refined_before_anything_is_measured(make_result, spotted):
    from dataclasses import replace

    result = make_result("cyst", spotted)
    largest = spotted.copy()
    largest[0:2], largest[10:] = False, False
    refined = replace(result.prediction, refine=lambda mask: mask & largest)
    assert [p["voxels"] for p in replace(result, prediction=refined).instances] == [12]
