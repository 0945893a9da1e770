"""Reads DICOM masks onto the grid of their scan: SEG by highdicom, RTSTRUCT by its contours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textseg.errors import InputError, ModelError
from textseg.imaging.readers import dicom
from textseg.imaging.volume import Geometry

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MAX_OFF_SLICE = 0.2
"""How far, in slices, a contour may lie from the slice it is drawn on."""


def read_segments(path: Path, scan: Geometry) -> Mapping[int | str, NDArray[np.bool_]]:
    """Masks ``X Y Z`` on the scan's grid by segment label (SEG) or ROI name (RTSTRUCT).

    Args:
        path: A DICOM file.
        scan: Where the series that the file refers to lies.

    Raises:
        InputError: The file is of another kind, damaged (E305), or does not fit the scan (E321).
        ModelError: E403, highdicom is not installed.
    """
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        raise ModelError(
            f"reading DICOM masks needs the package {error.name}, which is not installed;",
            code="E403",
            remedy='install it with: pip install "textseg[dicom]"',
        ) from error
    try:
        kind = pydicom.dcmread(path, specific_tags=["SOPClassUID"]).get("SOPClassUID")
        if kind == dicom.SEGMENTATION:
            return _segmentation(highdicom.seg.segread(path), scan, path)
        if kind == dicom.STRUCTURE_SET:
            return _structure_set(pydicom.dcmread(path), scan, path)
    # a damaged value can surface as any of a dozen exception types, whenever it is first used
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"is a damaged DICOM mask ({type(error).__name__}: {error}).", code="E305", path=path
        ) from error
    raise InputError("is neither a SEG nor an RTSTRUCT object.", code="E305", path=path)


def _segmentation(seg: Any, scan: Geometry, path: Path) -> dict[int | str, NDArray[np.bool_]]:
    """Segments, cropped and padded to the scan's grid; several of one label are joined."""
    import highdicom

    target = highdicom.VolumeGeometry(
        affine=_LPS @ scan.affine, spatial_shape=scan.shape, coordinate_system="PATIENT"
    )
    try:
        volume = seg.get_volume(combine_segments=False).match_geometry(target, tol=1e-3)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"has segments that do not lie on the grid of their scan ({error}).",
            code="E321",
            path=path,
        ) from error
    found: dict[int | str, NDArray[np.bool_]] = {}
    for place, number in enumerate(seg.segment_numbers):
        label = str(seg.get_segment_description(number).segment_label)
        mask = np.asarray(volume.array[..., place] > 0)
        found[label] = found[label] | mask if label in found else mask
    return found


def _structure_set(header: Any, scan: Geometry, path: Path) -> dict[int | str, NDArray[np.bool_]]:
    """Structures whose closed contours lie in the slices of the scan."""
    names = {roi.ROINumber: str(roi.ROIName) for roi in header.StructureSetROISequence}
    found: dict[int | str, NDArray[np.bool_]] = {}
    for structure in header.ROIContourSequence:
        mask = found.setdefault(
            names[structure.ReferencedROINumber], np.zeros(scan.shape, dtype=np.bool_)
        )
        for contour in structure.get("ContourSequence", ()):
            if contour.ContourGeometricType != "CLOSED_PLANAR":
                continue
            points = np.asarray(contour.ContourData, dtype=np.float64).reshape(-1, 3)
            voxels = scan.to_voxel(points * (-1, -1, 1))  # LPS to RAS, N 3
            level = round(float(voxels[:, 2].mean()))
            if np.abs(voxels[:, 2] - level).max() > _MAX_OFF_SLICE:
                raise InputError(
                    f"has contours of {names[structure.ReferencedROINumber]!r} between the "
                    "slices of its scan.",
                    code="E321",
                    path=path,
                )
            if 0 <= level < scan.shape[2]:
                # a contour within another one cuts a hole
                mask[:, :, level] ^= inside_polygon(voxels[:, :2], scan.shape[:2])
    return found


def inside_polygon(corners: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels ``X Y`` whose centres lie within a polygon (even-odd rule).

    Args:
        corners: ``N 2`` in pixels, pixel centres at whole numbers.
        shape: Number of pixels along X and Y.

    >>> square = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 1.5], [0.5, 1.5]])
    >>> inside_polygon(square, (4, 3)).nonzero()[0].tolist()
    [1, 2]
    """
    x, y = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    inside = np.zeros(shape, dtype=np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crossing = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
        inside ^= ((y0 > y) != (y1 > y)) & (x < crossing)
    return inside
