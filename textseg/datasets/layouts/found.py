"""What a layout finds on disk: scans and their masks, before labels get a meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Holds = Literal["values", "channels", "structures", "segments"]
"""How masks tell structures apart: by values of one map, as volumes of a 4-D file, as one file for
each, or as named segments (SEG) or contours (RTSTRUCT)."""


Split = Literal["train", "val", "test", "demo"]
"""What a case is for: to learn from, to be scored on during or after training, to look at."""


@dataclass(frozen=True, slots=True)
class Found:
    """One scan and its masks.

    Attributes:
        id: Name of the case, the same for all sequences of an examination.
        sequence: Sequence of the scan as the registry names it, "" if there is only one.
        image: The scan: a file or a folder of slices; of several channels, the first.
        masks: Files of the mask. The key is the structure a file shows, or "" for a file that
            holds several.
        volume_index: Which volume of a file that holds several.
        series: Which DICOM series of a folder that holds several.
        channels: Files of a scan of several channels, by their names.
        report: What was reported of the scan: a text, or a file of it or of its features.
        swapped_report: What could have been reported of it and was not.
        group: Cases that are looked at together, "" where nothing is said.
        split: What the data set says the case is for.
    """

    id: str
    sequence: str
    image: Path
    masks: Mapping[str, Path]
    volume_index: int | None = None
    series: str | None = None
    channels: Mapping[str, Path] = field(default_factory=dict)
    report: str | Path | None = None
    swapped_report: str | Path | None = None
    group: str = ""
    split: Split = "train"
