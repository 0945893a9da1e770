"""Masks and label maps in files: whole numbers on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textseg.errors import InputError
from textseg.imaging import gate
from textseg.imaging.readers import READERS
from textseg.imaging.stream import ByteStream
from textseg.imaging.volume import Geometry

# a float32 reader keeps whole numbers apart up to here
_LARGEST_LABEL = 2**24


@dataclass(frozen=True, eq=False)
class Labels:
    """Whole-number voxels on a grid.

    Attributes:
        path: Where they come from.
        values: int32 ``X Y Z``.
        geometry: Placement of the voxels.
    """

    path: Path
    values: NDArray[np.int32]
    geometry: Geometry

    def present(self) -> tuple[int, ...]:
        """The values above zero that occur."""
        return tuple(int(value) for value in np.unique(self.values) if value > 0)


def read_labels(path: Path, *, volume_index: int | None = None) -> Labels:
    """A file of whole numbers; unlike a scan it may be constant (an empty mask).

    Args:
        path: A file in a format that scans have.
        volume_index: Which volume of a file that holds several.

    Raises:
        InputError: It cannot be read as an image (E305), or holds other numbers (E322).
    """
    gate.check_path(path)
    if path.is_dir():
        raise InputError("A mask file was expected.", code="E302", path=path)
    with ByteStream(path) as stream:
        head = stream.peek(1024)
    reader = next((entry for entry in READERS if entry.recognises(head)), None)
    if reader is None:
        raise InputError("is not a mask in a format textseg reads.", code="E305", path=path)
    decoded = reader.read(path, gate.Request(volume_index=volume_index))
    values = as_labels(decoded.data, path)
    x, y, z = values.shape
    return Labels(path, values, Geometry((x, y, z), decoded.affine))


def as_labels(values: NDArray[Any], path: Path) -> NDArray[np.int32]:
    """Values as whole numbers.

    Raises:
        InputError: E322, they are not whole, or too large.
    """
    # NaN is no label either: half a label makes it fail the test for whole numbers
    values = np.nan_to_num(values, nan=0.5)
    if not np.array_equal(values, np.floor(values)) or np.abs(values).max() >= _LARGEST_LABEL:
        raise InputError(
            "holds numbers that are no labels (not whole, or beyond 16 million).",
            code="E322",
            path=path,
            remedy="Give a mask or a label map; was it resampled with interpolation?",
        )
    return values.astype(np.int32)
