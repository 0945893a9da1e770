"""Refuses what must not be segmented: each check raises one coded ``InputError``, or returns.

Readers call these on the header before they touch voxel data, and on the voxels before anyone
else sees them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil

from textseg import files
from textseg.errors import InputError, ResourceError
from textseg.imaging import affine as affines

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_NON_FINITE_SHARE = 0.10
_PLAUSIBLE_SPACING_MM = (0.01, 200.0)
_LARGEST_EXTENT_MM = 5000.0
_SILENT_ANGLE_DEGREES = 0.1
_SILENT_SHIFT_MM = 0.1
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Request:
    """What a caller wants from a scan, and the most it may cost.

    Attributes:
        volume_index: Which volume of a file that holds several.
        series: Which DICOM series (UID, or an unambiguous beginning or end of one).
        max_voxels: Larger volumes are refused before any data are read.
    """

    volume_index: int | None = None
    series: str | None = None
    max_voxels: int = 1_500_000_000


def check_path(path: Path) -> None:
    """Refuse paths that lead to no readable, non-empty file (folders pass)."""
    status = files.check_path(path, what="scan")
    if status.st_size == 0 and not path.is_dir():
        raise empty(path)


def empty(path: Path) -> InputError:
    """E304: the file, or the stream inside it, has no bytes."""
    return InputError("is empty (0 bytes);", code="E304", path=path, remedy="copy it again.")


def check_sizes(
    sizes: Sequence[int], request: Request, *, path: Path | None
) -> tuple[tuple[int, int, int], int, int]:
    """The 3D shape, how many volumes there are, and the one asked for.

    Args:
        sizes: All dimensions; everything after the third counts volumes.
        request: Which volume is wanted and the voxel limit.
        path: For the message.

    >>> check_sizes([5, 7, 3, 1], Request(), path=None)
    ((5, 7, 3), 1, 0)
    >>> check_sizes([5, 7, 3, 4], Request(volume_index=2), path=None)
    ((5, 7, 3), 4, 2)
    """
    shown = " x ".join(str(size) for size in sizes)
    if not sizes or any(size < 1 for size in sizes):
        raise InputError(
            f"has impossible dimensions ({shown});",
            code="E311",
            path=path,
            remedy="its header is damaged, export the scan again.",
        )
    spatial = [*sizes[:3]]
    if len(spatial) < 3 or min(spatial) == 1:
        raise InputError(
            f"is not a 3D volume ({shown} voxels);",
            code="E308",
            path=path,
            remedy="give a volume of at least two slices.",
        )
    num_volumes = math.prod(sizes[3:])
    index = _chosen_volume(num_volumes, request.volume_index, path=path)
    if math.prod(spatial) > request.max_voxels:
        raise InputError(
            f"claims {shown} voxels, more than the limit of {request.max_voxels:,};",
            code="E312",
            path=path,
            remedy="raise --max-voxels if the size is real, or resample the scan.",
        )
    x, y, z = spatial
    return (x, y, z), num_volumes, index


def _chosen_volume(num_volumes: int, wanted: int | None, *, path: Path | None) -> int:
    """The index asked for, or 0 where there is only one."""
    if wanted is None and num_volumes == 1:
        return 0
    if wanted is None:
        raise InputError(
            f"holds {num_volumes} volumes;",
            code="E309",
            path=path,
            remedy=f"choose one with --volume 0 to --volume {num_volumes - 1}.",
        )
    if not 0 <= wanted < num_volumes:
        raise InputError(
            f"has no volume {wanted}, it holds {num_volumes};",
            code="E309",
            path=path,
            remedy=f"the first is --volume 0, the last --volume {num_volumes - 1}.",
        )
    return wanted


def check_memory(shape: Sequence[int], *, path: Path | None) -> None:
    """Refuse a volume whose float32 voxels do not fit in the memory that is free now."""
    needed = 4 * math.prod(shape)
    free = psutil.virtual_memory().available
    if needed > free:
        raise ResourceError(
            f"needs {needed / 1e9:.1f} GB for its voxels, but {free / 1e9:.1f} GB are free;",
            code="E501",
            path=path,
            remedy="close other programs or use a machine with more memory.",
        )


def check_dtype(dtype: np.dtype[Any], *, path: Path | None) -> None:
    """Refuse voxel types that are not one real number."""
    names = {str(name).lower() for name in dtype.names or ()}
    if {"r", "g", "b"} <= names:
        raise colour(path)
    if dtype.kind not in "iufb":
        raise InputError(
            f"has voxels of type {dtype}, not real numbers;",
            code="E320",
            path=path,
            remedy="convert it first, for example to its magnitude.",
        )


def colour(path: Path | None) -> InputError:
    """E310: colour pictures carry no intensities a model was trained on."""
    return InputError(
        "is a colour image (RGB), not a scan;",
        code="E310",
        path=path,
        remedy="give the original grey-value scan.",
    )


def check_spacing(spacing_mm: Sequence[float], *, path: Path | None) -> None:
    """Refuse voxel sizes that are zero, negative, not finite or far from any scanner's."""
    low, high = _PLAUSIBLE_SPACING_MM
    if not all(math.isfinite(step) and low <= step <= high for step in spacing_mm):
        shown = " x ".join(f"{step:g}" for step in spacing_mm)
        raise InputError(
            f"has an impossible voxel size ({shown} mm);",
            code="E313",
            path=path,
            remedy="correct the spacing in its header (millimetres), or export it again.",
        )


