"""Runs the jobs of ``textseg predict``: checks everything first, then tells of scan after scan."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import Literal, TypeAlias

import typer

from textseg.cli import report
from textseg.cli.answering import (
    Answer,
    Delivery,
    Outcome,
    Progress,
    Setup,
    Steps,
    Task,
    answer,
    raise_refused,
)
from textseg.cli.jobs import Job, Question
from textseg.cli.overlap import overlapped
from textseg.cli.report import Talk
from textseg.cli.scans import check_writable
from textseg.cli.terminal import progress_bar, say, warn
from textseg.knowledge import KnowledgeTree, load_model_tree
from textseg.network.weights import ModelManifest, find_model, read_model_manifest
from textseg.outputs.preview import require_matplotlib
from textseg.prompts import resolve

Runner: TypeAlias = Literal["local", "ray"]
Outcomes: TypeAlias = Generator[tuple[Task, Outcome], None, None]
_MODALITIES: tuple[Literal["ct", "mr", "pet"], ...] = ("ct", "mr", "pet")


def run(
    jobs: Sequence[Job],
    delivery: Delivery,
    *,
    setup: Setup,
    runner: Runner,
    stops_on_error: bool,
    talk: Talk,
) -> int:
    """Segments and saves every scan; returns the exit code.

    Everything that can be known to fail is checked before the model is loaded. In a batch, a scan
    that fails is reported, and the others go on unless that ends the batch.
    """
    if not jobs:
        if not talk.quiet:
            say("no scan falls to this part")
        return 0
    tasks = _checked(jobs, delivery, setup)
    failures = []
    with closing(_outcomes(tasks, setup, runner=runner, talk=talk)) as outcomes:
        for task, outcome in outcomes:
            _tell(task, outcome, talk)
            if not isinstance(outcome, Answer):
                failures.append(outcome)
                if stops_on_error:
                    break
    if failures:
        warn(f"{len(failures)} of {len(tasks)} scans failed; --resume tries only those again.")
    return 1 if any(failure.is_bug for failure in failures) else 6 if failures else 0


def _checked(jobs: Sequence[Job], delivery: Delivery, setup: Setup) -> list[Task]:
    """The jobs as tasks that nothing known is in the way of.

    Raises:
        ModelError: There is no such model, or no matplotlib for a preview.
        PromptError: A prompt names nothing, and that is not allowed.
        ResourceError: Something is in the way (E504), or the place cannot be written (E503).
    """
    folder = find_model(setup.model)
    model = read_model_manifest(folder)
    strict = {job.question: None for job in jobs if job.question.strict}
    if strict:
        _refuse_unresolved(strict, model, load_model_tree(folder))
    if delivery.preview:
        require_matplotlib()
    tasks = [Task(job, delivery, model.sha256) for job in jobs]
    for task in tasks:
        plan = task.plan
        check_writable(plan.folder)
        if not delivery.resume:
            plan.check(overwrite=delivery.overwrite)
    return tasks


def _refuse_unresolved(
    questions: Iterable[Question], model: ModelManifest, tree: KnowledgeTree
) -> None:
    """PromptError for the prompts that name nothing, whatever the scans turn out to be."""
    refused = {}
    for question in questions:
        kinds = _MODALITIES if question.modality == "auto" else (question.modality,)
        for prompt in question.prompts:
            answers = [
                resolve(prompt, tree, supported=model.supported, modality=kind) for kind in kinds
            ]
            if all(answer.status != "ok" for answer in answers):
                refused[prompt] = report.note(answers[0])
    raise_refused(refused)


def _outcomes(tasks: Sequence[Task], setup: Setup, *, runner: Runner, talk: Talk) -> Outcomes:
    """Each task with its outcome, as they come."""
    if runner == "ray":
        from textseg.cli.ray_runner import run_on_ray

        return run_on_ray(tasks, setup, says_progress=not talk.quiet)
    steps = Steps(setup, partial(_progress, tasks, talk))
    if talk.is_batch:
        return overlapped(tasks, steps)
    # of a single scan, an error is that of the command
    return ((task, answer(task, steps)) for task in tasks)


def _progress(
    tasks: Sequence[Task], talk: Talk, task: Task
) -> AbstractContextManager[Progress | None]:
    name = task.job.name
    label = f"{tasks.index(task) + 1}/{len(tasks)} {name}" if talk.is_batch else name
    return progress_bar(label, unit="windows", shown=not talk.quiet)


def _tell(task: Task, outcome: Outcome, talk: Talk) -> None:
    if not isinstance(outcome, Answer):
        if talk.debug:
            typer.echo(outcome.trace, err=True)
        say(outcome.line)
    elif outcome.is_kept:
        report.kept(outcome.manifest, name=task.job.name, place=task.job.out, talk=talk)
    else:
        report.answered(
            outcome.manifest,
            outcome.volumes_ml,
            name=task.job.name,
            place=task.job.out,
            talk=talk,
        )
