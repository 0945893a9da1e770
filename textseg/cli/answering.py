"""Answers one job in three steps, reading, segmenting and writing, wherever and whenever each runs.

A job that fails is an answer as well, so that the others go on.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from textseg.atomic import exists_error, file_sha256
from textseg.cli import report
from textseg.cli.jobs import Job, Question
from textseg.errors import Cancelled, InputError, PromptError, TextsegError
from textseg.outputs.formats import format_of
from textseg.outputs.layout import OutputPlan, plan_output
from textseg.outputs.manifest import Manifest, ReportRecord, is_complete, read_manifest
from textseg.reports.given import GivenReport

if TYPE_CHECKING:
    from textseg.imaging import Volume
    from textseg.outputs.segmentation import Segmentation
    from textseg.segmenter import Segmenter

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Delivery:
    """How answers are stored.

    Attributes:
        formats: Of the masks.
        stats: Write statistics; None for all but single files.
        preview: Draw a picture.
        resume: Keep what stands and replace what does not.
        overwrite: Replace whatever is there.
        measure: Tell the volumes as well, for a table.
    """

    formats: tuple[str, ...]
    stats: bool | None = None
    preview: bool = False
    resume: bool = False
    overwrite: bool = False
    measure: bool = False


@dataclass(frozen=True)
class Setup:
    """Which model, and how it runs; ``threads`` is None for as many as PyTorch takes."""

    model: str
    device: str
    precision: str
    averaging: str
    threads: int | None = None


@dataclass(frozen=True)
class Task:
    """A job, how its answer is stored, and the hash of the model that is to give it."""

    job: Job
    delivery: Delivery
    model_sha256: str

    @property
    def plan(self) -> OutputPlan:
        """The files of the answer, as far as they are known before a report is read."""
        return self.plan_for(self.job.question.prompts)

    def plan_for(self, prompts: Sequence[str]) -> OutputPlan:
        """The files of the answer to such prompts."""
        stats = self.delivery.stats
        return plan_output(
            self.job.out,
            prompts,
            formats=self.delivery.formats,
            stats=format_of(self.job.out) is None if stats is None else stats,
            preview=self.delivery.preview,
            instances=self.job.question.instances,
        )


@dataclass(frozen=True)
class Loaded:
    """A scan in memory, and how long that took."""

    volume: Volume
    read_s: float


@dataclass(frozen=True)
class Answer:
    """A result that is stored; ``is_kept`` if an earlier run left it."""

    manifest: Manifest
    volumes_ml: Mapping[str, float | None]
    is_kept: bool = False


@dataclass(frozen=True)
class Failure:
    """Why there is no result."""

    line: str
    is_bug: bool
    trace: str

    @classmethod
    def of(cls, error: Exception, job: Job) -> Failure:
        """The error as told to the user."""
        is_bug = not isinstance(error, TextsegError | MemoryError)
        return cls(_line(error, job), is_bug, "".join(traceback.format_exception(error)))


Outcome: TypeAlias = Answer | Failure
Progress: TypeAlias = Callable[[int, int], None]
Watch: TypeAlias = Callable[[Task], AbstractContextManager[Progress | None]]


class Steps:
    """The steps of a job in this process; their errors are the job's, those of ``load`` are not.

    Args:
        setup: The model to load, once it is needed.
        watch: Shows the progress on a task.
    """

    def __init__(self, setup: Setup, watch: Watch = lambda task: nullcontext()) -> None:
        self._setup = setup
        self._watch = watch
        self._segmenter: Segmenter | None = None

    def load(self) -> None:
        """Makes the model ready to run.

        Raises:
            ModelError: Its files are damaged, or the device is not there.
        """
        if self._segmenter is None:
            self._segmenter = _load(self._setup)

    def read(self, task: Task) -> Loaded | Answer:
        """The scan in memory, or the answer of an earlier run if that is to be kept.

        Raises:
            InputError: The scan is missing, damaged or cannot be trusted, or the report is.
            ResourceError: An answer to other prompts would be lost (E504).
        """
        question = task.job.question
        # also without --resume: better told before the scan is read
        report = None if question.report is None else GivenReport.of(question.report)
        if task.delivery.resume:
            kept = _standing_answer(task, report)
            if kept is not None:
                return Answer(kept, {}, is_kept=True)
            if not task.delivery.overwrite:
                _refuse_losing_others(task)
        from textseg.imaging import as_volume

        started = time.perf_counter()
        volume = as_volume(
            task.job.source,
            modality=question.modality,
            volume_index=question.volume_index,
            series=question.series,
        )
        return Loaded(volume, time.perf_counter() - started)

    def segment(self, task: Task, loaded: Loaded) -> Segmentation:
        """What the loaded model says of the scan, with the question kept in its record.

        Raises:
            PromptError: A prompt names nothing, and that is not allowed.
        """
        if self._segmenter is None:
            raise RuntimeError("load() comes before segment()")
        question = task.job.question
        with self._watch(task) as progress:
            segmentation = self._segmenter(
                loaded.volume,
                question.prompts or None,
                report=question.report,
                threshold=question.threshold,
                keep_islands=question.keep_islands,
                roi=question.roi,
                mirror=question.mirror,
                progress=progress,
            )
        if question.strict:
            raise_refused(_refused_on_scan(segmentation))
        _complete_record(segmentation, question, read_s=loaded.read_s)
        return segmentation

    def write(self, task: Task, segmentation: Segmentation) -> Answer:
        """The answer, when all its files are stored.

        Raises:
            ResourceError: A file exists by now (E504); the disk is full (E502) or refuses (E503).
        """
        from textseg.outputs.saving import save_result

        plan = task.plan_for(list(segmentation))
        plan.check(overwrite=task.delivery.overwrite or task.delivery.resume)
        least_ml = task.job.question.least_instance_ml
        manifest = save_result(segmentation, plan, least_instance_ml=least_ml)
        _log_run(task.job, manifest)
        measured = segmentation.items() if task.delivery.measure else ()
        return Answer(manifest, {p: result.statistics["volume_ml"] for p, result in measured})


def answer(task: Task, steps: Steps) -> Answer:
    """One step after the other."""
    loaded = steps.read(task)
    if isinstance(loaded, Answer):
        return loaded
    steps.load()
    return steps.write(task, steps.segment(task, loaded))


def guarded(task: Task, step: Callable[[], T]) -> T | Failure:
    """What the step returns, or the failure that its error is; being stopped is none."""
    try:
        return step()
    except Cancelled:
        raise
    except Exception as error:
        return Failure.of(error, task.job)


def raise_refused(refused: Mapping[str, str]) -> None:
    """PromptError for prompts that mean nothing, each with the reason."""
    if refused:
        causes = " ".join(f"'{prompt}': {why}" for prompt, why in refused.items())
        raise PromptError(causes, remedy="Nothing was segmented, because of --strict-prompts.")


def _standing_answer(task: Task, report: GivenReport | None) -> Manifest | None:
    """The manifest of an earlier run that answered this very question, with all its files."""
    plan, question = task.plan, task.job.question
    if not is_complete(plan.manifest, prompts=question.prompts, model_sha256=task.model_sha256):
        return None
    manifest = read_manifest(plan.manifest)
    if not question.is_that_of(manifest.run.settings):
        return None
    if not question.prompts:
        plan = task.plan_for([entry.prompt for entry in manifest.prompts])
    written = {record.name for record in manifest.files}
    found = {entry.prompt for entry in manifest.prompts if entry.status == "ok"}
    wanted = {path.name for prompt in found & set(plan.masks) for path, _ in plan.masks[prompt]} | {
        path.name for path in (plan.statistics, plan.preview) if path is not None
    }
    if not wanted <= written:
        return None
    if not _is_same_report(report, manifest.run.report):
        return None
    return manifest if _is_same_scan(task.job, manifest, plan) else None


def _is_same_report(report: GivenReport | None, told: ReportRecord | None) -> bool:
    return (report.sha256 if report else None) == (told.sha256 if told else None)


def _is_same_scan(job: Job, manifest: Manifest, plan: OutputPlan) -> bool:
    told = {c.name: c.sha256 for c in manifest.run.channels if not c.is_missing}
    channels = dict(job.channels)
    if told.keys() != channels.keys():
        return False
    if not channels:
        return _is_same_file(job.scan, manifest.input.sha256, plan)
    return all(_is_same_file(channels[name], sha256, plan) for name, sha256 in told.items())


def _is_same_file(scan: Path, sha256: str | None, plan: OutputPlan) -> bool:
    if sha256 is not None:
        return scan.is_file() and file_sha256(scan) == sha256
    # scans of several files have no one hash; then a file newer than the answer is a change
    files = [p for p in scan.rglob("*") if p.is_file()] if scan.is_dir() else [scan]
    newest = max((path.stat().st_mtime for path in files), default=0.0)
    return newest <= plan.manifest.stat().st_mtime


def _refuse_losing_others(task: Task) -> None:
    """E504 if the place holds the answer to prompts that are not asked now."""
    manifest, prompts = task.plan.manifest, task.job.question.prompts
    try:
        earlier = read_manifest(manifest)
    except InputError:
        # no finished answer, so nothing to lose
        return
    if not prompts and earlier.run.findings is not None:
        # what a report stated gives way to what it states now
        return
    if not {entry.prompt for entry in earlier.prompts} <= set(prompts):
        raise exists_error(manifest)


def _refused_on_scan(segmentation: Segmentation) -> dict[str, str]:
    refused = {p: r for p, r in segmentation.items() if r.status not in {"ok", "not_found"}}
    return {p: report.reason(r.record()) for p, r in refused.items()}


def _complete_record(segmentation: Segmentation, question: Question, *, read_s: float) -> None:
    """Adds what the engine was not told: the question as asked, and the time of reading."""
    run = segmentation.run
    read = round(read_s, 3)
    timings = {**run.timings_s, "read": read, "total": round(run.timings_s["total"] + read, 3)}
    # the settings are part of the question, so --resume can tell whether an answer still stands
    new = {"settings": question.settings(), "timings_s": timings}
    segmentation.run = run.model_copy(update=new)


def _log_run(job: Job, manifest: Manifest) -> None:
    for grid in manifest.run.grids:
        _log.info(
            "%s: %s grid %s at %g mm, %d windows (%d skipped), roi %s",
            *(job.name, grid.domain, grid.shape, grid.spacing_mm[0]),
            *(grid.windows, grid.windows_skipped, grid.roi or "off"),
        )
    _log.info("%s: read and segmented in %.1f s", job.name, manifest.run.timings_s["total"])


def _load(setup: Setup) -> Segmenter:
    import torch

    from textseg.inference import keep_freed_memory
    from textseg.segmenter import Segmenter

    keep_freed_memory()
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    return Segmenter.from_pretrained(
        setup.model, device=setup.device, precision=setup.precision, averaging=setup.averaging
    )


def _line(error: Exception, job: Job) -> str:
    if isinstance(error, TextsegError):
        # an error that names no file still has to say which scan it is about
        return error.line() if error.path else f"{error.line()} (scan: {job.scan})"
    if isinstance(error, MemoryError):
        return f"error[E501 out-of-memory] {job.scan}: {error or 'an allocation failed'}."
    return f"error[bug] {job.scan}: {type(error).__name__}: {error}. Run with --debug."
