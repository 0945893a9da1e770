"""NIfTI-1 and NIfTI-2 single files, compressed or not, told by their bytes."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textseg.errors import InputError
from textseg.imaging import affine as affines
from textseg.imaging import gate
from textseg.imaging.readers.decoded import (
    Decoded,
    VoxelBlock,
    choose_volume,
    read_block,
    suffix_warning,
)
from textseg.imaging.stream import ByteStream, truncated
from textseg.imaging.volume import Source

_PAIR_MAGIC = (b"ni1", b"ni2")
_RGB_CODES = (128, 2304)
_LARGEST_OFFSET = 1 << 28


def recognises(head: bytes) -> bool:
    """Whether these first bytes are a NIfTI header (also of a two-file image, refused later)."""
    return _header_size(head) is not None


def read(path: Path, request: gate.Request) -> Decoded:
    """The scan, its header checked before its voxels are touched."""
    with ByteStream(path) as stream:
        header = _parse(stream, path=path)
        warnings = list(
            suffix_warning(path, compressed=stream.compressed, suffixes=(".nii", ".nii.gz"))
        )
        shape, num_volumes, index = gate.check_sizes(_sizes(header, path), request, path=path)
        affine, notes = checked_affine(header, shape, path=path)
        slope, intercept = _scaling(header, path=path)
        block = VoxelBlock(
            offset=_offset(header, path=path),
            dtype=_dtype(header, path=path),
            shape=shape,
            num_volumes=num_volumes,
            index=index,
            slope=slope,
            intercept=intercept,
        )
        data, sha256 = read_block(stream, block, path=path)
    source = Source(path, "nifti", header=header, sha256=sha256)
    return Decoded(data, affine, source, warnings=(*warnings, *notes))


def from_image(image: Any, request: gate.Request) -> Decoded:
    """A nibabel image, already in memory or loaded now from its own file."""
    name = image.get_filename()
    path = Path(name) if name else None
    gate.check_sizes(image.shape, request, path=path)
    gate.check_dtype(image.get_data_dtype(), path=path)
    warnings = gate.check_affine(np.asarray(image.affine, dtype=np.float64), path=path)
    try:
        stored = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError) as error:
        raise truncated(path, f"its voxels cannot be read ({error})") from error
    is_nifti = hasattr(image.header, "get_sform")
    return Decoded(
        choose_volume(stored, request, path=path),
        np.array(image.affine, dtype=np.float64),
        Source(path, "nifti" if is_nifti else "array", image.header.copy() if is_nifti else None),
        warnings=warnings,
    )


def checked_affine(
    header: Any, shape: tuple[int, int, int], *, path: Path
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """The sform if set, else the qform, else axes by convention; and what was odd about it."""
    gate.check_spacing([float(step) for step in header["pixdim"][1:4]], path=path)
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    warnings: tuple[str, ...] = ()
    if sform_code > 0:
        affine = np.asarray(header.get_sform(), dtype=np.float64)
    elif qform_code > 0:
        affine = _qform(header)
    else:
        affine = np.asarray(header.get_base_affine(), dtype=np.float64)
        warnings = (
            "the header states no orientation; "
            f"{affines.orientation(affine)} was assumed, so left and right may be swapped",
        )
    warnings += gate.check_affine(affine, path=path)
    if sform_code > 0:
        warnings += _spacing_note(header, affine)
        if qform_code > 0:
            warnings += gate.compare_orientations(affine, _qform(header), shape)
    return affine, warnings


def _qform(header: Any) -> npt.NDArray[np.float64]:
    """The qform, or NaN where its quaternion is not one."""
    if header["pixdim"][0] not in (-1, 1):
        # the standard reads any other handedness, zero included, as 1
        header = header.copy()
        header["pixdim"][0] = 1
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, np.linalg.LinAlgError):
        return np.full((4, 4), np.nan)


def _spacing_note(header: Any, affine: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """A warning if the voxel size fields and the sform disagree."""
    stated = np.array(header["pixdim"][1:4], dtype=np.float64)
    used = np.array(affines.spacing_mm(affine))
    if np.allclose(stated, used, rtol=1e-2):
        return ()
    shown = [" x ".join(f"{step:g}" for step in sizes) for sizes in (stated, used.round(4))]
    return (f"the header states voxels of {shown[0]} mm, its sform {shown[1]} mm, which were used",)


def _header_size(head: bytes) -> int | None:
    """348 or 540 if the bytes begin like NIfTI, in either byte order."""
    if len(head) < 12:
        return None
    for order in "<>":
        (size,) = struct.unpack(f"{order}i", head[:4])
        if size == 348 and head[344:347] in (b"n+1", b"ni1"):
            return 348
        if size == 540 and head[4:7] in (b"n+2", b"ni2"):
            return 540
    return None


def _parse(stream: ByteStream, *, path: Path) -> Any:
    """The header object, as stored; the stream stays at its beginning."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    size = _header_size(stream.peek(352)) or 348
    raw = stream.peek(size)
    if len(raw) < size:
        raise truncated(path, f"ends within its header ({len(raw)} of {size} bytes)")
    kind: Any = Nifti1Header if size == 348 else Nifti2Header
    header = kind(raw, check=False)
    if bytes(header["magic"])[:3] in _PAIR_MAGIC:
        raise InputError(
            "is the header half of a two-file image (.hdr and .img);",
            code="E305",
            path=path,
            remedy="convert the pair to one .nii.gz file.",
        )
    return header


def _sizes(header: Any, path: Path) -> list[int]:
    """All dimensions that the header declares."""
    dims = [int(size) for size in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise InputError(
            f"declares {dims[0]} dimensions;",
            code="E311",
            path=path,
            remedy="its header is damaged, export the scan again.",
        )
    return dims[1 : dims[0] + 1]


def _dtype(header: Any, *, path: Path) -> np.dtype[Any]:
    """The stored voxel type."""
    from nibabel.spatialimages import HeaderDataError

    code = int(header["datatype"])
    if code in _RGB_CODES:
        raise gate.colour(path)
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise InputError(
            f"uses the voxel type code {code}, which NIfTI does not define for scans;",
            code="E320",
            path=path,
            remedy="convert it to int16 or float32.",
        ) from error
    gate.check_dtype(dtype, path=path)
    return dtype


def _offset(header: Any, *, path: Path) -> int:
    """Bytes before the first voxel; files that say 0 begin right after the header."""
    least = 352 if int(header["sizeof_hdr"]) == 348 else 544
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset > _LARGEST_OFFSET:
        raise truncated(path, f"says its voxels begin at byte {offset:g}")
    return max(least, int(offset))


def _scaling(header: Any, *, path: Path) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN means that values are stored as they are."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0.0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(
            f"scales its voxels by {slope:g} and {intercept:g};",
            code="E315",
            path=path,
            remedy="correct scl_slope and scl_inter, or export the scan again.",
        )
    return slope, intercept
