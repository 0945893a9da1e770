"""``textseg bench``: how long a scan takes on this machine, and where the time goes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    cells,
    logging_to_stderr,
    make_table,
    print_json,
    print_rich,
    progress_bar,
    warn,
)

if TYPE_CHECKING:
    from textseg.network.weights import Domain
    from textseg.outputs.segmentation import Segmentation
    from textseg.segmenter import Segmenter

_ENGINE_STAGES = ("read", "prepare", "backbone", "decode", "blend")
_STAGES = (*_ENGINE_STAGES, "other", "restore", "write")
_SHAPE, _SPACING_MM = (256, 256, 180), (1.5, 1.5, 2.5)
_WARM_UP_SHAPE, _WARM_UP_SPACING_MM = (48, 48, 48), (6.0, 6.0, 6.0)
_SAMPLED_EVERY_S = 0.01


@dataclass(frozen=True)
class Run:
    """One scan segmented.

    Attributes:
        prompts: How many were asked.
        found: How many have a mask.
        seconds: By stage; a stage that the engine does not tell is None, and counted as other.
        total_s: From the file to the last mask written.
        windows: Windows that cover the scan.
        windows_skipped: How many of them hold no body.
        peak_memory_bytes: Largest resident memory of the process meanwhile.
        peak_gpu_memory_bytes: Largest memory of tensors on the GPU; None without one.
    """

    prompts: int
    found: int
    seconds: dict[str, float | None]
    total_s: float
    windows: int
    windows_skipped: int
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int | None


@dataclass
class _Peak:
    """Largest memory seen so far."""

    memory_bytes: int = 0
    gpu_memory_bytes: int | None = field(default=None)


def bench(
    scan: Annotated[
        Path | None,
        typer.Option("--scan", metavar="FILE", help="A scan of yours; without, one is generated."),
    ] = None,
    prompts: Annotated[
        str,
        typer.Option("--prompts", "-p", metavar="N[,...]", help="How many structures to ask for."),
    ] = "1,32",
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or folder.")] = "nano",
    device: Annotated[
        str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Number format; auto takes the fastest."),
    ] = "auto",
    modality: Annotated[
        Literal["auto", "ct", "mr", "pet"],
        typer.Option(help="Kind of scan; auto reads it from the file or guesses."),
    ] = "auto",
    as_json: JsonFlag = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    debug: DebugFlag = False,
) -> None:
    """Measure how long a scan takes on this machine, and where the time goes.

    Reads a scan, segments the first N structures that the model knows in it and writes their masks
    to a folder that is deleted again; once for each N, after a short run that does not count.
    Without --scan a torso CT of 256 x 256 x 180 voxels is generated.
    """
    with logging_to_stderr(verbose=False, debug=debug):
        counts = _counts(prompts)
        from textseg.inference import keep_freed_memory
        from textseg.segmenter import Segmenter

        keep_freed_memory()
        started = time.perf_counter()
        segmenter = Segmenter.from_pretrained(model, device=device, precision=precision)
        load_s = time.perf_counter() - started
        with TemporaryDirectory(prefix="textseg-bench-") as name:
            folder = Path(name)
            source = scan or _generated(folder)
            about = _about(segmenter, source, scan is None, "ct" if scan is None else modality)
            names = _names(segmenter, about["modality"])
            _warm_up(segmenter, names[0])
            runs = [
                _measure(segmenter, source, names[:count], about["modality"], folder, quiet=quiet)
                for count in _within(counts, len(names), about["modality"])
            ]
        if as_json:
            print_json({**about, "load_s": load_s, "runs": list(map(asdict, runs))}, indent=2)
        else:
            _print(about, load_s, runs)


def _counts(text: str) -> tuple[int, ...]:
    """The numbers in a list such as ``1,32``.

    >>> _counts("1, 32")
    (1, 32)
    """
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise UsageError(f"--prompts {text!r} is no list of numbers from 1, such as 1,32.")
    return counts


def _within(counts: Sequence[int], most: int, modality: str) -> Iterator[int]:
    """The counts that can be asked, each once; larger ones are cut to the most there is."""
    if max(counts) > most:
        warn(f"the model knows {most} structures in one scan of this kind ({modality.upper()}).")
    yield from dict.fromkeys(min(count, most) for count in counts)


def _generated(folder: Path) -> Path:
    from textseg.imaging.phantom import write_torso_phantom

    return write_torso_phantom(folder / "generated.nii.gz", _SHAPE, _SPACING_MM)


def _about(
    segmenter: Segmenter,
    source: Path,
    is_generated: bool,
    modality: Literal["auto", "ct", "mr", "pet"],
) -> dict[str, Any]:
    """Scan, model and machine, as the JSON says them; the scan is read once, before the clock."""
    import torch

    from textseg.imaging import as_volume
    from textseg.outputs.manifest import SoftwareRecord

    volume = as_volume(source, modality=modality)
    is_cuda = segmenter.device.type == "cuda"
    return {
        "scan": None if is_generated else str(source),
        "shape": volume.geometry.shape,
        "spacing_mm": volume.geometry.spacing_mm,
        "modality": str(volume.modality),
        "model": f"{segmenter.manifest.name} {segmenter.manifest.version}",
        "device": torch.cuda.get_device_name(segmenter.device) if is_cuda else "cpu",
        "precision": segmenter.precision,
        "threads": torch.get_num_threads(),
        "software": SoftwareRecord.current().model_dump(),
    }


def _names(segmenter: Segmenter, modality: str) -> list[str]:
    """Structures to ask for: those of the largest domain that is mainly for this kind of scan."""

    def rank(domain: Domain) -> tuple[bool, bool, int]:
        kinds = domain.modalities
        return modality in kinds, modality == kinds[0], len(domain.concepts)

    domain = max(segmenter.manifest.domains, key=rank)
    return [segmenter.tree[concept].name for concept in domain.concepts]


def _warm_up(segmenter: Segmenter, prompt: str) -> None:
    """One window that does not count: what is made once is made by then."""
    import numpy as np

    from textseg.imaging.phantom import torso_phantom

    image = torso_phantom(_WARM_UP_SHAPE, _WARM_UP_SPACING_MM).astype(np.float32)
    segmenter((image, np.diag([*_WARM_UP_SPACING_MM, 1.0])), prompt, modality="ct")


def _measure(
    segmenter: Segmenter,
    source: Path,
    names: Sequence[str],
    modality: Any,
    folder: Path,
    *,
    quiet: bool,
) -> Run:
    """Reads, segments, restores and writes once."""
    with (
        progress_bar(f"{len(names)} prompts", unit="windows", shown=not quiet) as move,
        _watching_memory(segmenter) as peak,
    ):
        started = time.perf_counter()
        answer = segmenter(source, names, modality=modality, progress=move)
        answered_s = time.perf_counter() - started
        restore_s, write_s = _deliver(answer, folder)
    grids = answer.run.grids
    seconds = _by_stage(answer.run.timings_s, answered_s)
    return Run(
        prompts=len(names),
        found=sum(result.status == "ok" for result in answer.values()),
        seconds={**seconds, "restore": restore_s, "write": write_s},
        total_s=answered_s + restore_s + write_s,
        windows=sum(grid.windows for grid in grids),
        windows_skipped=sum(grid.windows_skipped for grid in grids),
        peak_memory_bytes=peak.memory_bytes,
        peak_gpu_memory_bytes=peak.gpu_memory_bytes,
    )


def _by_stage(timings_s: Mapping[str, float], total_s: float) -> dict[str, float | None]:
    """Seconds of the engine's stages, and of all that it does not tell apart."""
    told = {stage: timings_s.get(stage) for stage in _ENGINE_STAGES}
    rest = total_s - math.fsum(seconds for seconds in told.values() if seconds is not None)
    return {**told, "other": max(0.0, rest)}


