"""A folder of DICOM slices as one volume, sorted by position; refused if they do not add up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textseg.errors import InputError, ModelError
from textseg.files import unreadable
from textseg.imaging import gate
from textseg.imaging.readers.decoded import Decoded, scaled
from textseg.imaging.readers.detached import ras_affine
from textseg.imaging.stream import truncated
from textseg.imaging.volume import Modality, Source

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
"""Class of objects that hold masks, not images (SEG)."""
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
"""Class of objects that hold contours (RTSTRUCT)."""

_MODALITIES: tuple[tuple[str, Modality], ...] = (("CT", "ct"), ("MR", "mr"), ("PT", "pet"))
_MAX_FILES = 50_000
_MAX_TILT_DEGREES = 0.5
_UNEVEN_SHARE = 0.10
_NOTED_SHARE = 0.01
_TAGS = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "Modality",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SamplesPerPixel",
    "NumberOfFrames",
)


@dataclass(frozen=True, eq=False)
class _Slice:
    """One file's place in the patient."""

    path: Path
    uid: str
    description: str
    modality: str
    rows: int
    columns: int
    samples: int
    spacing_mm: npt.NDArray[np.float64]
    position: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        return np.cross(self.axes[0], self.axes[1])


def recognises(head: bytes) -> bool:
    """Whether these first bytes are a DICOM file's, with or without its preamble."""
    return head[128:132] == b"DICM" or head[:4] in (b"\x08\x00\x00\x00", b"\x08\x00\x05\x00")


def read_file(path: Path, request: gate.Request) -> Decoded:
    """Refuse a single DICOM file: a scan is the folder."""
    raise InputError(
        "is one DICOM file, usually one slice of a scan;",
        code="E308",
        path=path,
        remedy="give the folder that holds the whole series.",
    )


def read_folder(path: Path, request: gate.Request) -> Decoded:
    """The series in a folder (searched with its subfolders)."""
    slices = _slices(path)
    chosen = _one_series(slices, request, path=path)
    affine, ordered, warnings = _stacked(chosen, request, path=path)
    shape = (ordered[0].columns, ordered[0].rows, len(ordered))
    warnings += gate.check_affine(affine, path=path)
    gate.check_memory(shape, path=path)
    data = np.empty(shape[::-1], dtype=np.float32)  # Z Y X
    for index, one in enumerate(ordered):
        data[index] = _pixels(one)
    stated = ordered[0]
    metadata = {"series_uid": stated.uid, "series_description": stated.description}
    return Decoded(
        data.T,  # X Y Z
        affine,
        Source(path, "dicom", metadata=metadata),
        modality=dict(_MODALITIES).get(stated.modality),
        warnings=warnings,
    )


def read_headers(folder: Path, tags: Sequence[str]) -> Iterator[tuple[Path, Any]]:
    """Every DICOM file below a folder with these elements of its header, images or not.

    Raises:
        InputError: A file cannot be read.
        ModelError: E403, pydicom is not installed.
    """
    pydicom = _pydicom()
    for path in _files(folder):
        if recognises(_head(path)):
            yield (
                path,
                pydicom.dcmread(
                    path, stop_before_pixels=True, specific_tags=list(tags), force=True
                ),
            )


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ModelError(
            "reading DICOM needs the package pydicom, which is not installed;",
            code="E403",
            remedy='install it with: pip install "textseg[dicom]"',
        ) from error
    return pydicom


def _slices(folder: Path) -> list[_Slice]:
    """Every image in the folder that has a place in the patient."""
    files = [path for path in _files(folder) if path.name.upper() != "DICOMDIR"]
    if not files:
        raise InputError(
            "is an empty folder;", code="E318", path=folder, remedy="give a scan or its folder."
        )
    candidates = [path for path in files if recognises(_head(path))]
    if not candidates:
        raise InputError(
            f"is a folder without DICOM files ({len(files)} other files);",
            code="E302",
            path=folder,
            remedy="give one scan file, or the folder of a DICOM series.",
        )
    slices = [one for path in candidates if (one := _described(path)) is not None]
    if not slices:
        raise InputError(
            f"holds {len(candidates)} DICOM files, but none is a slice with a position;",
            code="E318",
            path=folder,
            remedy="give the folder of the images, not of reports or derived objects.",
        )
    return slices


