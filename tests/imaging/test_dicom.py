"""DICOM folders: a sorted, scaled, well placed volume, or one coded refusal."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from textseg.errors import InputError, ModelError
from textseg.imaging import as_volume, read_volume

ROWS, COLUMNS, SLICES = 7, 9, 5
SERIES = generate_uid(entropy_srcs=["first"])
OTHER = generate_uid(entropy_srcs=["second"])
STRAIGHT = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
OBLIQUE = ([0.96, 0.28, 0.0], [-0.28 * 0.8, 0.96 * 0.8, -0.6])


def stored_values() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 2000, (SLICES, ROWS, COLUMNS)).astype(np.uint16)


def write_slice(
    path: Path,
    pixels: np.ndarray,
    position: np.ndarray,
    axes: tuple[list[float], list[float]],
    *,
    uid: str = SERIES,
    change: Callable[[FileDataset], None] | None = None,
) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = uid
    dataset.SeriesDescription = "thorax"
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.PixelSpacing = [0.8, 0.5]  # between rows, then between columns
    dataset.ImagePositionPatient = [float(round(value, 6)) for value in position]
    dataset.ImageOrientationPatient = [*axes[0], *axes[1]]
    dataset.RescaleSlope = "2"
    dataset.RescaleIntercept = "-1024"
    dataset.PixelData = pixels.tobytes()
    if change:
        change(dataset)
    dataset.save_as(path)


def write_series(
    folder: Path,
    *,
    axes: tuple[list[float], list[float]] = STRAIGHT,
    lean_mm: float = 0.0,
    places: list[float] | None = None,
    uid: str = SERIES,
    change: Callable[[FileDataset], None] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(*axes)
    for index, place in enumerate(places or [2.5 * index for index in range(SLICES)]):
        position = np.array([-30.0, 12.0, 400.0]) + place * normal
        position += np.array(axes[1]) * lean_mm * index
        # file names run against the positions, as they often do
        name = f"{uid[-4:]}-{50 - index}.dcm"
        write_slice(
            folder / name, stored_values()[index % SLICES], position, axes, uid=uid, change=change
        )
    return folder


def set_value(name: str, value: object) -> Callable[[FileDataset], None]:
    return lambda dataset: setattr(dataset, name, value)


@pytest.mark.parametrize("axes", [STRAIGHT, OBLIQUE])
def test_a_series_equals_simpleitks(axes, tmp_path):
    folder = write_series(tmp_path / "ct", axes=axes)
    (folder / "notes.txt").write_text("not an image")
    volume = read_volume(folder)

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    expected = as_volume(reader.Execute())
    assert np.array_equal(volume.data, expected.data)
    assert np.allclose(volume.geometry.affine, expected.geometry.affine, atol=1e-4)
    assert np.array_equal(volume.data[0], stored_values().transpose(2, 1, 0) * 2.0 - 1024.0)


def test_a_series_says_what_it_is(tmp_path):
    source = read_volume(write_series(tmp_path / "ct")).source
    assert source.format == "dicom"
    assert source.metadata["series_uid"] == SERIES
    assert source.metadata["modality_reason"] == "stated by the file"


@pytest.mark.parametrize(("tag", "modality"), [("CT", "ct"), ("MR", "mr"), ("PT", "pet")])
def test_the_modality_tag_is_believed(tag, modality, tmp_path):
    folder = write_series(tmp_path / "scan", change=set_value("Modality", tag))
    assert read_volume(folder).modality == modality


@pytest.mark.parametrize("part", [slice(None), slice(-6, None), slice(0, -1)])
def test_one_of_several_series_is_chosen_by_uid(part, tmp_path):
    write_series(tmp_path / "both", uid=SERIES)
    write_series(tmp_path / "both" / "more", uid=OTHER, places=[0, 2, 4])
    volume = read_volume(tmp_path / "both", series=OTHER[part])
    assert volume.data.shape == (1, COLUMNS, ROWS, 3)


def test_several_series_are_listed(tmp_path):
    write_series(tmp_path / "both", uid=SERIES)
    write_series(tmp_path / "both", uid=OTHER, places=[0, 2, 4])
    for series in (None, "9.9.9"):
        with pytest.raises(InputError) as refusal:
            read_volume(tmp_path / "both", series=series)
        assert refusal.value.code == "E317"
        for part in (SERIES, OTHER, "thorax", "5 slices", "3 slices", "--series"):
            assert part in str(refusal.value)


BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "slice missing": ("E319", lambda f: write_series(f, places=[0, 2.5, 5, 10, 12.5])),
    "slice twice": ("E319", lambda f: write_series(f, places=[0, 2.5, 2.5, 5])),
    "gantry tilt": ("E319", lambda f: write_series(f, lean_mm=0.4)),
    "sizes differ": (
        "E319",
        lambda f: (
            write_series(f),
            write_slice(f / "x.dcm", np.zeros((5, 5), "u2"), np.array([0, 0, 0.0]), STRAIGHT),
        ),
    ),
    "directions differ": (
        "E319",
        lambda f: (
            write_series(f),
            write_slice(f / "x.dcm", stored_values()[0], np.array([0, 0, 0.0]), OBLIQUE),
        ),
    ),
    "multi-frame": ("E319", lambda f: write_series(f, change=set_value("NumberOfFrames", 4))),
    "no orientation": (
        "E319", lambda f: write_series(f, change=set_value("ImageOrientationPatient", None))
    ),
    "one slice": ("E308", lambda f: write_series(f, places=[0])),
    "colour": ("E310", lambda f: write_series(f, change=set_value("SamplesPerPixel", 3))),
    "zero spacing": ("E313", lambda f: write_series(f, change=set_value("PixelSpacing", [0, 0]))),
    "zero directions": (
        "E314", lambda f: write_series(f, change=set_value("ImageOrientationPatient", [0] * 6))
    ),
    "pixels cut": ("E306", lambda f: write_series(f, change=set_value("PixelData", b"12"))),
    "no positions": (
        "E318", lambda f: write_series(f, change=set_value("ImagePositionPatient", None))
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_series_is_refused_with_its_code(what, tmp_path):
    code, make = BROKEN[what]
    make(tmp_path / "series")
    with pytest.raises(InputError) as refusal:
        read_volume(tmp_path / "series")
    assert refusal.value.code == code, refusal.value
    assert str(tmp_path / "series") in str(refusal.value)
    assert refusal.value.remedy


def test_a_single_file_asks_for_its_folder(tmp_path):
    folder = write_series(tmp_path / "ct")
    with pytest.raises(InputError, match="give the folder") as refusal:
        read_volume(next(folder.glob("*.dcm")))
    assert refusal.value.code == "E308"


def test_the_voxel_limit_holds_before_pixels_are_read(tmp_path):
    folder = write_series(tmp_path / "ct", change=set_value("PixelData", b"12"))
    with pytest.raises(InputError) as refusal:
        read_volume(folder, max_voxels=100)
    assert refusal.value.code == "E312"


def test_uneven_slices_are_noted(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct", places=[0, 2.5, 5.1, 7.5, 10]))
    assert "vary by up to 0.1 mm" in volume.warnings[0]


def test_pixels_without_a_decoder_name_what_to_install(tmp_path):
    folder = write_series(tmp_path / "ct")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"not a codestream"])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)
    with pytest.raises(ModelError, match="JPEG 2000") as refusal:
        read_volume(folder)
    assert refusal.value.code == "E403"


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "ct")
    real_import = builtins.__import__

    def without_pydicom(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == "pydicom":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pydicom)
    with pytest.raises(ModelError) as refusal:
        read_volume(folder)
    assert refusal.value.code == "E403"
    assert 'pip install "textseg[dicom]"' in str(refusal.value)