def _deliver(answer: Segmentation, folder: Path) -> tuple[float, float]:
    """Seconds to bring all masks to the scan's grid, and to write them, one after the other."""
    from textseg.outputs.segmentation import Segmentation

    restore_s, write_s = 0.0, 0.0
    for result in answer.values():
        if result.status != "ok":
            continue
        # a segmentation of one keeps its mask between the two steps
        alone = Segmentation(answer.volume, [result], run=answer.run)
        started = time.perf_counter()
        _ = alone[result.prompt].mask
        restored = time.perf_counter()
        alone.save(folder / "masks", stats=False, overwrite=True)
        write_s += time.perf_counter() - restored
        restore_s += restored - started
    return restore_s, write_s


@contextmanager
def _watching_memory(segmenter: Segmenter) -> Iterator[_Peak]:
    """Looks every now and then at the memory of this process, and keeps the largest."""
    import psutil
    import torch

    process, peak, done = psutil.Process(), _Peak(), threading.Event()
    is_cuda = segmenter.device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(segmenter.device)

    def watch() -> None:
        while True:
            peak.memory_bytes = max(peak.memory_bytes, process.memory_info().rss)
            if done.wait(_SAMPLED_EVERY_S):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        if is_cuda:
            peak.gpu_memory_bytes = torch.cuda.max_memory_allocated(segmenter.device)


def _print(about: Mapping[str, Any], load_s: float, runs: Sequence[Run]) -> None:
    columns = [f"{run.prompts} prompt{'s' * (run.prompts > 1)}" for run in runs]
    table = make_table("seconds", *columns, numbers=tuple(columns))
    for stage in _STAGES:
        table.add_row(*cells(stage, *(_shown(run.seconds.get(stage)) for run in runs)))
    table.add_section()
    table.add_row(*cells("scan to files", *(_shown(run.total_s) for run in runs)))
    table.add_row(*cells("peak memory, GB", *(_shown(run.peak_memory_bytes / 1e9) for run in runs)))
    on_gpu = [run.peak_gpu_memory_bytes for run in runs if run.peak_gpu_memory_bytes is not None]
    if on_gpu:
        table.add_row(*cells("on the GPU, GB", *(_shown(peak / 1e9) for peak in on_gpu)))
    table.add_row(*cells("masks", *(str(run.found) for run in runs)))
    table.add_row(*cells("windows", *(f"{run.windows - run.windows_skipped}" for run in runs)))
    voxels = " x ".join(map(str, about["shape"]))
    spacing = " x ".join(f"{step:g}" for step in about["spacing_mm"])
    scan = about["scan"] or f"generated {about['modality'].upper()}"
    title = (
        f"{scan}: {voxels} voxels at {spacing} mm. {about['model']} on {about['device']}, "
        f"{about['precision']}, {about['threads']} threads, loaded in {load_s:.2f} s."
    )
    print_rich(table, title=title)


def _shown(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"
