"""What a layout finds on disk: scans and their masks, before labels get a meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Holds = Literal["values", "channels", "structures", "segments"]
"""How masks tell structures apart: by values of one map, as volumes of a 4-D file, as one file for
each, or as named segments (SEG) or contours (RTSTRUCT)."""


@dataclass(frozen=True, slots=True)
class Found:
    """One scan and its masks.

    Attributes:
        id: Name of the case, the same for all sequences of an examination.
        sequence: Sequence of the scan as the registry names it, "" if there is only one.
        image: The scan: a file or a folder of slices.
        masks: Files of the mask. The key is the structure a file shows, or "" for a file that
            holds several.
        volume_index: Which volume of a file that holds several.
        series: Which DICOM series of a folder that holds several.
    """

    id: str
    sequence: str
    image: Path
    masks: Mapping[str, Path]
    volume_index: int | None = None
    series: str | None = None