def check_extent(affine: affines.Affine, shape: Sequence[int], *, path: Path | None) -> None:
    """Refuse fields of view that no scanner has; their working grid would not fit in memory."""
    extent = max(step * size for step, size in zip(affines.spacing_mm(affine), shape, strict=True))
    if extent > _LARGEST_EXTENT_MM:
        raise InputError(
            f"would be {extent / 1000:.3g} m long;",
            code="E313",
            path=path,
            remedy="correct the spacing in its header (millimetres), or export it again.",
        )


def check_affine(affine: affines.Affine, *, path: Path | None) -> tuple[str, ...]:
    """Refuse matrices that place no volume; warn about axes that are not at right angles."""
    usable = affine.shape == (4, 4) and bool(np.all(np.isfinite(affine)))
    if not usable or affines.is_singular(affine):
        raise InputError(
            "has an orientation matrix that is not finite or has no volume;",
            code="E314",
            path=path,
            remedy="correct its affine, or export the scan again.",
        )
    check_spacing(affines.spacing_mm(affine), path=path)
    shear = affines.shear_rad(affine)
    if shear > affines.MAX_SNAPPED_SHEAR_RAD:
        return (
            f"the axes are sheared by {shear:.3g} rad; the scan was resampled to right angles for "
            "the model, masks are on the scan's own voxels",
        )
    if shear > 1e-5:
        return (f"the axes are sheared by {shear:.1g} rad, which was treated as rounding",)
    return ()


def compare_orientations(
    used: affines.Affine, other: affines.Affine, shape: Sequence[int]
) -> tuple[str, ...]:
    """A warning if a file's two orientations (NIfTI sform and qform) do not agree."""
    if not np.all(np.isfinite(other)) or affines.is_singular(other):
        return ("the qform is unusable; the sform was used",)
    angle = affines.angle_degrees(used, other)
    shift = affines.largest_shift_mm(used, other, shape)
    mirrored = np.linalg.det(used[:3, :3]) * np.linalg.det(other[:3, :3]) < 0
    if angle <= _SILENT_ANGLE_DEGREES and shift <= _SILENT_SHIFT_MM and not mirrored:
        return ()
    side = ", and one is the mirror image of the other (left and right differ)" if mirrored else ""
    return (
        f"sform and qform disagree by {angle:.2f} degrees and up to {shift:.2f} mm{side}; "
        "the sform was used",
    )


def check_voxels(
    data: npt.NDArray[np.float32], *, path: Path | None
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Finite, varying data, and warnings about what had to be replaced (in place).

    NaN and infinity become the smallest finite value if they are at most a tenth of the voxels.
    """
    low, high = float(data.min()), float(data.max())
    warnings: tuple[str, ...] = ()
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high, bad = _replace_non_finite(data, path=path)
        warnings = (f"{bad} voxels were NaN or infinite and were set to {low:g}",)
    if low == high:
        raise InputError(
            f"is constant: every voxel is {low:g};",
            code="E316",
            path=path,
            remedy="check that this is the scan and not an empty export.",
        )
    return data, warnings


def _replace_non_finite(
    data: npt.NDArray[np.float32], *, path: Path | None
) -> tuple[float, float, int]:
    """Overwrite NaN and infinity; return the finite range and how many there were."""
    finite = np.isfinite(data)
    bad = data.size - int(np.count_nonzero(finite))
    share = bad / data.size
    if share > _MAX_NON_FINITE_SHARE:
        raise InputError(
            f"{share:.0%} of its voxels are NaN or infinite;",
            code="E315",
            path=path,
            remedy="up to 10% would be replaced, beyond that export the scan again.",
        )
    low = float(data.min(where=finite, initial=np.inf))
    high = float(data.max(where=finite, initial=-np.inf))
    data[~finite] = low
    return low, high, bad
