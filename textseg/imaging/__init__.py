"""Scans in and masks back: files, geometry, intensities, and the gate that refuses damage.

Names load on first use, so that code which needs only ``Modality`` or ``Geometry`` does not import
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textseg.imaging.channels import arranged, channel_name, read_channels
    from textseg.imaging.grid import Grid, GridTransform, plan_grid, ras_spacing_mm, to_grid
    from textseg.imaging.intensity import (
        IntensityScale,
        body_mask,
        guess_modality,
        intensity_scale,
        normalise_intensity,
    )
    from textseg.imaging.readers import as_volume, read_volume
    from textseg.imaging.volume import Geometry, Modality, Source, Volume

__all__ = [
    "Geometry",
    "Grid",
    "GridTransform",
    "IntensityScale",
    "Modality",
    "Source",
    "Volume",
    "arranged",
    "as_volume",
    "body_mask",
    "channel_name",
    "guess_modality",
    "intensity_scale",
    "normalise_intensity",
    "plan_grid",
    "ras_spacing_mm",
    "read_channels",
    "read_volume",
    "to_grid",
]


def __getattr__(name: str) -> Any:
    homes = {
        "channels": ("arranged", "channel_name", "read_channels"),
        "volume": ("Geometry", "Modality", "Source", "Volume"),
        "grid": ("Grid", "GridTransform", "plan_grid", "ras_spacing_mm", "to_grid"),
        "intensity": (
            "IntensityScale",
            "body_mask",
            "guess_modality",
            "intensity_scale",
            "normalise_intensity",
        ),
        "readers": ("as_volume", "read_volume"),
    }
    for module, names in homes.items():
        if name in names:
            return getattr(import_module(f"textseg.imaging.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
