"""DICOM as archives hand it out: image series, and SEG or RTSTRUCT objects that refer to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from textseg.datasets.layouts.found import Found, Holds
from textseg.datasets.layouts.pattern import Pattern
from textseg.imaging.readers import dicom

_TAGS = (
    "SOPClassUID",
    "SeriesDescription",
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
)


class DicomLayout(BaseModel):
    """Folders of patients or studies; which series a mask belongs to is what the mask says.

    Labels are keyed by segment label (SEG) or ROI name (RTSTRUCT).

    Attributes:
        cases: Pattern of the folder that holds a case's series and masks at any depth.
        series: Text that the description of the mask's own series must contain, for archives with
            several masks per scan; any if empty.

    Source: DICOM PS3.3, A.51 and A.19.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["dicom"]
    cases: str = "{case}"
    series: str = ""

    @property
    def holds(self) -> Holds:
        """What the masks hold."""
        return "segments"

    def find(self, root: Path, structures: Sequence[str]) -> list[Found]:
        """Series with their masks, in the order of the cases' names.

        Args:
            root: Folder of the data set.
            structures: Not needed; masks hold every structure.
        """
        return [
            found
            for folder, fields in Pattern(self.cases).find(root)
            if folder.is_dir()
            for found in self._in_case(folder, "_".join(fields.values()))
        ]

    def _in_case(self, folder: Path, name: str) -> Iterator[Found]:
        masks = [mask for mask in _masks(folder) if self.series in mask[2]]
        for number, (path, series, _) in enumerate(masks, start=1):
            case = name if len(masks) == 1 else f"{name}_{number}"
            yield Found(case, "", folder, {"": path}, series=series)


def _masks(folder: Path) -> list[tuple[Path, str, str]]:
    """Every mask object below a folder, the series it refers to, and its description."""
    return [
        (path, _referenced(header), str(header.get("SeriesDescription", "")))
        for path, header in dicom.read_headers(folder, _TAGS)
        if header.get("SOPClassUID") in (dicom.SEGMENTATION, dicom.STRUCTURE_SET)
    ]


def _referenced(header: Any) -> str:
    """Series a mask refers to; "" if it does not say."""
    for series in header.get("ReferencedSeriesSequence", ()):
        return str(series.get("SeriesInstanceUID", ""))
    for frame in header.get("ReferencedFrameOfReferenceSequence", ()):
        for study in frame.get("RTReferencedStudySequence", ()):
            for series in study.get("RTReferencedSeriesSequence", ()):
                return str(series.get("SeriesInstanceUID", ""))
    return ""
