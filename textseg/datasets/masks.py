"""Reads mask files of data sets: label maps in scan formats, PNG slices, MATLAB arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.io import loadmat

from textseg.datasets.store import SUFFIX, StoredArray
from textseg.errors import InputError
from textseg.imaging.itk import to_itk
from textseg.imaging.labels import Labels, as_labels, read_labels
from textseg.imaging.volume import Geometry


def needs_scan(path: Path) -> bool:
    """Whether a mask does not say where it lies, so that its scan must."""
    return path.suffix == ".mat" or path.is_dir()


def read_mask(path: Path, scan: Geometry | None = None, *, head_first: bool = False) -> Labels:
    """Labels of a mask file or of a folder of PNG slices.

    Args:
        path: A file in a scan format, a prepared one, a folder of PNG slices or a MATLAB file.
        scan: Placement of the scan, for the last two.
        head_first: Whether the first PNG slice is the highest in the body, not the lowest.

    Raises:
        InputError: The mask is damaged, holds no labels, or has not the size of the scan.
    """
    if path.suffix == SUFFIX:
        stored = StoredArray(path)
        return Labels(path, stored[:, :, :].astype(np.int32), stored.geometry)
    if not needs_scan(path):
        return read_labels(path)
    assert scan is not None
    values = _read_slices(path) if path.is_dir() else _read_matlab(path)
    if path.is_dir() and head_first == (scan.affine[2, 2] > 0):
        values = values[:, :, ::-1]
    if values.shape != scan.shape:
        raise InputError(
            f"has {_sizes(values.shape)} voxels, its scan {_sizes(scan.shape)}.",
            code="E321",
            path=path,
        )
    return Labels(path, values, scan)


def read_mask_volumes(path: Path) -> tuple[list[NDArray[np.int32]], Geometry]:
    """Labels ``X Y Z`` of each volume of a 4-D NIfTI file, and where they lie.

    Raises:
        InputError: The file is no 4-D NIfTI, or its values are no labels.
    """
    first = read_labels(path, volume_index=0)
    # the gate has passed the file; its volumes are read at once, not one by one
    image: Any = nibabel.load(path)
    values = np.asarray(image.dataobj)
    if values.ndim != 4:
        raise InputError(f"has {values.ndim} dimensions; a mask of channels has 4.", path=path)
    return [as_labels(volume, path) for volume in np.moveaxis(values, -1, 0)], first.geometry


def on_grid(labels: Labels, grid: Geometry) -> Labels:
    """Labels on another grid, each voxel taking the nearest one's; 0 where there is none."""
    moved = sitk.Resample(
        to_itk(labels.values, labels.geometry),
        referenceImage=to_itk(np.zeros(grid.shape, dtype=np.uint8), grid),
        interpolator=sitk.sitkNearestNeighbor,
    )
    return Labels(labels.path, sitk.GetArrayFromImage(moved).T, grid)


def _read_slices(folder: Path) -> NDArray[np.int32]:
    """Labels of PNG slices in the order of their names; a picture's rows run along Y."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise InputError("is a folder without PNG slices.", code="E302", path=folder)
    try:
        values = sitk.GetArrayFromImage(sitk.ReadImage([str(file) for file in files]))
    except RuntimeError as error:
        raise InputError("holds PNG slices that do not fit together.", path=folder) from error
    if values.ndim != 3:
        raise InputError("holds PNG slices in colour.", code="E310", path=folder)
    return as_labels(values.T, folder)  # Z Y X to X Y Z


def _read_matlab(path: Path) -> NDArray[np.int32]:
    """The only 3-D array of a MATLAB file; its rows run along Y."""
    try:
        content = loadmat(path)
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"is no MATLAB file that can be read ({error}).", path=path) from error
    arrays = [a for a in content.values() if isinstance(a, np.ndarray) and a.ndim == 3]
    if len(arrays) != 1:
        raise InputError(f"holds {len(arrays)} 3-D arrays, not one.", path=path)
    return as_labels(arrays[0].swapaxes(0, 1), path)  # Y X Z to X Y Z


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
