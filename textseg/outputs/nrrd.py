"""Masks as ``.nrrd`` or ``.mha`` files, written by SimpleITK, which goes by the path's suffix."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textseg.imaging.volume import Volume

__all__ = ["write"]

COMPRESSION_LEVEL = 3


def write(path: Path, mask: NDArray[np.bool_], volume: Volume, *, label: str) -> None:
    """Writes the mask compressed, with the label in its metadata where the format has room for it.

    Raises:
        OSError: SimpleITK failed, or what it wrote does not read back as the same mask.
    """
    import SimpleITK as sitk

    from textseg.imaging.itk import to_itk

    voxels = mask.view(np.uint8)
    image = to_itk(voxels, volume.geometry)
    image.SetMetaData("label", label.encode("utf-8", "replace").decode())
    try:
        sitk.WriteImage(image, str(path), True, COMPRESSION_LEVEL)
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T  # Z Y X to X Y Z
    except RuntimeError as error:
        raise _as_os_error(error, path, num_bytes=voxels.nbytes) from error
    # a write cut short at the very end is not always reported
    if not np.array_equal(written, voxels):
        raise OSError(errno.EIO, "the file does not read back as it was written")


def _as_os_error(error: RuntimeError, path: Path, *, num_bytes: int) -> OSError:
    """SimpleITK reports every failure of the disk as a RuntimeError with the cause in its text."""
    message = str(error)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
        if os.strerror(code) in message:
            return OSError(code, os.strerror(code))
    if shutil.disk_usage(path.parent).free < num_bytes:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(errno.EIO, message.strip().splitlines()[-1])
