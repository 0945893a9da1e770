"""Every damaged or unusable file is refused with its own code; odd but sound ones are noted."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from textseg.errors import InputError, ResourceError, TextsegError
from textseg.imaging import gate, read_volume
from textseg.imaging.readers import READERS

SHAPE = (12, 9, 7)


def voxels(shape: tuple[int, ...] = SHAPE, dtype: str = "<i2") -> np.ndarray:
    return np.random.default_rng(1).integers(0, 900, shape).astype(dtype)


def nifti_bytes(
    array: np.ndarray | None = None, *, change: Callable[[nib.Nifti1Header], None] | None = None
) -> bytes:
    """A NIfTI file; ``change`` edits its header without any of nibabel's checks."""
    image = nib.Nifti1Image(voxels() if array is None else array, np.diag([1.5, 2.0, 3.0, 1.0]))
    raw = image.to_bytes()
    if change is None:
        return raw
    header = nib.Nifti1Header(raw[:348], check=False)
    change(header)
    return header.binaryblock + raw[348:]


def with_field(name: str, value: object) -> Callable[[nib.Nifti1Header], None]:
    def change(header: nib.Nifti1Header) -> None:
        header[name] = value

    return change


def with_dims(*dims: int) -> Callable[[nib.Nifti1Header], None]:
    return with_field("dim", list(dims) + [1] * (8 - len(dims)))


def with_sform(matrix: np.ndarray) -> Callable[[nib.Nifti1Header], None]:
    def change(header: nib.Nifti1Header) -> None:
        header["sform_code"], header["qform_code"] = 1, 0
        header["srow_x"], header["srow_y"], header["srow_z"] = matrix[:3]

    return change


def flipped_bit(raw: bytes, position: int) -> bytes:
    changed = bytearray(raw)
    changed[position] ^= 0x10
    return bytes(changed)


