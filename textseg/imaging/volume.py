"""What a scan is in memory: voxels, the geometry that places them, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from textseg.imaging import affine as affines

if TYPE_CHECKING:
    from collections.abc import Mapping

Modality: TypeAlias = Literal["ct", "mr", "pet"]
FloatArray: TypeAlias = npt.NDArray[np.float64]
Points: TypeAlias = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a grid of voxels lies in the scanner: world millimetres, RAS+.

    Attributes:
        shape: Number of voxels along each array axis.
        affine: 4x4, maps voxel indices (voxel centres) to world coordinates; read-only.

    >>> geometry = Geometry((4, 5, 6), np.diag([-2.0, 3.0, 0.5, 1.0]))
    >>> geometry.spacing_mm, geometry.orientation, round(geometry.voxel_volume_ml, 9)
    ((2.0, 3.0, 0.5), 'LAS', 0.003)
    >>> geometry.to_world(np.array([[1, 1, 1]])).tolist()
    [[-2.0, 3.0, 0.5]]
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    def __post_init__(self) -> None:
        frozen = np.array(self.affine, dtype=np.float64)
        frozen.setflags(write=False)
        object.__setattr__(self, "affine", frozen)
        x, y, z = (int(size) for size in self.shape)
        object.__setattr__(self, "shape", (x, y, z))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each array axis."""
        return affines.spacing_mm(self.affine)

    @property
    def orientation(self) -> str:
        """Three letters, the world direction each array axis runs towards: ``RAS``, ``LPI``..."""
        return affines.orientation(self.affine)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres, right for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    def to_world(self, points: Points) -> FloatArray:
        """World coordinates (N 3, mm) of voxel indices (N 3)."""
        return np.asarray(points @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)

    def to_voxel(self, points: Points) -> FloatArray:
        """Continuous voxel indices (N 3) of world coordinates (N 3, mm)."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3], dtype=np.float64)

    def matches(self, other: Geometry, *, tolerance_mm: float = 1e-2) -> bool:
        """Whether both grids have the same shape and no corner further apart than the tolerance."""
        if self.shape != other.shape:
            return False
        return affines.largest_shift_mm(self.affine, other.affine, self.shape) <= tolerance_mm


@dataclass(frozen=True, eq=False)
class Source:
    """Where a volume came from, so that results can be written in the scan's own terms.

    Attributes:
        path: The file or DICOM folder; None for in-memory scans.
        format: ``nifti``, ``nrrd``, ``metaimage``, ``mgh``, ``dicom`` or ``array``.
        header: The NIfTI header as read, for writers that copy it; None for other formats.
        metadata: Facts for the manifest, such as why a modality was assumed.
        sha256: Of the file's bytes as stored; None for folders and in-memory scans.
    """

    path: Path | None
    format: str
    header: Any | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    sha256: str | None = None


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan that passed the gate.

    Attributes:
        data: float32, ``C X Y Z``, in the scan's own axis order and intensity units; all finite,
            but for a channel that a model takes and the scan lacks, which is NaN throughout.
        geometry: Placement exactly as the scan states it.
        modality: From the caller, the file, or guessed; ``source.metadata`` says which.
        source: Where it came from.
        warnings: Sentences about what was odd but accepted.
        channels: Their names, in order; none for a single one that has no name.
        sources: Where each scan that was given as a channel came from; the first is ``source``.
    """

    data: npt.NDArray[np.float32]
    geometry: Geometry
    modality: Modality | None
    source: Source
    warnings: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
