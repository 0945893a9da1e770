"""Masks as NIfTI files whose geometry fields are the scan's own, byte for byte.

The header is written as bytes rather than through an image object, because a rebuilt header
differs in the last digit of its quaternion or spacing, and viewers then call the two misaligned.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from textseg.imaging import affine as affines
from textseg.imaging.volume import Geometry, Volume

__all__ = ["mask_header", "write_compressed", "write_plain"]

Mask = NDArray[np.bool_]

# masks are runs of equal bytes: higher levels take several times as long for a few per cent
COMPRESSION_LEVEL = 3
_PLANES_PER_WRITE = 64
_MAX_NIFTI1_SIZE = 32767
_NO_EXTENSIONS = bytes(4)


def write_compressed(path: Path, mask: Mask, volume: Volume, *, label: str) -> None:
    """Writes ``.nii.gz``; the same mask gives the same bytes, since no time or name is stored."""
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0) as stream,
    ):
        _write(stream, mask, mask_header(volume, label=label))


def write_plain(path: Path, mask: Mask, volume: Volume, *, label: str) -> None:
    """Writes an uncompressed ``.nii``."""
    with path.open("wb") as file:
        _write(file, mask, mask_header(volume, label=label))


def mask_header(volume: Volume, *, label: str) -> Any:
    """A uint8 NIfTI header on the volume's grid, ``label`` as its description.

    For a NIfTI scan it is the scan's header, of the same version and byte order, with only the
    fields about voxel values and the number of dimensions changed. Otherwise it states the affine.
    """
    header = _copied_header(volume) or _new_header(volume.geometry)
    header["dim"] = [3, *volume.geometry.shape, 1, 1, 1, 1]
    header.set_data_dtype(np.uint8)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 1
    header["descrip"] = _fitting(label, num_bytes=79)
    is_nifti2 = int(header["sizeof_hdr"]) == 540
    header["magic"] = b"n+2" if is_nifti2 else b"n+1"
    header["vox_offset"] = int(header["sizeof_hdr"]) + len(_NO_EXTENSIONS)
    return header


def _copied_header(volume: Volume) -> Any | None:
    """The scan's header, unless there is none or it describes another grid than the volume's."""
    source = volume.source.header
    if source is None or tuple(source.get_data_shape()[:3]) != volume.geometry.shape:
        return None
    shift_mm = affines.largest_shift_mm(
        source.get_best_affine(), volume.geometry.affine, volume.geometry.shape
    )
    # the reader may straighten a header by less than a voxel, and the file keeps its own numbers
    return source.copy() if shift_mm < min(volume.geometry.spacing_mm) else None


def _new_header(geometry: Geometry) -> Any:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    kind: Any = Nifti2Header if max(geometry.shape) > _MAX_NIFTI1_SIZE else Nifti1Header
    header = kind()
    header.set_data_shape(geometry.shape)
    header.set_zooms(geometry.spacing_mm)
    header.set_xyzt_units("mm", "unknown")
    header.set_sform(geometry.affine, code=1)
    # a quaternion holds no shear, so a sheared grid is described by the sform alone
    is_sheared = affines.shear_rad(geometry.affine) > affines.MAX_SNAPPED_SHEAR_RAD
    header.set_qform(geometry.affine, code=0 if is_sheared else 1)
    return header


def _write(stream: BinaryIO | gzip.GzipFile, mask: Mask, header: Any) -> None:
    stream.write(header.binaryblock)
    stream.write(_NO_EXTENSIONS)
    for start in range(0, mask.shape[2], _PLANES_PER_WRITE):
        planes = mask[:, :, start : start + _PLANES_PER_WRITE]
        # transposed, C order is the order of the file, first axis fastest
        stream.write(np.ascontiguousarray(planes.T).view(np.uint8).data)


def _fitting(text: str, *, num_bytes: int) -> bytes:
    """The text in UTF-8, cut between characters; what cannot be encoded becomes ``?``."""
    return text.encode("utf-8", "replace")[:num_bytes].decode("utf-8", "ignore").encode()