def _files(folder: Path) -> Iterator[Path]:
    """Visible files below the folder, in a stable order."""
    try:
        found = sorted(folder.rglob("*"))
    except OSError as error:
        raise unreadable(folder, error) from error
    if len(found) > _MAX_FILES:
        raise InputError(
            f"holds {len(found):,} files, more than one series could;",
            code="E317",
            path=folder,
            remedy="give the folder of a single series.",
        )
    yield from (path for path in found if path.is_file() and not path.name.startswith("."))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(132)
    except OSError as error:
        raise unreadable(path, error) from error


def _described(path: Path) -> _Slice | None:
    """What the file says about itself; None if it is no image with a place in the patient."""
    pydicom = _pydicom()
    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=list(_TAGS), force=True
        )
        if header.get("SOPClassUID") == SEGMENTATION:
            return None
        frames = int(header.get("NumberOfFrames") or 1)
        if frames == 1 and header.get("ImagePositionPatient") is None:
            return None
        if frames == 1:
            return _slice_of(header, path)
    # a damaged value can surface as any of a dozen exception types, whenever it is first used
    except Exception as error:
        raise _broken(
            path, f"its DICOM header is incomplete or damaged ({_brief(error)})"
        ) from error
    raise _broken(path, f"is a multi-frame file ({frames} frames)", "convert it to NIfTI.")


def _slice_of(header: Any, path: Path) -> _Slice:
    """The values this module needs, in its own types."""
    return _Slice(
        path=path,
        uid=str(header.SeriesInstanceUID),
        description=_one_line(header.get("SeriesDescription", "")),
        modality=str(header.get("Modality", "")),
        rows=int(header.Rows),
        columns=int(header.Columns),
        samples=int(header.get("SamplesPerPixel") or 1),
        spacing_mm=np.array(header.PixelSpacing, dtype=np.float64).reshape(2),
        position=np.array(header.ImagePositionPatient, dtype=np.float64).reshape(3),
        axes=np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3),
    )


def _one_line(text: Any) -> str:
    """Text from a file, without control characters and not too long for a message."""
    return "".join(char if char.isprintable() else " " for char in str(text))[:80]


def _brief(error: Exception) -> str:
    return _one_line(f"{type(error).__name__}: {error}")


def _one_series(slices: Sequence[_Slice], request: gate.Request, *, path: Path) -> list[_Slice]:
    """The slices of the only series, or of the one asked for."""
    series: dict[str, list[_Slice]] = {}
    for one in slices:
        series.setdefault(one.uid, []).append(one)
    wanted = request.series
    matching = [uid for uid in series if wanted is None or uid == wanted]
    if wanted and not matching:
        matching = [uid for uid in series if uid.startswith(wanted) or uid.endswith(wanted)]
    if len(matching) == 1:
        return series[matching[0]]
    listing = "; ".join(
        f"{uid} ({members[0].description or 'no description'}, {len(members)} slices)"
        for uid, members in sorted(series.items())
    )
    fits = f"{len(matching) or 'none'} of them fit {wanted!r}, " if wanted else ""
    raise InputError(
        f"holds {len(series)} series: {listing};",
        code="E317",
        path=path,
        remedy=f"{fits}choose one with --series UID.",
    )


def _stacked(
    slices: Sequence[_Slice], request: gate.Request, *, path: Path
) -> tuple[npt.NDArray[np.float64], list[_Slice], tuple[str, ...]]:
    """The RAS+ affine, the slices in order along their normal, and what was odd."""
    first = slices[0]
    if any(one.samples != 1 for one in slices):
        raise gate.colour(path)
    _check_alike(slices, path=path)
    gate.check_sizes((first.columns, first.rows, len(slices)), request, path=path)
    gate.check_spacing(first.spacing_mm.tolist(), path=path)
    positions = np.stack([one.position for one in slices])
    gate.check_affine(
        ras_affine(np.stack([*first.axes, first.normal], axis=1), positions.sum(axis=0)), path=path
    )
    ordered = sorted(slices, key=lambda one: float(one.position @ first.normal))
    warnings = _check_gaps(ordered, path=path)
    step = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    _check_tilt(step, first.normal, path=path)
    # DICOM lists row spacing first, but the first array axis here runs along a row
    columns = np.stack(
        [first.axes[0] * first.spacing_mm[1], first.axes[1] * first.spacing_mm[0], step], axis=1
    )
    return ras_affine(columns, ordered[0].position), ordered, warnings


