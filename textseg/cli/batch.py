"""Runs the jobs of ``textseg predict``: checks everything first, then segments scan after scan."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textseg.atomic import exists_error, file_sha256
from textseg.cli import report
from textseg.cli.report import Talk
from textseg.cli.scans import Job, check_writable
from textseg.cli.terminal import progress_bar, say, warn
from textseg.errors import Cancelled, InputError, PromptError, TextsegError
from textseg.knowledge import KnowledgeTree, load_model_tree
from textseg.network.weights import ModelManifest, find_model, read_model_manifest
from textseg.outputs.layout import OutputPlan, plan_output
from textseg.outputs.manifest import Manifest, is_complete, read_manifest
from textseg.outputs.preview import require_matplotlib
from textseg.prompts import resolve

if TYPE_CHECKING:
    from textseg.outputs.segmentation import Segmentation
    from textseg.segmenter import Segmenter

_log = logging.getLogger(__name__)

Modality = Literal["ct", "mr", "pet"]
_MODALITIES: tuple[Modality, ...] = ("ct", "mr", "pet")


@dataclass(frozen=True)
class Question:
    """What is asked of every scan.

    Attributes:
        prompts: Distinct, in order.
        modality: As told, or ``auto``.
        threshold: None for the model's own.
        keep_islands: Keep small pieces of masks.
        volume_index: Which volume of a 4-D file.
        series: Which series of a DICOM folder.
        strict: Refuse prompts that name nothing, instead of warning.
    """

    prompts: tuple[str, ...]
    modality: Modality | Literal["auto"] = "auto"
    threshold: float | None = None
    keep_islands: bool = False
    volume_index: int | None = None
    series: str | None = None
    strict: bool = False

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """What besides prompts, scan and model decides the answer; kept in the manifest."""
        return {
            "modality": self.modality,
            "threshold": self.threshold,
            "keep_islands": self.keep_islands,
            "volume": self.volume_index,
            "series": self.series,
        }


@dataclass(frozen=True)
class Delivery:
    """How answers are stored."""

    formats: tuple[str, ...]
    stats: bool
    preview: bool
    resume: bool
    overwrite: bool


@dataclass(frozen=True)
class _Task:
    """A job with its files settled; ``kept`` is the answer an earlier run left, if it stands."""

    job: Job
    plan: OutputPlan
    overwrite: bool
    kept: Manifest | None


@dataclass(frozen=True)
class Setup:
    """Which model, and how it runs."""

    model: str
    device: str
    precision: str
    averaging: str


def run(
    jobs: Sequence[Job], question: Question, delivery: Delivery, *, setup: Setup, talk: Talk
) -> int:
    """Segments and saves every scan; returns the exit code.

    Everything that can be known to fail is checked before the model is loaded. In a batch, a scan
    that fails is reported, and the others go on.
    """
    folder = find_model(setup.model)
    model = read_model_manifest(folder)
    if question.strict:
        _refuse_unresolved(question, model, load_model_tree(folder))
    if delivery.preview:
        require_matplotlib()
    tasks = [_prepare(job, question, delivery, model=model) for job in jobs]
    segmenter: Segmenter | None = None
    failures: list[BaseException] = []
    for number, task in enumerate(tasks, start=1):
        label = f"{number}/{len(tasks)} {task.job.name}" if talk.is_batch else task.job.name
        if task.kept is not None:
            report.kept(task.kept, name=task.job.name, place=task.job.out, talk=talk)
            continue
        segmenter = segmenter or _load(setup)
        try:
            _answer(segmenter, task, question, label=label, talk=talk)
        except Exception as error:
            if not talk.is_batch or isinstance(error, Cancelled):
                raise
            _report_failure(error, task.job, debug=talk.debug)
            failures.append(error)
    if failures:
        warn(f"{len(failures)} of {len(tasks)} scans failed; --resume tries only those again.")
    is_bug = any(not isinstance(error, TextsegError | MemoryError) for error in failures)
    return 1 if is_bug else 6 if failures else 0


def _load(setup: Setup) -> Segmenter:
    from textseg.segmenter import Segmenter

    return Segmenter.from_pretrained(
        setup.model,
        device=setup.device,
        precision=setup.precision,
        averaging=setup.averaging,
    )


def _prepare(job: Job, question: Question, delivery: Delivery, *, model: ModelManifest) -> _Task:
    """Settles the files of a job, and whether there is anything to do.

    Raises:
        ResourceError: Something is in the way (E504), or the place cannot be written (E503).
    """
    plan = plan_output(
        job.out,
        question.prompts,
        formats=delivery.formats,
        stats=delivery.stats,
        preview=delivery.preview,
    )
    check_writable(plan.folder)
    if not delivery.resume:
        plan.check(overwrite=delivery.overwrite)
        return _Task(job, plan, delivery.overwrite, kept=None)
    kept = _standing_answer(job, plan, question, model=model)
    if kept is None and not delivery.overwrite:
        _refuse_losing_others(plan, question)
    return _Task(job, plan, overwrite=True, kept=kept)


def _standing_answer(
    job: Job, plan: OutputPlan, question: Question, *, model: ModelManifest
) -> Manifest | None:
    """The manifest of an earlier run that answered this very question, with all its files."""
    if not is_complete(plan.manifest, prompts=question.prompts, model_sha256=model.sha256):
        return None
    manifest = read_manifest(plan.manifest)
    written = {record.name for record in manifest.files}
    found = {entry.prompt for entry in manifest.prompts if entry.status == "ok"}
    wanted = {path.name for prompt in found & set(plan.masks) for path, _ in plan.masks[prompt]} | {
        path.name for path in (plan.statistics, plan.preview) if path is not None
    }
    if manifest.run.settings != question.settings() or not wanted <= written:
        return None
    return manifest if _is_same_scan(job.scan, manifest, plan.manifest) else None


def _is_same_scan(scan: Path, manifest: Manifest, manifest_path: Path) -> bool:
    if manifest.input.sha256 is not None:
        return scan.is_file() and file_sha256(scan) == manifest.input.sha256
    # scans of several files have no one hash; then a file newer than the answer is a change
    files = [p for p in scan.rglob("*") if p.is_file()] if scan.is_dir() else [scan]
    newest = max((path.stat().st_mtime for path in files), default=0.0)
    return newest <= manifest_path.stat().st_mtime


def _refuse_losing_others(plan: OutputPlan, question: Question) -> None:
    """E504 if the place holds the answer to prompts that are not asked now."""
    try:
        earlier = read_manifest(plan.manifest)
    except InputError:
        # no finished answer, so nothing to lose
        return
    if not {entry.prompt for entry in earlier.prompts} <= set(question.prompts):
        raise exists_error(plan.manifest)


def _refuse_unresolved(question: Question, model: ModelManifest, tree: KnowledgeTree) -> None:
    """PromptError for the prompts that name nothing, whatever the scan turns out to be."""
    kinds = _MODALITIES if question.modality == "auto" else (question.modality,)
    refused = {}
    for prompt in question.prompts:
        answers = [
            resolve(prompt, tree, supported=model.supported, modality=kind) for kind in kinds
        ]
        if all(answer.status != "ok" for answer in answers):
            refused[prompt] = report.note(answers[0])
    _raise_refused(refused)


def _raise_refused(refused: dict[str, str]) -> None:
    if refused:
        causes = " ".join(f"'{prompt}': {why}" for prompt, why in refused.items())
        raise PromptError(causes, remedy="Nothing was segmented, because of --strict-prompts.")


def _answer(
    segmenter: Segmenter, task: _Task, question: Question, *, label: str, talk: Talk
) -> None:
    """Segments one scan, saves the result and says what came of it."""
    started = time.perf_counter()
    with progress_bar(label, unit="windows", shown=not talk.quiet) as move:
        segmentation = segmenter(
            task.job.scan,
            question.prompts,
            modality=question.modality,
            threshold=question.threshold,
            keep_islands=question.keep_islands,
            volume_index=question.volume_index,
            series=question.series,
            progress=move,
        )
        if question.strict:
            _raise_refused(_refused_on_scan(segmentation))
        manifest = _save(segmentation, task, question)
    for grid in manifest.run.grids:
        _log.info(
            "%s: %s grid %s at %g mm, %d windows (%d skipped)",
            *(task.job.name, grid.domain, grid.shape, grid.spacing_mm[0]),
            *(grid.windows, grid.windows_skipped),
        )
    _log.info("%s: done in %.1f s", task.job.name, time.perf_counter() - started)
    report.answered(manifest, segmentation, name=task.job.name, place=task.job.out, talk=talk)


def _refused_on_scan(segmentation: Segmentation) -> dict[str, str]:
    refused = {p: r for p, r in segmentation.items() if r.status not in {"ok", "not_found"}}
    return {p: report.reason(r.record()) for p, r in refused.items()}


def _save(segmentation: Segmentation, task: _Task, question: Question) -> Manifest:
    from textseg.outputs.saving import save_result

    # the settings are part of the question, so --resume can tell whether an answer still stands
    segmentation.run = segmentation.run.model_copy(update={"settings": question.settings()})
    task.plan.check(overwrite=task.overwrite)
    return save_result(segmentation, task.plan)


def _report_failure(error: Exception, job: Job, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    say(_line(error, job))


def _line(error: Exception, job: Job) -> str:
    if isinstance(error, TextsegError):
        # an error that names no file still has to say which scan it is about
        return error.line() if error.path else f"{error.line()} (scan: {job.scan})"
    if isinstance(error, MemoryError):
        return f"error[E501 out-of-memory] {job.scan}: {error or 'an allocation failed'}."
    return f"error[bug] {job.scan}: {type(error).__name__}: {error}. Run with --debug."


def distinct(prompts: Sequence[str]) -> tuple[str, ...]:
    """The prompts in order, each once."""
    return tuple(dict.fromkeys(prompts))
