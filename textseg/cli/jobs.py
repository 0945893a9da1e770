"""What is asked of which scan, where the answer goes, and which share of the scans is ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from textseg.outputs.settings import Setting, Settings
from textseg.reports.given import FEATURES_SUFFIX

Modality = Literal["ct", "mr", "pet"]
AnyModality = Literal["auto", "ct", "mr", "pet"]
_SETTINGS_ADDED = MappingProxyType({"mirror": False, "least_instance_ml": None, "findings": False})


@dataclass(frozen=True)
class Question:
    """What is asked of a scan.

    Attributes:
        prompts: Distinct, in order; none asks for the findings of the report.
        modality: As told, or ``auto``.
        threshold: None for the model's own.
        keep_islands: Keep small pieces of masks.
        volume_index: Which volume of a 4-D file.
        series: Which series of a DICOM folder.
        roi: ``auto`` to segment only where the prompts are likely.
        strict: Refuse prompts that name nothing, instead of warning.
        report: Of the scan: its text, or the path of a file; see ``GivenReport``.
        mirror: Look a second time, in a mirror.
        instances: Number the connected pieces of masks.
        least_instance_ml: Smaller pieces are none.
    """

    prompts: tuple[str, ...]
    modality: AnyModality = "auto"
    threshold: float | None = None
    keep_islands: bool = False
    volume_index: int | None = None
    series: str | None = None
    roi: Literal["off", "auto"] = "off"
    strict: bool = False
    report: str | None = field(default=None, repr=False)
    mirror: bool = False
    instances: bool = False
    least_instance_ml: float = 0.0

    @property
    def fault(self) -> str | None:
        """Why nothing is asked, or None if something is."""
        if self.prompts:
            return None
        if self.report is None:
            return "there is no report whose findings could be asked for"
        if self.report.lower().endswith(FEATURES_SUFFIX):
            return "the features of a report do not tell its findings"
        return None

    def settings(self) -> dict[str, Setting]:
        """What besides prompts, scan, report and model decides the answer, for the manifest."""
        return Settings(
            *(self.modality, self.threshold, self.keep_islands, self.volume_index, self.series),
            roi=self.roi,
            mirror=self.mirror,
            findings=not self.prompts,
            least_instance_ml=self.least_instance_ml if self.instances else None,
        ).record()

    def is_that_of(self, settings: Mapping[str, Setting]) -> bool:
        """Whether an answer with such settings would be the same one."""
        # older versions could not be asked otherwise
        return self.settings() == {**_SETTINGS_ADDED, **settings}


@dataclass(frozen=True)
class Job:
    """One scan to segment.

    Attributes:
        scan: A file, or the folder of a DICOM series; of several channels, that of the first.
        name: What to call it in messages.
        out: The folder of its results, or the file of a single mask.
        question: What is asked of it.
        channels: Their names and absolute paths, if the scan is given by channels.
    """

    scan: Path
    name: str
    out: Path
    question: Question
    channels: tuple[tuple[str, Path], ...] = ()

    @property
    def source(self) -> Path | dict[str, Path]:
        """The scan as a segmenter takes it."""
        return dict(self.channels) or self.scan


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
