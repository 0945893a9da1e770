"""What the benchmarks of inference found last, for the documentation.

Needs neither torch nor MONAI, and nothing else of this folder.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PEERS = Path(__file__).parent / "results" / "inference_peers.csv"
PEERS_COLUMNS = (
    *("scan", "prompts", "side", "seconds", "peak_gb", "above_model_gb", "masks", "dice"),
)
SIDES = ("MONAI", "textseg auto", "textseg float32", "SAT-style loop", "nnU-Net")
"""In the order they are measured; the first is the one that the others are held against."""

SCALE = Path(__file__).parent / "results" / "scale.csv"
SCALE_COLUMNS = (
    *("shape", "prompts", "engine_s", "total_s", "loaded_gb", "peak_gb"),
    *("scan_gb", "output_gb", "slab_gb", "estimate_gb"),
)
REPORTS = Path(__file__).parent / "results" / "report_fusion.csv"
REPORTS_COLUMNS = (*("fusion", "group", "scans", "report", "dice", "difference", "low", "high"),)
COMMANDS = Path(__file__).parent / "results" / "commands.csv"
COMMANDS_COLUMNS = (
    *("scan", "seconds", "around_s", "read_s", "prepare_s", "backbone_s", "decode_s", "blend_s"),
)

SIZES = Path(__file__).parent / "results" / "model_sizes.csv"
SIZES_COLUMNS = ("size", "weights_million", "steps", "step_s", "scan_s", "dice")

NOT_MEASURED = "Not yet measured.\n"

FEW, MANY, MOST = 1, 128, 451
"""Prompts on the long scan."""


def peers_table(record: Path = PEERS) -> str:
    """textseg and its peers, as Markdown."""
    found = latest(record, ("scan", "prompts", "side"))
    found.sort(key=lambda row: (row["scan"], int(row["prompts"]), SIDES.index(row["side"])))
    titles = ("scan", "prompts", "side", "seconds", "peak, GB", "above the loaded model, GB")
    written = markdown(
        (*titles, "masks", f"Dice against {SIDES[0]}"),
        [[row[column] for column in PEERS_COLUMNS] for row in found],
    )
    missing = [side for side in SIDES if side not in {row["side"] for row in found}]
    return written + "".join(f"\n{side}: not installed.\n" for side in missing)


def scale_table(record: Path = SCALE) -> str:
    """Many prompts and long scans, as Markdown, with what the figures say below."""
    found = latest(record, ("shape", "prompts"))
    titles = ("voxels", "prompts", "engine, s", "file to masks, s", "model loaded, GB", "peak, GB")
    parts = ("scan, GB", "output, GB", "slab, GB", "estimate, GB")
    cells = [[row[column] or "-" for column in SCALE_COLUMNS] for row in found]
    return f"{markdown((*titles, *parts), cells)}\n{summary(found)}"


def commands_table(record: Path = COMMANDS) -> str:
    """Whole commands, as Markdown."""
    if not record.is_file():
        return NOT_MEASURED
    titles = ("scan", "seconds", "start and write", "read", "resample", "backbone", "decode")
    cells = [[row[column] for column in COMMANDS_COLUMNS] for row in latest(record, ("scan",))]
    return markdown((*titles, "blend"), cells)


def reports_table(record: Path = REPORTS) -> str:
    """What reports are worth to each fusion, as Markdown."""
    if not record.is_file():
        return NOT_MEASURED
    found = latest(record, ("fusion", "group", "report"))
    groups = list(dict.fromkeys((row["group"], row["scans"]) for row in found))
    titles = ("fusion", "report", *(f"{group} ({scans} scans)" for group, scans in groups))
    lines: dict[tuple[str, str], list[str]] = {}
    for row in found:
        lines.setdefault((row["fusion"], row["report"]), []).append(_worth(row))
    return markdown(titles, [[*line, *cells] for line, cells in lines.items()])


def sizes_table(record: Path = SIZES) -> str:
    """Networks of several sizes after as many steps, as Markdown."""
    if not record.is_file():
        return NOT_MEASURED
    found = latest(record, ("size", "steps"))
    titles = ("network", "weights, million", "steps", "a step, s", "a scan, s", "Dice")
    return markdown(titles, [[row[column] for column in SIZES_COLUMNS] for row in found])


def _worth(row: Mapping[str, str]) -> str:
    """Dice, and what the right report has over it with its interval."""
    if not row["difference"]:
        return row["dice"]
    ends = f" ({row['low']} to {row['high']})" if row["low"] else ""
    return f"{row['dice']}; {row['difference']}{ends}"


def growth(measured: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Gigabytes per 100 slices, by least squares over the scans asked ``MANY`` prompts.

    A scan with fewer slices than it is wide is streamed across its width, and its slab grows too.

    Returns:
        Of the peak, of what is known to be part of it, and of the rest.
    """
    chosen = [row for row in measured if int(row["prompts"]) == MANY]
    slices = [int(row["shape"].split("x")[2]) / 100 for row in chosen]
    parts = {
        name: np.array([float(row[f"{name}_gb"]) for row in chosen])
        for name in ("peak", "scan", "output", "slab")
    }
    parts["rest"] = parts["peak"] - parts["scan"] - parts["output"] - parts["slab"]
    return {name: float(np.polyfit(slices, values, 1)[0]) for name, values in parts.items()}


def summary(measured: Sequence[Mapping[str, Any]]) -> str:
    """What the rows say, as sentences."""
    longest = max(int(row["shape"].split("x")[2]) for row in measured)
    whole = [row for row in measured if int(row["shape"].split("x")[2]) == longest]
    by_prompts = {int(row["prompts"]): row for row in whole}
    few, many, most = (by_prompts[n] for n in (FEW, MANY, MOST))
    engine, total = (float(many[c]) / float(few[c]) for c in ("engine_s", "total_s"))
    slopes = {name: f"{slope:.2f}" for name, slope in growth(measured).items()}
    return (
        f"{MOST} prompts on {most['shape']} voxels: {most['peak_gb']} GB at the peak.\n"
        f"{MANY} prompts take {engine:.2f} times as long as {FEW} in the engine, and {total:.2f} "
        "times from the file to all masks.\n"
        f"Per 100 slices the peak grows by {slopes['peak']} GB: the scan by {slopes['scan']}, the "
        f"output by {slopes['output']}, the slab by {slopes['slab']}, all else by "
        f"{slopes['rest']} GB.\n"
    )


def latest(record: Path, keys: Sequence[str]) -> list[dict[str, str]]:
    """The last row of a record for each combination of keys, in the order first seen."""
    with record.open(newline="", encoding="utf-8") as file:
        return list({tuple(row[k] for k in keys): row for row in csv.DictReader(file)}.values())


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
