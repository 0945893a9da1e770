"""``--jobs``: a file with one scan to segment per line, each line a JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from textseg.cli.jobs import AnyModality, Job, Jobs, Question, distinct
from textseg.cli.resolve import read_lines
from textseg.cli.scans import channel_job, default_place, stem
from textseg.errors import InputError
from textseg.imaging.channels import by_channel
from textseg.outputs.formats import format_of
from textseg.reports.given import placed_report


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text.strip()


def _inner(name: str) -> str:
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ValueError("would lead out of the result folder")
    return name


def _distinct(channels: dict[str, str]) -> dict[str, str]:
    try:
        return by_channel(channels.items())
    except InputError as error:
        raise ValueError(error.cause) from error


_OWN = (
    "modality",
    "threshold",
    "keep_islands",
    "volume_index",
    "series",
    "roi",
    "mirror",
    "instances",
    "least_instance_ml",
)
_Said = Annotated[str, AfterValidator(_said)]


class _Line(BaseModel):
    """A line of the file; what it leaves out is taken from the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    scan: _Said | None = None
    channels: Annotated[dict[_Said, _Said], AfterValidator(_distinct)] | None = None
    report: _Said | None = None
    prompts: _Said | list[_Said] | None = None
    out: _Said | None = None
    name: Annotated[_Said, AfterValidator(_inner)] | None = None
    modality: AnyModality | None = None
    threshold: float | None = Field(default=None, ge=0, le=1)
    keep_islands: bool | None = None
    volume_index: int | None = Field(default=None, ge=0)
    series: _Said | None = None
    roi: Literal["off", "auto"] | None = None
    mirror: bool | None = None
    instances: bool | None = None
    least_instance_ml: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _says_which_scan(self) -> _Line:
        if self.scan is None and self.channels is None:
            raise ValueError("'scan' is missing, and so is 'channels'")
        if self.scan is not None and self.channels is not None:
            raise ValueError("'scan' and 'channels' are both given")
        return self

    def job(self, root: Path, out: Path | None, default: Question) -> Job:
        """The job that the line stands for; its relative paths start at ``root``."""
        channels = {name: root / file for name, file in (self.channels or {}).items()}
        scan = next(iter(channels.values())) if self.scan is None else root / self.scan
        name = self.name or stem(scan)
        below = out / name if out is not None else default_place(scan)
        place = root / self.out if self.out else below
        question = self._question(root, default)
        if channels:
            return replace(channel_job(channels, place, question), name=name)
        return Job(scan=scan, name=name, out=place, question=question)

    def _question(self, root: Path, default: Question) -> Question:
        given: dict[str, Any] = {k: getattr(self, k) for k in _OWN if getattr(self, k) is not None}
        if self.prompts:
            listed = [self.prompts] if isinstance(self.prompts, str) else self.prompts
            given["prompts"] = distinct(listed)
        if self.report:
            # on a cluster the worker is in another folder
            given["report"] = placed_report(self.report, root.absolute())
        return replace(default, **given)


def read_jobs(path: Path, out: Path | None, default: Question) -> Jobs:
    """The jobs of a file, in its order; blank lines are passed over.

    Args:
        path: One JSON object per line with ``scan``, or with ``channels`` and their files, and, as
            far as they differ from the command line, ``prompts``, ``report``, ``out``, ``name``,
            ``modality``, ``threshold``, ``keep_islands``, ``volume_index``, ``series``, ``roi``,
            ``mirror``, ``instances`` and ``least_instance_ml``. A line with a report and no prompts
            asks for what the report states. Relative paths start at the file's own folder.
        out: Folder below which a job without ``out`` gets one of its name.
        default: What is asked where the line says nothing else.

    Raises:
        InputError: The file is missing or unreadable, holds no job, or some of its lines are wrong
            or share a place for their results; the message tells all of them.
    """
    jobs: dict[int, Job] = {}
    faults: list[str] = []
    for number, line in read_lines(path):
        try:
            said = _Line.model_validate_json(line)
            job = said.job(path.parent, out, default)
        except ValidationError as error:
            faults.append(f"Line {number}: {_told(error)}.")
            continue
        jobs[number] = job
        faults += [f"Line {number}: {fault}." for fault in _faults(said, job)]
    faults += _shared_places(jobs)
    if faults:
        remedy = f"Nothing was segmented; {len(faults)} to mend."
        raise InputError(" ".join(faults), path=path, remedy=remedy)
    if not jobs:
        remedy = 'Write lines such as {"scan": "a.nii.gz", "prompts": ["liver"]}.'
        raise InputError("holds no job.", code="E304", path=path, remedy=remedy)
    return Jobs(tuple(jobs.values()), is_batch=True)


def _told(error: ValidationError) -> str:
    """What is wrong with a line, all of it."""
    found = error.errors(include_url=False)
    return "; ".join(dict.fromkeys(f"{_where(fault)}{fault['msg']}" for fault in found))


def _where(fault: Mapping[str, Any]) -> str:
    # the branches of a union follow the field's name and say nothing to a user
    return f"'{fault['loc'][0]}': " if fault["loc"] else ""


def _faults(line: _Line, job: Job) -> list[str]:
    prompts = job.question.prompts
    faults = []
    if line.least_instance_ml and not job.question.instances:
        faults.append("'least_instance_ml' needs 'instances', here or on the command line")
    if job.question.fault is not None:
        faults.append(f"no 'prompts', and none on the command line; {job.question.fault}")
    elif format_of(job.out) is not None and len(prompts) != 1:
        what = f"{len(prompts)} prompts" if prompts else "the findings of a report"
        faults.append(f"one file cannot hold {what}; give a folder as 'out'")
    return faults


def _shared_places(jobs: Mapping[int, Job]) -> list[str]:
    first: dict[Path, int] = {}
    faults = []
    for number, job in jobs.items():
        earlier = first.setdefault(job.out.resolve(), number)
        if earlier != number:
            why = f"results would go to {job.out} as those of line {earlier}; give another 'name'"
            faults.append(f"Line {number}: {why}.")
    return faults
