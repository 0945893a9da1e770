"""``textseg predict``: masks for prompts on one scan, or on a folder of scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    logging_to_stderr,
    stopping_on_signals,
)


def predict(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A scan, a DICOM folder, or a folder of scans.")
    ],
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
    prompts_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More prompts, one per line.")
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
    strict_prompts: Annotated[
        bool, typer.Option("--strict-prompts", help="Refuse prompts that name nothing (exit 7).")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip scans whose result is there and complete.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there.")
    ] = False,
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
    loaded once for a folder of scans, and a scan that cannot be read is reported and skipped.
    """
    with stopping_on_signals(), logging_to_stderr(verbose=verbose, debug=debug):
        from textseg.cli import batch, report
        from textseg.cli.resolve import read_prompts
        from textseg.cli.scans import plan_jobs

        listed = read_prompts(prompts_file) if prompts_file else []
        question = batch.Question(
            prompts=batch.distinct([*(prompts or []), *listed]),
            modality=modality,
            threshold=threshold,
            keep_islands=keep_islands,
            volume_index=volume,
            series=series,
            strict=strict_prompts,
        )
        chosen = tuple(formats or ["nifti"])
        _check_usage(question.prompts, chosen, out)
        if out is not None and source.is_dir() and out.absolute() == source.absolute():
            # masks among the scans would be taken for scans by the next run
            raise UsageError("results need a folder of their own; give another -o.")
        jobs = plan_jobs(source, out)
        if jobs.is_batch and _is_file_name(out):
            raise UsageError(f"{source} holds several scans; give a folder as -o.")
        delivery = batch.Delivery(
            formats=chosen,
            stats=stats if stats is not None else not _is_file_name(out),
            preview=preview,
            resume=resume,
            overwrite=overwrite,
        )
        setup = batch.Setup(model, device, precision, averaging)
        talk = report.Talk(as_json, quiet, debug, is_batch=jobs.is_batch)
        code = batch.run(jobs.jobs, question, delivery, setup=setup, talk=talk)
    raise typer.Exit(code)


def _check_usage(prompts: tuple[str, ...], formats: tuple[str, ...], out: Path | None) -> None:
    """Usage errors that need no look at the disk."""
    from textseg.outputs.formats import FORMATS

    if not prompts:
        raise UsageError("Give at least one PROMPT, or --prompts-file.")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UsageError(f"--format {unknown[0]!r} is none of {', '.join(FORMATS)}.")
    if _is_file_name(out) and len(prompts) > 1:
        raise UsageError(f"one file cannot hold {len(prompts)} prompts; give -o a folder.")


def _is_file_name(out: Path | None) -> bool:
    from textseg.outputs.formats import format_of

    return out is not None and format_of(out) is not None
