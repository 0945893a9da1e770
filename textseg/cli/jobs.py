"""What is asked of which scan, where the answer goes, and which share of the scans is ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Modality = Literal["ct", "mr", "pet"]
AnyModality = Literal["auto", "ct", "mr", "pet"]


@dataclass(frozen=True)
class Question:
    """What is asked of a scan.

    Attributes:
        prompts: Distinct, in order.
        modality: As told, or ``auto``.
        threshold: None for the model's own.
        keep_islands: Keep small pieces of masks.
        volume_index: Which volume of a 4-D file.
        series: Which series of a DICOM folder.
        roi: ``auto`` to segment only where the prompts are likely.
        strict: Refuse prompts that name nothing, instead of warning.
    """

    prompts: tuple[str, ...]
    modality: AnyModality = "auto"
    threshold: float | None = None
    keep_islands: bool = False
    volume_index: int | None = None
    series: str | None = None
    roi: Literal["off", "auto"] = "off"
    strict: bool = False

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """What besides prompts, scan and model decides the answer; kept in the manifest."""
        return {
            "modality": self.modality,
            "threshold": self.threshold,
            "keep_islands": self.keep_islands,
            "volume": self.volume_index,
            "series": self.series,
            "roi": self.roi,
        }


@dataclass(frozen=True)
class Job:
    """One scan to segment.

    Attributes:
        scan: A file, or the folder of a DICOM series.
        name: What to call it in messages.
        out: The folder of its results, or the file of a single mask.
        question: What is asked of it.
    """

    scan: Path
    name: str
    out: Path
    question: Question


@dataclass(frozen=True)
class Jobs:
    """What an input asks for; ``is_batch`` if it was a folder or a list, even of a single scan."""

    jobs: tuple[Job, ...]
    is_batch: bool


def share_of(jobs: Sequence[Job], *, num_parts: int, part_id: int) -> tuple[Job, ...]:
    """Every ``num_parts``-th job from ``part_id`` on, in the order of where the results go.

    The parts share no job and leave none out, however the jobs were listed.
    """
    if num_parts == 1:
        return tuple(jobs)
    return tuple(sorted(jobs, key=lambda job: job.out.parts)[part_id::num_parts])


def distinct(prompts: Sequence[str]) -> tuple[str, ...]:
    """The prompts in order, each once."""
    return tuple(dict.fromkeys(prompts))
