"""Scan files in every format, written by hand so that sheared grids can be stored too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fakes import one_thread

__all__ = ["one_thread", "write_scan"]

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write_nrrd(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    lps = RAS_TO_LPS @ affine
    vectors = [f"({','.join(repr(float(v)) for v in lps[:3, axis])})" for axis in range(4)]
    header = (
        "NRRD0004\n# written by a test\ntype: short\ndimension: 3\n"
        "space: left-posterior-superior\nkinds: domain domain domain\n"
        f"sizes: {' '.join(map(str, array.shape))}\nspace directions: {' '.join(vectors[:3])}\n"
        f"endian: little\nencoding: raw\nspace origin: {vectors[3]}\n\n"
    )
    path.write_bytes(header.encode() + array.astype("<i2").tobytes("F"))


def _write_metaimage(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    rows = (lps[:3, :3] / spacing).T.ravel()

    def text(values: np.ndarray) -> str:
        return " ".join(repr(float(value)) for value in values)

    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = False\nTransformMatrix = {text(rows)}\nOffset = {text(lps[:3, 3])}\n"
        f"ElementSpacing = {text(spacing)}\nDimSize = {' '.join(map(str, array.shape))}\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + array.astype("<i2").tobytes("F"))


@pytest.fixture(scope="session")
def write_scan() -> Callable[[Path, np.ndarray, np.ndarray], Path]:
    """Write an int16 array and its RAS+ affine; the format follows the suffix."""
    writers = {".gz": _write_nifti, ".nii": _write_nifti, ".nrrd": _write_nrrd}

    def write(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
        writers.get(path.suffix, _write_metaimage)(path, array, affine)
        return path

    return write
