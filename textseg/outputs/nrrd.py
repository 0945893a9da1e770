"""Masks as ``.nrrd`` or ``.mha`` files, written by SimpleITK, which goes by the path's suffix."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textseg.imaging import affine as affines
from textseg.imaging.volume import Geometry, Volume

__all__ = ["write"]

COMPRESSION_LEVEL = 3


def write(path: Path, mask: NDArray[np.bool_], volume: Volume, *, label: str) -> None:
    """Writes the mask compressed, with the label in its metadata where the format has room for it.

    Raises:
        OSError: SimpleITK failed, or what it wrote does not read back as the same mask.
    """
    import SimpleITK as sitk

    voxels = np.ascontiguousarray(mask.T).view(np.uint8)  # Z Y X, as SimpleITK counts
    image = _placed(sitk.GetImageFromArray(voxels), volume.geometry)
    image.SetMetaData("label", label.encode("utf-8", "replace").decode())
    try:
        sitk.WriteImage(image, str(path), True, COMPRESSION_LEVEL)
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise _as_os_error(error, path, num_bytes=voxels.nbytes) from error
    # a write cut short at the very end is not always reported
    if not np.array_equal(written, voxels):
        raise OSError(errno.EIO, "the file does not read back as it was written")


def _placed(image: Any, geometry: Geometry) -> Any:
    """The image with the geometry's origin, spacing and directions in ITK's LPS+ world."""
    to_lps = np.array(affines.LPS_TO_RAS)[:3, None]
    spacing = np.array(geometry.spacing_mm)
    image.SetSpacing([float(step) for step in spacing])
    image.SetOrigin((to_lps[:, 0] * geometry.affine[:3, 3]).tolist())
    image.SetDirection((to_lps * geometry.affine[:3, :3] / spacing).ravel().tolist())
    return image


def _as_os_error(error: RuntimeError, path: Path, *, num_bytes: int) -> OSError:
    """SimpleITK reports every failure of the disk as a RuntimeError with the cause in its text."""
    message = str(error)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
        if os.strerror(code) in message:
            return OSError(code, os.strerror(code))
    if shutil.disk_usage(path.parent).free < num_bytes:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(errno.EIO, message.strip().splitlines()[-1])
