"""Scans that are already in memory: nibabel images, SimpleITK images, arrays with an affine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from textseg.errors import InputError
from textseg.imaging import affine as affines
from textseg.imaging import gate
from textseg.imaging.readers import nifti
from textseg.imaging.readers.decoded import Decoded, choose_volume
from textseg.imaging.volume import Source


def decode(scan: Any, request: gate.Request) -> Decoded:
    """The scan behind any supported object."""
    if hasattr(scan, "dataobj") and hasattr(scan, "affine"):
        return nifti.from_image(scan, request)
    if hasattr(scan, "GetDirection") and hasattr(scan, "GetOrigin"):
        return from_sitk(scan, request)
    if isinstance(scan, tuple | list) and len(scan) == 2:
        array, affine = scan
        return from_array(array, affine, request)
    raise InputError(
        f"{type(scan).__name__} is not a scan;",
        code="E305",
        remedy="give a path, a nibabel or SimpleITK image, or (array, affine).",
    )


def from_array(array: Any, affine: Any, request: gate.Request) -> Decoded:
    """An ``X Y Z`` array and its 4x4 affine (RAS+, mm)."""
    voxels: npt.NDArray[Any] = np.asarray(array)
    try:
        matrix = np.array(affine, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.full((4, 4), np.nan)
    gate.check_sizes(voxels.shape, request, path=None)
    warnings = gate.check_affine(matrix, path=None)
    data = choose_volume(voxels, request, path=None)
    return Decoded(data, matrix, Source(None, "array"), warnings=warnings)


def from_sitk(image: Any, request: gate.Request) -> Decoded:
    """A SimpleITK image; its LPS+ world becomes RAS+ here."""
    import SimpleITK as sitk

    components = image.GetNumberOfComponentsPerPixel()
    if components in (3, 4) and image.GetPixelID() == sitk.sitkVectorUInt8:
        raise gate.colour(None)
    sizes = [*image.GetSize(), components] if components > 1 else [*image.GetSize()]
    shape, _, index = gate.check_sizes(sizes, request, path=None)
    affine = sitk_affine(image)
    warnings = gate.check_affine(affine, path=None)
    stored = sitk.GetArrayViewFromImage(image)
    if components > 1:
        stored = np.moveaxis(stored, -1, 0)  # C Z Y X
    volumes = stored.reshape(-1, *shape[::-1])
    gate.check_dtype(volumes.dtype, path=None)
    data = np.array(volumes[index].T, dtype=np.float32, order="K")  # X Y Z
    return Decoded(data, affine, Source(None, "array"), warnings=warnings)


def sitk_affine(image: Any) -> npt.NDArray[np.float64]:
    """RAS+ affine of the first three axes of a SimpleITK image or image reader."""
    rank = len(image.GetSize())
    direction = np.array(image.GetDirection()).reshape(rank, rank)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    lps_to_ras: npt.NDArray[np.float64] = np.diag(affines.LPS_TO_RAS)
    return lps_to_ras @ affine