def bomb() -> bytes:
    """A small header, then far more bytes than it announces."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    parts = [packer.compress(nifti_bytes())]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(64)]
    return b"".join(parts) + packer.flush()


def nrrd_bytes(data: bytes | None = None, **fields: str) -> bytes:
    settled = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "12 9 7",
        "space directions": "(1.5,0,0) (0,2,0) (0,0,3)",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(0,0,0)",
    } | {name.replace("_", " "): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in settled.items() if value]
    text = "\n".join(["NRRD0004", *lines, "", ""])
    return text.encode() + (voxels().tobytes("F") if data is None else data)


def metaimage_bytes(data: bytes | None = None, **fields: str) -> bytes:
    settled = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "1.5 2 3",
        "DimSize": "12 9 7",
        "ElementType": "MET_SHORT",
    } | fields
    # whatever follows this line is voxels
    settled["ElementDataFile"] = settled.pop("ElementDataFile", "LOCAL")
    text = "".join(f"{name} = {value}\n" for name, value in settled.items() if value)
    return text.encode() + (voxels().tobytes("F") if data is None else data)


def mgh_bytes() -> bytes:
    return nib.MGHImage(voxels(dtype=">i2"), np.diag([1.5, 2.0, 3.0, 1.0])).to_bytes()


def with_nan(share: float) -> np.ndarray:
    array = voxels().astype("<f4").ravel()
    array[: int(share * array.size)] = np.nan
    return array.reshape(SHAPE, order="F")


PACKED = gzip.compress(nifti_bytes(), mtime=0)
SINGULAR = np.array([[1.5, 3.0, 0, 0], [1.0, 2.0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])
NAN_AFFINE = np.full((4, 4), np.nan)
RGB = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])

BAD_FILES: dict[str, tuple[str, str, bytes]] = {
    # what is wrong: (code, name, bytes)
    "no bytes": ("E304", "a.nii.gz", b""),
    "gzip of nothing": ("E304", "a.nii.gz", gzip.compress(b"")),
    "plain text": ("E305", "a.nii.gz", b"dear radiologist, please find the scan attached\n" * 30),
    "text inside gzip": ("E305", "a.nii.gz", gzip.compress(b"no scan here\n" * 90)),
    "noise": ("E305", "a.nii", np.random.default_rng(0).bytes(5000)),
    "a PNG": ("E305", "a.nii", b"\x89PNG\r\n\x1a\n" + bytes(900)),
    "half of a pair": ("E305", "a.hdr", nifti_bytes(change=with_field("magic", b"ni1"))),
    "a nrrd inside gzip": ("E305", "a.nrrd", gzip.compress(nrrd_bytes())),
    "gzip cut in half": ("E306", "a.nii.gz", PACKED[: len(PACKED) // 2]),
    "gzip cut in its header": ("E306", "a.nii.gz", PACKED[:30]),
    "gzip without its last byte": ("E306", "a.nii.gz", PACKED[:-1]),
    "plain cut in half": ("E306", "a.nii", nifti_bytes()[:900]),
    "plain cut in its header": ("E306", "a.nii", nifti_bytes()[:347]),
    "gzip of cut data": ("E306", "a.nii.gz", gzip.compress(nifti_bytes()[:-1])),
    "voxels begin too far": ("E306", "a.nii", nifti_bytes(change=with_field("vox_offset", 1e12))),
    "nrrd cut": ("E306", "a.nrrd", nrrd_bytes()[:-1]),
    "nrrd gzip cut": ("E306", "a.nrrd", nrrd_bytes(PACKED[:90], encoding="gzip")),
    "mha cut": ("E306", "a.mha", metaimage_bytes()[:-1]),
    "mha zlib cut": (
        "E306",
        "a.mha",
        metaimage_bytes(zlib.compress(voxels().tobytes())[:-9], CompressedData="True"),
    ),
    "mgh cut": ("E306", "a.mgh", mgh_bytes()[:1000]),
    "mgh cut in its header": ("E306", "a.mgh", mgh_bytes()[:200]),
    "wrong checksum": ("E307", "a.nii.gz", flipped_bit(PACKED, -8)),
    "wrong length field": ("E307", "a.nii.gz", flipped_bit(PACKED, -4)),
    "junk after gzip": ("E307", "a.nii.gz", PACKED + b"junk"),
    "nrrd wrong checksum": (
        "E307",
        "a.nrrd",
        nrrd_bytes(flipped_bit(gzip.compress(voxels().tobytes("F")), -8), encoding="gzip"),
    ),
    "mha wrong checksum": (
        "E307",
        "a.mha",
        metaimage_bytes(
            flipped_bit(zlib.compress(voxels().tobytes("F")), -1), CompressedData="True"
        ),
    ),
    "two-dimensional": ("E308", "a.nii", nifti_bytes(voxels((12, 9)))),
    "one slice": ("E308", "a.nii", nifti_bytes(voxels((12, 9, 1)))),
    "one voxel": ("E308", "a.nii", nifti_bytes(voxels((1, 1, 1)))),
    "nrrd two-dimensional": (
        "E308",
        "a.nrrd",
        nrrd_bytes(sizes="12 9", dimension="2", space_directions="(1,0,0) (0,1,0)"),
    ),
    "mha two-dimensional": (
        "E308",
        "a.mha",
        metaimage_bytes(
            NDims="2", DimSize="12 9", TransformMatrix="1 0 0 1", Offset="0 0", ElementSpacing="1 1"
        ),
    ),
    "four-dimensional": ("E309", "a.nii", nifti_bytes(voxels((12, 9, 7, 3)))),
    "vectors": ("E309", "a.nii", nifti_bytes(voxels((12, 9, 7, 1, 3)))),
    "mha channels": ("E309", "a.mha", metaimage_bytes(ElementNumberOfChannels="2")),
    "nifti colour": ("E310", "a.nii", nifti_bytes(RGB)),
    "nrrd colour": (
        "E310",
        "a.nrrd",
        nrrd_bytes(
            type="uchar",
            dimension="4",
            sizes="3 12 9 7",
            kinds="RGB-color domain domain domain",
            space_directions="none (1,0,0) (0,1,0) (0,0,1)",
        ),
    ),
    "mha colour": (
        "E310",
        "a.mha",
        metaimage_bytes(ElementNumberOfChannels="3", ElementType="MET_UCHAR"),
    ),
    "negative dimension": ("E311", "a.nii", nifti_bytes(change=with_dims(3, 12, -9, 7))),
    "zero dimension": ("E311", "a.nii", nifti_bytes(change=with_dims(3, 0, 9, 7))),
    "no dimensions": ("E311", "a.nii", nifti_bytes(change=with_dims(0, 12, 9, 7))),
    "nine dimensions": ("E311", "a.nii", nifti_bytes(change=with_dims(9, 12, 9, 7))),
    "nrrd zero size": ("E311", "a.nrrd", nrrd_bytes(sizes="12 0 7")),
    "mha negative size": ("E311", "a.mha", metaimage_bytes(DimSize="12 -9 7")),
    "claims 32767 cubed": ("E312", "a.nii", nifti_bytes(change=with_dims(3, *[32767] * 3))),
    "nrrd claims too much": ("E312", "a.nrrd", nrrd_bytes(sizes="99999 99999 99999")),
    "mha claims too much": ("E312", "a.mha", metaimage_bytes(DimSize="99999 99999 99999")),
    "gzip bomb": ("E312", "a.nii.gz", bomb()),
    "claims more than its bytes": ("E306", "a.nii.gz", gzip.compress(
        nifti_bytes(change=with_dims(3, 900, 900, 900)))),
    "zero spacing": ("E313", "a.nii", nifti_bytes(change=with_field("pixdim", [1] + [0] * 7))),
    "NaN spacing": ("E313", "a.nii", nifti_bytes(change=with_field("pixdim", [1] + [np.nan] * 7))),
    "negative spacing": (
        "E313", "a.nii", nifti_bytes(change=with_field("pixdim", [1, -1] + [1] * 6))
    ),
    "spacing in metres": (
        "E313", "a.nii", nifti_bytes(change=with_sform(np.diag([1e-3, 1e-3, 5e-3, 1])))
    ),
    "spacing in micrometres": (
        "E313", "a.nii", nifti_bytes(change=with_sform(np.diag([700.0, 700.0, 5000.0, 1])))
    ),
    "as long as a street": (
        "E313", "a.nii", nifti_bytes(
            voxels((60, 3, 4)), change=with_sform(np.diag([100.0, 2.0, 3.0, 1])))
    ),
    "mha zero spacing": ("E313", "a.mha", metaimage_bytes(ElementSpacing="0 2 3")),
    "NaN affine": ("E314", "a.nii", nifti_bytes(change=with_sform(NAN_AFFINE))),
    "infinite affine": ("E314", "a.nii", nifti_bytes(change=with_sform(np.full((4, 4), np.inf)))),
    "singular affine": ("E314", "a.nii", nifti_bytes(change=with_sform(SINGULAR))),
    "zero affine": ("E314", "a.nii", nifti_bytes(change=with_sform(np.zeros((4, 4))))),
    "nrrd singular": (
        "E314", "a.nrrd", nrrd_bytes(space_directions="(1,0,0) (1,0,0) (0,0,1)")
    ),
    "mha singular": ("E314", "a.mha", metaimage_bytes(TransformMatrix="1 0 0 1 0 0 0 0 1")),
    "a fifth NaN": ("E315", "a.nii", nifti_bytes(with_nan(0.2))),
    "all NaN": ("E315", "a.nii", nifti_bytes(with_nan(1.0))),
    "infinite scaling": ("E315", "a.nii", nifti_bytes(change=with_field("scl_slope", np.inf))),
    "constant": ("E316", "a.nii", nifti_bytes(np.full(SHAPE, 40, "<i2"))),
    "all zero": ("E316", "a.nii.gz", gzip.compress(nifti_bytes(np.zeros(SHAPE, "<i2")))),
    "constant but for NaN": (
        "E316", "a.nii", nifti_bytes(np.where(np.isnan(with_nan(0.05)), np.nan, 3).astype("<f4"))
    ),
    "complex": ("E320", "a.nii", nifti_bytes(voxels().astype("<c8"))),
    "unknown voxel type": ("E320", "a.nii", nifti_bytes(change=with_field("datatype", 7))),
    "nrrd block type": ("E320", "a.nrrd", nrrd_bytes(type="block")),
    "mha array type": ("E320", "a.mha", metaimage_bytes(ElementType="MET_FLOAT_MATRIX")),
    "nrrd without sizes": ("E305", "a.nrrd", nrrd_bytes(sizes="")),
    "nrrd words for sizes": ("E305", "a.nrrd", nrrd_bytes(sizes="twelve nine seven")),
    "nrrd axes missing": ("E305", "a.nrrd", nrrd_bytes(space_directions="(1,0,0) (0,1,0)")),
    "mha without type": ("E305", "a.mha", metaimage_bytes(ElementType="")),
    "mha sizes and rank differ": ("E305", "a.mha", metaimage_bytes(NDims="4")),
    "nrrd voxels missing": ("E301", "a.nhdr", nrrd_bytes(b"", data_file="gone.raw")),
    "mhd voxels missing": ("E301", "a.mhd", metaimage_bytes(b"", ElementDataFile="gone.raw")),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_file_is_refused_with_its_code(what, tmp_path):
    code, name, raw = BAD_FILES[what]
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(InputError) as refusal:
        read_volume(path)
    check_line(refusal.value, code, path)


def check_line(error: TextsegError, code: str, path: Path) -> None:
    assert error.code == code, error.line()
    assert error.exit_code == 3
    assert str(path) in error.line()
    assert error.remedy
    assert "\n" not in error.line()
    assert str(error) == error.line()


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def under_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"a file, not a folder")


BAD_PATHS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("E301", lambda path: None),
    "dangling link": ("E301", dangling),
    "below a file": ("E301", under_a_file),
    "folder without DICOM": (
        "E302", lambda path: (path.mkdir(), (path / "a.txt").write_text("x" * 200))
    ),
    "empty folder": ("E318", Path.mkdir),
    "folder of empty folders": ("E318", lambda path: (path / "a" / "b").mkdir(parents=True)),
    "pipe": ("E303", os.mkfifo),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_PATHS)
def test_a_bad_path_is_refused_with_its_code(what, tmp_path):
    code, make = BAD_PATHS[what]
    folder = tmp_path / "case"
    folder.mkdir()
    make(folder / "scan.nii.gz")
    with pytest.raises(InputError) as refusal:
        read_volume(folder / "scan.nii.gz")
    check_line(refusal.value, code, folder / "scan.nii.gz")


def test_a_name_with_a_null_byte_is_no_path():
    with pytest.raises(InputError) as refusal:
        read_volume("scan\0.nii.gz")
    assert refusal.value.code == "E301"


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_bytes())
    real_open = Path.open

    # the tests may run as root, whom no mode keeps out
    def forbidden(self: Path, *args: object, **kwargs: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return real_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(InputError) as refusal:
        read_volume(path)
    check_line(refusal.value, "E303", path)


def test_a_volume_beyond_the_free_memory_is_refused(tmp_path, monkeypatch):
    class Full:
        available = 100

    monkeypatch.setattr(gate.psutil, "virtual_memory", Full)
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_bytes())
    with pytest.raises(ResourceError) as refusal:
        read_volume(path)
    assert refusal.value.code == "E501"


def test_the_voxel_limit_is_the_callers(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_bytes())
    assert read_volume(path, max_voxels=12 * 9 * 7).data.shape == (1, 12, 9, 7)
    with pytest.raises(InputError, match="more than the limit of 755"):
        read_volume(path, max_voxels=755)


def test_no_bit_flip_passes_unnoticed(tmp_path):
    path = tmp_path / "a.nii.gz"
    original = voxels()
    refused = 0
    for position in np.linspace(0, len(PACKED) - 1, 120).astype(int):
        path.write_bytes(flipped_bit(PACKED, int(position)))
        try:
            volume = read_volume(path)
        except InputError:
            refused += 1
        else:
            # a few bytes of a gzip header (time, system) carry no data
            assert np.array_equal(volume.data[0], original)
    assert refused > 110


VALID = {
    "a.nii": nifti_bytes(),
    "a.nii.gz": PACKED,
    "a.nrrd": nrrd_bytes(),
    "a.mha": metaimage_bytes(),
    "a.mgh": mgh_bytes(),
}


@pytest.mark.parametrize("name", VALID)
def test_the_sound_twin_of_every_bad_file_is_accepted(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(VALID[name])
    volume = read_volume(path)
    assert np.array_equal(volume.data[0], voxels())
    assert volume.warnings == ()


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from([name for name in VALID if not name.endswith("gz")]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
)
@example(name="a.nii", changes=[(76, 1), (252, 1)])  # a handedness that is neither 1 nor -1
def test_any_header_gives_a_volume_or_a_coded_error(name, changes, tmp_path_factory):
    raw = bytearray(VALID[name])
    for position, value in changes:
        raw[position] = value
    path = tmp_path_factory.getbasetemp() / f"fuzz-{name}"
    path.write_bytes(bytes(raw))
    try:
        volume = read_volume(path, max_voxels=1_000_000)
    except TextsegError as error:
        assert error.code.startswith("E3")
    else:
        assert np.isfinite(volume.data).all()
        assert min(volume.geometry.spacing_mm) > 0


def test_every_reader_has_a_sound_file_here():
    heads = [gzip.decompress(raw) if name.endswith("gz") else raw for name, raw in VALID.items()]
    for reader in READERS:
        found = any(reader.recognises(head[:1024]) for head in heads)
        assert found or reader.name == "DICOM"
