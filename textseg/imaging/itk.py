"""Arrays on a grid as SimpleITK images."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from textseg.imaging import affine as affines
from textseg.imaging.volume import Geometry


def to_itk(values: NDArray[Any], geometry: Geometry) -> Any:
    """Voxels ``X Y Z`` as an image with the geometry's origin, spacing and directions in LPS+."""
    image: Any = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    to_lps = np.array(affines.LPS_TO_RAS)[:3, None]
    spacing = np.array(geometry.spacing_mm)
    image.SetSpacing([float(step) for step in spacing])
    image.SetOrigin((to_lps[:, 0] * geometry.affine[:3, 3]).tolist())
    image.SetDirection((to_lps * geometry.affine[:3, :3] / spacing).ravel().tolist())
    return image
