"""What sound files read as: values, geometry, notes; nibabel and SimpleITK are the oracles."""

from __future__ import annotations

import bz2
import gzip
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from textseg.errors import InputError
from textseg.imaging import Volume, as_volume, read_volume

AFFINE = nib.affines.from_matvec(
    [[-0.9, 0.02, 0.3], [0.05, 1.1, -0.1], [0.25, 0.1, 2.8]], [40.0, -31.0, 12.5]
)
# the same axes at right angles, which formats without shear can store
SQUARE = np.array(AFFINE)
SQUARE[:3, :3] = (
    np.linalg.svd(AFFINE[:3, :3] / [0.9, 1.1, 2.8])[0]
    @ np.linalg.svd(AFFINE[:3, :3] / [0.9, 1.1, 2.8])[2]
    * [0.9, 1.1, 2.8]
)


def voxels(dtype: str = "i2", shape: tuple[int, ...] = (6, 9, 5)) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 120, shape).astype(dtype)


def sitk_image(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array.T)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ SQUARE
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">i2", "u2", "i4", "u4", "i8", "f4", ">f8"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_voxels_and_affine_equal_nibabels(kind, dtype, tmp_path):
    header = kind.header_class(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(np.dtype(dtype))
    path = tmp_path / "scan.nii.gz"
    nib.save(kind(voxels(dtype), SQUARE, header), path)

    volume = read_volume(path)
    loaded = nib.load(path)
    assert np.array_equal(volume.data[0], loaded.get_fdata(dtype=np.float32))
    assert np.array_equal(volume.geometry.affine, loaded.affine)
    assert volume.data.dtype == np.float32
    assert volume.source.format == "nifti"
    assert volume.warnings == ()


def test_nifti_scaling_is_applied(tmp_path):
    image = nib.Nifti1Image(voxels(), SQUARE)
    image.header.set_slope_inter(0.37, -1024.0)
    raw = bytearray(image.to_bytes())
    # nibabel rescales on saving, so the fields are written behind its back
    raw[112:120] = np.array([0.37, -1024.0], "<f4").tobytes()
    path = tmp_path / "scan.nii"
    path.write_bytes(bytes(raw))
    assert np.array_equal(read_volume(path).data[0], nib.load(path).get_fdata(dtype=np.float32))


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_of_zero_or_nan_means_unscaled(slope, tmp_path):
    raw = bytearray(nib.Nifti1Image(voxels(), SQUARE).to_bytes())
    raw[112:120] = np.array([slope, 5.0], "<f4").tobytes()
    path = tmp_path / "scan.nii"
    path.write_bytes(bytes(raw))
    assert np.array_equal(read_volume(path).data[0], voxels())


def test_the_header_is_kept_byte_for_byte_and_the_file_is_hashed(tmp_path):
    path = tmp_path / "scan.nii.gz"
    image = nib.Nifti1Image(voxels(), SQUARE)
    image.header["descrip"] = b"kept"
    nib.save(image, path)
    source = read_volume(path).source
    assert source.header.binaryblock == gzip.decompress(path.read_bytes())[:348]
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.path == path


@pytest.mark.parametrize("suffix", ["nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_text_header_formats_equal_simpleitk(suffix, compressed, dtype, tmp_path):
    path = tmp_path / f"scan.{suffix}"
    sitk.WriteImage(sitk_image(voxels(dtype)), path, useCompression=compressed)
    volume = read_volume(path)
    assert np.array_equal(volume.data[0], voxels(dtype))
    assert np.allclose(volume.geometry.affine, SQUARE, atol=1e-9)
    assert np.array_equal(as_volume(sitk.ReadImage(path)).data, volume.data)
    assert volume.warnings == ()


@pytest.mark.parametrize("suffix", ["mgh", "mgz"])
def test_mgh_equals_nibabel(suffix, tmp_path):
    path = tmp_path / f"scan.{suffix}"
    nib.save(nib.MGHImage(voxels("f4"), SQUARE), path)
    volume = read_volume(path)
    assert np.array_equal(volume.data[0], voxels("f4"))
    assert np.allclose(volume.geometry.affine, SQUARE, atol=1e-4)  # stored as float32
    assert volume.source.format == "mgh"


def test_a_nrrd_in_ras_space_lies_where_its_lps_twin_does(tmp_path):
    affines = {}
    for space, sign in [("right-anterior-superior", 1), ("LAS", 1), ("left-posterior-superior", 1)]:
        path = tmp_path / f"{space}.nrrd"
        header = (
            f"NRRD0005\ntype: uint8\ndimension: 3\nspace: {space}\nsizes: 6 9 5\n"
            f"space directions: (1,0,0) (0,{2 * sign},0) (0,0,3)\nspace origin: (4,5,6)\n"
            "encoding: raw\nmy note:=a user's line\n\n"
        )
        path.write_bytes(header.encode() + voxels("u1").tobytes("F"))
        affines[space] = read_volume(path).geometry.affine
        itk = as_volume(sitk.ReadImage(path)).geometry.affine
        assert np.allclose(affines[space], itk)
    assert np.allclose(np.diag(affines["right-anterior-superior"]), [1, 2, 3, 1])
    assert np.allclose(np.diag(affines["LAS"]), [-1, 2, 3, 1])
    assert np.allclose(np.diag(affines["left-posterior-superior"]), [-1, -2, 3, 1])


def write_encoded_nrrd(path: Path, encoding: str) -> Path:
    array = voxels("u1")
    data = {
        "ascii": " ".join(map(str, array.ravel(order="F"))).encode(),
        "hex": array.tobytes("F").hex().encode(),
        "bzip2": bz2.compress(array.tobytes("F")),
    }[encoding]
    header = (
        f"NRRD0004\ntype: uint8\ndimension: 3\nspace: LPS\nsizes: 6 9 5\nencoding: {encoding}\n"
        "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (0,0,0)\n\n"
    )
    path.write_bytes(header.encode() + data)
    return path


@pytest.mark.parametrize("encoding", ["ascii", "hex"])
def test_rare_nrrd_encodings_are_read_too(encoding, tmp_path):
    path = write_encoded_nrrd(tmp_path / "scan.nrrd", encoding)
    assert np.array_equal(read_volume(path).data[0], voxels("u1"))


def test_a_nrrd_encoding_that_simpleitk_lacks_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be decoded") as refusal:
        read_volume(write_encoded_nrrd(tmp_path / "scan.nrrd", "bzip2"))
    assert refusal.value.code == "E305"


def test_a_name_that_lies_about_compression_is_noted(tmp_path):
    raw = nib.Nifti1Image(voxels(), SQUARE).to_bytes()
    for name, content in [("a.nii", gzip.compress(raw)), ("b.nii.gz", raw), ("c.nrrd", raw)]:
        (tmp_path / name).write_bytes(content)
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume.data[0], voxels())
        assert name in "".join(volume.warnings)


@pytest.mark.parametrize("pieces", [2, 5])
def test_gzip_in_several_members_is_one_stream(pieces, tmp_path):
    raw = nib.Nifti1Image(voxels(), SQUARE).to_bytes()
    step = len(raw) // pieces + 1
    members = [gzip.compress(raw[start : start + step]) for start in range(0, len(raw), step)]
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"".join(members) + bytes(40))
    assert np.array_equal(read_volume(path).data[0], voxels())


@pytest.mark.parametrize("index", [0, 2])
def test_one_volume_of_several_is_chosen(index, tmp_path):
    array = voxels(shape=(6, 9, 5, 3))
    nib.save(nib.Nifti1Image(array, SQUARE), tmp_path / "scan.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(array.T.copy(), isVector=False), tmp_path / "scan.mha")
    vector = sitk.GetImageFromArray(array.transpose(2, 1, 0, 3).copy(), isVector=True)
    sitk.WriteImage(vector, tmp_path / "vector.nrrd", useCompression=True)
    for name in ("scan.nii.gz", "scan.mha", "vector.nrrd"):
        volume = read_volume(tmp_path / name, volume_index=index)
        assert np.array_equal(volume.data[0], array[..., index]), name
    assert np.array_equal(as_volume(vector, volume_index=index).data[0], array[..., index])


@pytest.mark.parametrize("index", [-1, 3])
def test_a_volume_that_is_not_there_is_refused(index, tmp_path):
    nib.save(nib.Nifti1Image(voxels(shape=(6, 9, 5, 3)), SQUARE), tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match="it holds 3") as refusal:
        read_volume(tmp_path / "scan.nii.gz", volume_index=index)
    assert refusal.value.code == "E309"


def test_a_single_fourth_dimension_is_three_dimensional(tmp_path):
    nib.save(nib.Nifti1Image(voxels(shape=(6, 9, 5, 1, 1)), SQUARE), tmp_path / "scan.nii.gz")
    assert read_volume(tmp_path / "scan.nii.gz").data.shape == (1, 6, 9, 5)


def test_a_few_non_finite_voxels_become_the_minimum(tmp_path):
    array = voxels("f4") + 3
    array[1, 2, 3], array[4, 4, 4], array[0, 0, 0] = np.nan, np.inf, -np.inf
    nib.save(nib.Nifti1Image(array, SQUARE), tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    expected = np.where(np.isfinite(array), array, array[np.isfinite(array)].min())
    assert np.array_equal(volume.data[0], expected)
    assert "3 voxels were NaN or infinite and were set to 3" in volume.warnings[0]


def test_float64_values_too_large_for_float32_count_as_infinite(tmp_path):
    array = voxels("f8")
    array[2, 2, 2] = 1e300
    nib.save(nib.Nifti1Image(array, SQUARE), tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    assert np.isfinite(volume.data).all()
    assert "1 voxels" in volume.warnings[0]


def with_forms(sform: np.ndarray, qform: np.ndarray, codes: tuple[int, int], path: Path) -> Volume:
    image = nib.Nifti1Image(voxels(), sform)
    image.set_qform(qform, codes[1], strip_shears=True)
    image.set_sform(sform, codes[0])
    nib.save(image, path)
    return read_volume(path)


def test_orientations_that_disagree_are_noted_with_their_angle(tmp_path):
    turn = np.deg2rad(3.0)
    turned = np.array(SQUARE)
    turned[:3, :3] = [
        [np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]
    ] @ SQUARE[:3, :3]  # fmt: skip
    volume = with_forms(SQUARE, turned, (2, 1), tmp_path / "a.nii")
    assert "disagree by 3.00 degrees" in volume.warnings[0]
    assert np.allclose(volume.geometry.affine, SQUARE, atol=1e-5)

    mirrored = np.diag([-1.0, 1, 1, 1]) @ SQUARE
    assert (
        "left and right differ"
        in with_forms(SQUARE, mirrored, (2, 1), tmp_path / "b.nii").warnings[0]
    )
    assert with_forms(SQUARE, SQUARE, (2, 1), tmp_path / "c.nii").warnings == ()


def test_the_qform_is_used_where_the_sform_is_not_set(tmp_path):
    volume = with_forms(np.eye(4), SQUARE, (0, 1), tmp_path / "a.nii")
    assert np.allclose(volume.geometry.affine, SQUARE, atol=1e-5)


def test_a_scan_without_orientation_says_so(tmp_path):
    volume = with_forms(SQUARE, SQUARE, (0, 0), tmp_path / "a.nii")
    assert "states no orientation" in volume.warnings[0]
    assert np.array_equal(volume.geometry.affine, nib.load(tmp_path / "a.nii").affine)


def test_shear_is_noted_and_the_geometry_kept(tmp_path):
    for shear, said in [(5e-4, "treated as rounding"), (5e-2, "resampled to right angles")]:
        affine = np.diag([1.0, 2.0, 3.0, 1.0])
        affine[0, 1] = 2 * shear
        nib.save(nib.Nifti1Image(voxels(), affine), tmp_path / "scan.nii")
        volume = read_volume(tmp_path / "scan.nii")
        assert said in volume.warnings[0]
        assert np.allclose(volume.geometry.affine, affine)


def test_arrays_and_images_in_memory_equal_the_file(tmp_path):
    path = tmp_path / "scan.nii.gz"
    image = nib.Nifti1Image(voxels(), SQUARE)
    nib.save(image, path)
    from_file = read_volume(path)
    for scan in (image, nib.load(path), sitk_image(voxels()), (voxels(), SQUARE), str(path)):
        volume = as_volume(scan)
        assert np.array_equal(volume.data, from_file.data)
        assert volume.data.dtype == np.float32
        assert np.allclose(volume.geometry.affine, SQUARE, atol=1e-5)
        assert volume.warnings == ()
    assert as_volume(from_file) is from_file


def test_an_array_is_copied_so_that_later_changes_do_not_reach_the_volume():
    array = voxels("f4")
    array[0, 0, 0] = np.nan
    volume = as_volume((array, SQUARE))
    assert np.isnan(array[0, 0, 0])
    array[:] = 0
    assert volume.data.any()


@pytest.mark.parametrize(
    ("scan", "code"),
    [
        ((voxels(), np.diag([1.0, 0.0, 1.0, 1.0])), "E314"),
        ((voxels(), "somewhere"), "E314"),
        ((voxels(), np.eye(3)), "E314"),
        ((voxels(), np.diag([1e-9, 1e-9, 1e-9, 1])), "E313"),
        ((voxels("c8"), SQUARE), "E320"),
        ((voxels().astype(object), SQUARE), "E320"),
        ((voxels(shape=(4, 5)), SQUARE), "E308"),
        ((voxels(shape=(4, 5, 6, 2)), SQUARE), "E309"),
        ((voxels(shape=(4, 0, 6)), SQUARE), "E311"),
        ((np.ones((4, 5, 6)), SQUARE), "E316"),
        ((np.full((4, 5, 6), np.nan), SQUARE), "E315"),
        (nib.Nifti1Image(voxels(shape=(4, 5)), SQUARE), "E308"),
        (sitk.Image(4, 5, sitk.sitkInt16), "E308"),
        (sitk.Image([4, 5, 6], sitk.sitkVectorUInt8, 3), "E310"),
        (sitk.Image([4, 5, 6], sitk.sitkComplexFloat32), "E320"),
        (np.ones((4, 5, 6)), "E305"),
        (None, "E305"),
        (42, "E305"),
    ],
)
def test_unusable_objects_are_refused_with_a_code(scan, code):
    with pytest.raises(InputError) as refusal:
        as_volume(scan)
    assert refusal.value.code == code, refusal.value


def test_a_lazy_image_whose_file_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(voxels(), SQUARE), path)
    lazy = nib.load(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError) as refusal:
        as_volume(lazy)
    assert refusal.value.code == "E306"


def test_the_modality_is_the_callers_or_guessed_with_a_reason():
    hounsfield = voxels("f4") * 10 - 1000
    guessed = as_volume((hounsfield, SQUARE))
    assert guessed.modality == "ct"
    assert guessed.source.metadata["modality_reason"].startswith("guessed: values from -1000")
    told = as_volume((hounsfield, SQUARE), modality="pet")
    assert told.modality == "pet"
    assert told.source.metadata["modality_reason"] == "given by the caller"
    assert as_volume((voxels(), SQUARE)).modality == "mr"


def test_a_ct_without_hounsfield_units_is_noted():
    volume = as_volume((voxels("f4") / 120, SQUARE), modality="ct")
    assert "do not look like Hounsfield units" in volume.warnings[0]


def test_a_qform_whose_handedness_is_unset_is_read_as_right_handed(tmp_path):
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine)
    image.set_sform(None, 0)
    image.set_qform(affine, 1)
    raw = bytearray(image.to_bytes())
    raw[76:80] = bytes(4)  # pixdim[0], the handedness
    path = tmp_path / "unset.nii"
    path.write_bytes(bytes(raw))
    volume = read_volume(path)
    assert np.allclose(volume.geometry.affine, affine)
    assert volume.source.header["pixdim"][0] == 0  # the header stays as the file has it
