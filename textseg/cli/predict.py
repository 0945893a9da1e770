"""``textseg predict``: masks for prompts on one scan, a folder of scans, or a list of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    logging_to_stderr,
    stopping_on_signals,
)

if TYPE_CHECKING:
    from textseg.cli.jobs import Jobs, Question


def predict(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A scan, a DICOM folder, or a folder of scans; with --channel or --jobs none is "
            "given.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="What to segment, each a phrase in quotes."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="Result folder; or for one prompt a file such as liver.nii.gz. "
            "Default: <scan>_textseg beside the scan.",
        ),
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            metavar="NAME=FILE",
            help="A channel of the scan, such as flair=flair.nii.gz; repeatable.",
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            metavar="FILE_OR_TEXT",
            help="The scan's radiology report. Without a PROMPT, its findings are segmented; "
            "models that read reports see it in any case.",
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More prompts, one per line.")
    ] = None,
    jobs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Scans to segment, one JSON object per line, such as "
            '{"scan": "a.nii.gz", "prompts": ["liver"]}.',
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or folder.")] = "nano",
    device: Annotated[
        str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Number format; auto takes the fastest."),
    ] = "auto",
    averaging: Annotated[
        Literal["streamed", "published"],
        typer.Option(help="How windows are joined; published is that of SAT's own code."),
    ] = "streamed",
    modality: Annotated[
        Literal["auto", "ct", "mr", "pet"],
        typer.Option(help="Kind of scan; auto reads it from the file or guesses."),
    ] = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability from which a voxel counts; default: model's."),
    ] = None,
    keep_islands: Annotated[
        bool,
        typer.Option("--keep-islands", help="Keep pieces of a mask far smaller than its largest."),
    ] = False,
    volume: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Volume of a 4-D file, from 0.")
    ] = None,
    series: Annotated[
        str | None, typer.Option(metavar="UID", help="Series of a DICOM folder that holds several.")
    ] = None,
    roi: Annotated[
        Literal["off", "auto"],
        typer.Option(help="auto looks first where the prompts are, and segments only there."),
    ] = "off",
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror", help="Look a second time, in a mirror, and average: twice the time."
        ),
    ] = False,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", help="nifti (default), nii, nrrd or mha; repeatable."),
    ] = None,
    stats: Annotated[
        bool | None,
        typer.Option(
            "--stats/--no-stats",
            help="Write statistics.json.",
            show_default="on, except with a single file as OUT",
        ),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Write a picture of the masks over the scan.")
    ] = False,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Write a map of each mask's pieces as well, numbered by size."
        ),
    ] = False,
    least_instance_ml: Annotated[
        float,
        typer.Option(min=0, metavar="ML", help="With --instances: leave out smaller pieces."),
    ] = 0.0,
    strict_prompts: Annotated[
        bool, typer.Option("--strict-prompts", help="Refuse prompts that name nothing (exit 7).")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip scans whose result is there and complete.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there.")
    ] = False,
    on_error: Annotated[
        Literal["continue", "stop"],
        typer.Option(help="What a scan that fails means for those after it."),
    ] = "continue",
    num_parts: Annotated[
        int, typer.Option(min=1, metavar="N", help="Parts to split the scans into.")
    ] = 1,
    part_id: Annotated[
        int, typer.Option(min=0, metavar="I", help="Which of the parts to segment, from 0.")
    ] = 0,
    runner: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Where to work: here, or on a Ray cluster, a worker per device."),
    ] = "local",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processor threads, of each worker on a cluster.",
            show_default="as many as there are cores",
        ),
    ] = None,
    as_json: JsonFlag = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also say how the work is done.")
    ] = False,
    debug: DebugFlag = False,
) -> None:
    """Segment what the prompts name.

    Each prompt becomes a mask file on the scan's own voxel grid. A structure that is not in the
    scan, or that the model never learned, is an answer and a warning, not an error. The model is
    loaded once for a folder of scans or a list of jobs, and a scan that cannot be read is reported
    and skipped.
    """
    with stopping_on_signals(), logging_to_stderr(verbose=verbose, debug=debug):
        from textseg.cli import batch
        from textseg.cli.answering import Delivery, Setup
        from textseg.cli.jobs import Question, distinct, share_of
        from textseg.cli.report import Talk
        from textseg.cli.resolve import read_prompts
        from textseg.reports.given import placed_report

        if jobs is not None and channels:
            raise UsageError(f"{jobs} holds jobs; name the channels there, not with --channel.")
        words = [*(prompts or []), *(read_prompts(prompts_file) if prompts_file else [])]
        if (jobs is not None or channels) and source is not None:
            # they say which scans, so that the first word is a prompt as well
            words.insert(0, source)
        question = Question(
            prompts=distinct(words),
            modality=modality,
            threshold=threshold,
            keep_islands=keep_islands,
            volume_index=volume,
            series=series,
            roi=roi,
            strict=strict_prompts,
            # on a cluster the worker is in another folder
            report=None if report is None else placed_report(report, Path.cwd()),
            mirror=mirror,
            instances=instances,
            least_instance_ml=least_instance_ml,
        )
        chosen = tuple(formats or ["nifti"])
        _check_formats(chosen)
        _check_share(num_parts, part_id)
        if jobs is not None:
            planned = _listed(jobs, out, question)
        elif channels:
            planned = _given(channels, out, question)
        else:
            planned = _found(source, out, question)
        if planned.is_batch and report is not None:
            raise UsageError("a --report is that of one scan; with --jobs each scan has its own.")
        talk = Talk(as_json, quiet, debug, is_batch=planned.is_batch or runner == "ray")
        delivery = Delivery(chosen, stats, preview, resume, overwrite, measure=talk.has_table)
        code = batch.run(
            share_of(planned.jobs, num_parts=num_parts, part_id=part_id),
            delivery,
            setup=Setup(model, device, precision, averaging, threads),
            runner=runner,
            stops_on_error=on_error == "stop",
            talk=talk,
        )
    raise typer.Exit(code)


def _listed(jobs: Path, out: Path | None, question: Question) -> Jobs:
    """The jobs of a file."""
    from textseg.cli.job_file import read_jobs

    if _is_file_name(out):
        raise UsageError(f"{jobs} holds jobs; give a folder as -o.")
    planned = read_jobs(jobs, out, question)
    if question.least_instance_ml and not any(job.question.instances for job in planned.jobs):
        raise UsageError("--least-instance-ml needs --instances, or jobs with instances.")
    return planned


def _found(name: str | None, out: Path | None, question: Question) -> Jobs:
    """The scan, or the scans of the folder, of that name."""
    from textseg.cli.scans import plan_jobs

    if name is None:
        raise UsageError("Give an INPUT, or --jobs, or a --channel.")
    _check_question(question, out)
    source = Path(name)
    if out is not None and source.is_dir() and out.absolute() == source.absolute():
        # masks among the scans would be taken for scans by the next run
        raise UsageError("results need a folder of their own; give another -o.")
    planned = plan_jobs(source, out, question)
    if planned.is_batch and _is_file_name(out):
        raise UsageError(f"{source} holds several scans; give a folder as -o.")
    return planned


def _given(channels: list[str], out: Path | None, question: Question) -> Jobs:
    """The scan of which the channels are named."""
    from textseg.cli.scans import plan_channels

    _check_question(question, out)
    named = []
    for text in channels:
        name, _, file = text.partition("=")
        if not (name.strip() and file):
            raise UsageError(f"--channel {text!r} is not of the form NAME=FILE.")
        named.append((name, Path(file)))
    return plan_channels(named, out, question)


def _check_question(question: Question, out: Path | None) -> None:
    if question.fault is not None:
        raise UsageError(f"Give at least one PROMPT, or --prompts-file; {question.fault}.")
    if question.least_instance_ml and not question.instances:
        raise UsageError("--least-instance-ml needs --instances.")
    if _is_file_name(out) and len(question.prompts) != 1:
        what = f"{len(question.prompts)} prompts" if question.prompts else "a report's findings"
        raise UsageError(f"one file cannot hold {what}; give -o a folder.")


def _check_formats(formats: tuple[str, ...]) -> None:
    from textseg.outputs.formats import FORMATS

    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UsageError(f"--format {unknown[0]!r} is none of {', '.join(FORMATS)}.")


def _check_share(num_parts: int, part_id: int) -> None:
    if part_id >= num_parts:
        raise UsageError(f"--part-id {part_id} is none of {num_parts} parts, which count from 0.")


def _is_file_name(out: Path | None) -> bool:
    from textseg.outputs.formats import format_of

    return out is not None and format_of(out) is not None
