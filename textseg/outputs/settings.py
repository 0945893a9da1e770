"""What decides an answer besides scan, prompts, report and model, as manifests record it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Setting: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Settings:
    """How an answer was asked for.

    Attributes:
        modality: As told, or ``auto``.
        threshold: None for the model's own.
        keep_islands: Small pieces of masks stay.
        volume_index: Which volume of a 4-D file.
        series: Which series of a DICOM folder.
        roi: ``auto`` where a region was asked for.
        mirror: There was a second look, in a mirror.
        findings: Those of the report were the prompts.
        least_instance_ml: Smaller pieces are no instances; None where none are numbered.
    """

    modality: str = "auto"
    threshold: float | None = None
    keep_islands: bool = False
    volume_index: int | None = None
    series: str | None = None
    roi: str = "off"
    mirror: bool = False
    findings: bool = False
    least_instance_ml: float | None = None

    def record(self) -> dict[str, Setting]:
        """The settings as a manifest has them, with plain numbers in place of NumPy's."""
        index, threshold = self.volume_index, self.threshold
        return {
            "modality": self.modality,
            "threshold": None if threshold is None else float(threshold),
            "keep_islands": bool(self.keep_islands),
            "volume": None if index is None else int(index),
            "series": self.series,
            "roi": self.roi,
            "mirror": bool(self.mirror),
            "least_instance_ml": self.least_instance_ml,
            "findings": self.findings,
        }