def _check_alike(slices: Sequence[_Slice], *, path: Path) -> None:
    """Refuse series whose slices differ in size, spacing or direction."""
    first = slices[0]
    for one in slices[1:]:
        if (one.rows, one.columns) != (first.rows, first.columns):
            raise _broken(path, f"{one.path.name} has another size than {first.path.name}")
        if not np.allclose(one.spacing_mm, first.spacing_mm, atol=1e-4):
            raise _broken(path, f"{one.path.name} has another pixel spacing than the rest")
        if not np.allclose(one.axes, first.axes, atol=1e-3):
            raise _broken(path, f"{one.path.name} is turned against {first.path.name}")


def _check_gaps(ordered: Sequence[_Slice], *, path: Path) -> tuple[str, ...]:
    """Refuse slices that share a place or leave one out; note gaps that vary a little."""
    normal = ordered[0].normal
    places = np.array([float(one.position @ normal) for one in ordered])
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    doubled = int(np.argmin(gaps))
    if gaps[doubled] < 1e-3:
        raise _broken(
            path,
            f"{ordered[doubled].path.name} and {ordered[doubled + 1].path.name} lie at the same "
            "position (a duplicate, or several time points or echoes)",
        )
    worst = int(np.argmax(np.abs(gaps - usual)))
    difference = abs(float(gaps[worst]) - usual)
    if difference > _UNEVEN_SHARE * usual:
        raise _broken(
            path,
            f"slices are {usual:g} mm apart, but {gaps[worst]:g} mm between "
            f"{ordered[worst].path.name} and {ordered[worst + 1].path.name} (a slice is missing?)",
        )
    if difference > _NOTED_SHARE * usual:
        return (f"slice distances vary by up to {difference:.2g} mm; their mean was used",)
    return ()


def _check_tilt(
    step: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], *, path: Path
) -> None:
    """Refuse stacks that lean (gantry tilt)."""
    cosine = float(step @ normal) / float(np.linalg.norm(step) * np.linalg.norm(normal))
    tilt = float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
    if tilt > _MAX_TILT_DEGREES:
        raise _broken(
            path,
            f"the gantry was tilted by {tilt:.1f} degrees",
            "convert it with a tool that corrects the tilt, such as dcm2niix.",
        )


def _pixels(one: _Slice) -> npt.NDArray[np.float32]:
    """The slice's values (rows, columns) in the units its header states."""
    pydicom = _pydicom()
    dataset = pydicom.dcmread(one.path, force=True)
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        # files without a preamble are in the format's default encoding
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    try:
        stored = dataset.pixel_array
        slope = float(dataset.get("RescaleSlope") or 1.0)
        intercept = float(dataset.get("RescaleIntercept") or 0.0)
    # decoders and damaged values raise whatever their authors chose
    except Exception as error:
        if _is_compressed(syntax):
            raise ModelError(
                f"its pixels are compressed ({_name(syntax)}) and cannot be decoded here;",
                code="E403",
                path=one.path,
                remedy="install pylibjpeg with its codecs, or decompress the series first.",
            ) from error
        raise truncated(one.path, f"its pixels cannot be read ({_brief(error)})") from error
    if stored.shape != (one.rows, one.columns):
        raise _broken(one.path, f"its pixels are {stored.shape}, not {(one.rows, one.columns)}")
    return scaled(stored, slope, intercept)


def _is_compressed(syntax: Any) -> bool:
    """Whether pixels in this transfer syntax need a decoder; damaged names say nothing."""
    try:
        return bool(syntax.is_compressed)
    except (AttributeError, ValueError):
        return False


def _name(syntax: Any) -> str:
    return str(getattr(syntax, "name", syntax))


def _broken(
    path: Path, cause: str, remedy: str = "export the series again, complete and alone."
) -> InputError:
    return InputError(f"{cause};", code="E319", path=path, remedy=remedy)
