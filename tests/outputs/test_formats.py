from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from textseg.errors import InputError
from textseg.imaging.readers import read_volume
from textseg.outputs.formats import FORMATS, format_named, format_of
from textseg.outputs.nifti import mask_header

GEOMETRY_FIELDS = [
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units"),
]


@pytest.fixture(params=FORMATS)
def mask_format(request):
    return FORMATS[request.param]


def test_a_mask_reads_back_as_itself_in_its_place(mask_format, make_volume, box_mask, tmp_path):
    volume = make_volume()
    path = tmp_path / f"mask{mask_format.suffix}"
    mask_format.write(path, box_mask, volume, label="left kidney")
    read = read_volume(path, modality="mr")
    np.testing.assert_array_equal(read.data[0], box_mask)
    # NIfTI stores the affine as float32
    assert read.geometry.matches(volume.geometry, tolerance_mm=1e-4)


def test_axis_order_in_memory_does_not_matter(mask_format, make_volume, box_mask, tmp_path):
    written = []
    for name, mask in (("c", box_mask), ("f", np.asfortranarray(box_mask))):
        path = tmp_path / f"{name}{mask_format.suffix}"
        mask_format.write(path, mask, make_volume(), label="x")
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_the_same_mask_gives_the_same_bytes_later(mask_format, make_volume, box_mask, tmp_path):
    path = tmp_path / f"mask{mask_format.suffix}"
    written = []
    for moment in range(2):
        mask_format.write(path, box_mask, make_volume(), label="x")
        written.append(path.read_bytes())
        if not moment:
            # gzip counts seconds
            import time

            time.sleep(1.1)
    assert written[0] == written[1]


def test_simpleitk_finds_the_landmark_where_the_affine_puts_it(make_volume, tmp_path):
    volume = make_volume()
    mask = np.zeros(volume.geometry.shape, dtype=bool)
    mask[11, 2, 5] = True
    expected = volume.geometry.to_world(np.array([[11, 2, 5]]))[0]
    for name in ("nrrd", "mha", "nifti"):
        path = tmp_path / f"mask{FORMATS[name].suffix}"
        FORMATS[name].write(path, mask, volume, label="x")
        image = sitk.ReadImage(str(path))
        assert image[11, 2, 5] == 1
        lps = np.array(image.TransformIndexToPhysicalPoint((11, 2, 5)))
        np.testing.assert_allclose(lps * [-1, -1, 1], expected, atol=1e-4)


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_geometry_fields_are_the_scans_own_bytes(
    kind, endianness, nifti_header, make_volume, box_mask, tmp_path
):
    header = nifti_header(kind, endianness=endianness)
    path = tmp_path / "mask.nii.gz"
    FORMATS["nifti"].write(path, box_mask, make_volume(header=header), label="left kidney")
    written = nib.load(path)
    assert type(written.header) is kind
    for name in GEOMETRY_FIELDS:
        assert written.header[name].tobytes() == header[name].tobytes(), name
    np.testing.assert_array_equal(np.asarray(written.dataobj), box_mask)
    assert written.header.get_data_dtype() == np.uint8
    assert bytes(written.header["descrip"]).rstrip(b"\0") == b"left kidney"


def test_only_the_fields_about_values_change(nifti_header, make_volume):
    header = nifti_header()
    made = mask_header(make_volume(header=header), label="x")
    changed = {name for name in header if made[name].tobytes() != header[name].tobytes()}
    assert changed <= {
        *("datatype", "bitpix", "scl_slope", "scl_inter", "cal_min", "cal_max"),
        *("descrip", "vox_offset", "magic"),
    }


def test_the_scans_header_object_is_left_alone(nifti_header, make_volume):
    header = nifti_header()
    before = header.binaryblock
    mask_header(make_volume(header=header), label="x")
    assert header.binaryblock == before


def test_a_mask_of_one_volume_of_four_is_three_dimensional(nifti_header, make_volume, tmp_path):
    header = nifti_header(shape=(13, 9, 7, 4))
    path = tmp_path / "mask.nii.gz"
    volume = make_volume(header=header)
    FORMATS["nifti"].write(path, np.ones((13, 9, 7), dtype=bool), volume, label="x")
    assert nib.load(path).shape == (13, 9, 7)
    assert nib.load(path).header["pixdim"].tobytes() == header["pixdim"].tobytes()


def test_a_header_of_another_grid_is_not_copied(nifti_header, make_volume):
    header = nifti_header()
    moved = np.array(header.get_best_affine())
    moved[:3, 3] += 25
    made = mask_header(make_volume(moved, header=header), label="x")
    np.testing.assert_allclose(made.get_best_affine(), moved, atol=1e-4)


def test_a_sheared_grid_is_described_by_its_sform_alone(make_volume):
    sheared = np.diag([1.0, 2.0, 3.0, 1.0])
    sheared[0, 1] = 0.5
    made = mask_header(make_volume(sheared), label="x")
    assert int(made["qform_code"]) == 0
    np.testing.assert_allclose(made.get_sform(), sheared)


def test_a_long_label_is_cut_between_characters(make_volume):
    made = mask_header(make_volume(), label="ä" * 60)
    assert bytes(made["descrip"]).rstrip(b"\0").decode() == "ä" * 39


def test_the_gzip_stream_is_whole(make_volume, box_mask, tmp_path):
    FORMATS["nifti"].write(tmp_path / "m.nii.gz", box_mask, make_volume(), label="x")
    assert len(gzip.decompress((tmp_path / "m.nii.gz").read_bytes())) == 352 + box_mask.size


def test_a_suffix_chooses_the_format_and_a_folder_name_none():
    assert format_of(Path("a.b/Liver.NII.GZ")) is FORMATS["nifti"]
    assert format_of(Path("liver.mha")) is FORMATS["mha"]
    assert format_of(Path("results.v2")) is None


def test_an_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="nifti, nii, nrrd, mha"):
        format_named("tiff")
