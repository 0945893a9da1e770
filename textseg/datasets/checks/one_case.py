"""Checks one case on its own: whether it can be read, fits together, and means what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from textseg.datasets.cases import Case
from textseg.datasets.checks.measures import measure
from textseg.datasets.checks.overlaps import check_overlaps
from textseg.datasets.checks.report import Finding, listed
from textseg.datasets.checks.sides import check_sides
from textseg.datasets.label_map import MAX_SHIFT_MM, LabelledCase, read_label_map
from textseg.datasets.masks import read_mask_volumes
from textseg.datasets.segments import read_segments
from textseg.errors import InputError, ModelError, ResourceError, TextsegError
from textseg.imaging.affine import largest_shift_mm
from textseg.imaging.volume import Geometry
from textseg.knowledge import KnowledgeTree

_ROUNDING_MM = 0.01
"""Shifts below come from storing the same affine in another way."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """One case after its check, with what is compared between cases.

    Attributes:
        findings: What is wrong with it.
        scan_sha256: Of the file of its scan; None for a folder, no scan, or an unreadable one.
        shown: Concepts with voxels; None where there is no mask, or an unreadable one.
    """

    findings: tuple[Finding, ...]
    scan_sha256: str | None = None
    shown: frozenset[str] | None = None


class _Scan(NamedTuple):
    """What is kept of a scan, without its voxels: the mask needs the memory."""

    path: Path
    geometry: Geometry
    warnings: tuple[str, ...]
    sha256: str | None


def check_case(case: Case, tree: KnowledgeTree) -> CheckedCase:
    """Reads the scan and the mask of a case and checks both.

    A file that cannot be read is a finding; any other exception names the case.
    """
    try:
        return _checked(case, tree)
    except Exception as error:
        error.add_note(f"This happened in the check of case {case.id!r}.")
        raise


def _checked(case: Case, tree: KnowledgeTree) -> CheckedCase:
    findings: list[Finding] = []
    scan = mask = None
    if case.has_scan:
        scan = _attempt(lambda: _read_scan(case), case, findings)
    if case.report is not None:
        _attempt(case.read_report, case, findings)
    if case.masks:
        place = scan and scan.geometry
        mask = _attempt(lambda: read_label_map(case, scan=place), case, findings)
    if scan is not None:
        findings += _scan_findings(case, scan)
    if mask is not None:
        findings += _mask_findings(case, mask, tree)
    if scan is not None and mask is not None:
        findings += _grid_findings(case, scan, mask)
    return CheckedCase(
        # a mask that needs its scan fails by the same error as the scan itself
        findings=tuple(dict.fromkeys(findings)),
        scan_sha256=scan and scan.sha256,
        shown=mask and frozenset(mask.case.concepts),
    )


def _attempt(read: Callable[[], Result], case: Case, findings: list[Finding]) -> Result | None:
    """What is read, or None and a finding; that the user stops the command is no finding."""
    try:
        return read()
    except (InputError, ModelError, ResourceError) as error:
        findings.append(_unreadable(case, error))
        return None


def _unreadable(case: Case, error: TextsegError) -> Finding:
    remedy = f" {error.remedy}" if error.remedy else ""
    message = f"{error.cause}{remedy} ({error.code})"
    return Finding("error", error.name, case.id, error.path, message)


def _read_scan(case: Case) -> _Scan:
    volume = case.read_image()
    return _Scan(case.scan_files[0], volume.geometry, volume.warnings, volume.source.sha256)


def _scan_findings(case: Case, scan: _Scan) -> Iterator[Finding]:
    """What the reader accepted with a warning."""
    for warning in scan.warnings:
        if "NaN or infinite" in warning:
            message = f"{warning}. Give them a value, or export the scan again."
            yield Finding("error", "non-finite-voxels", case.id, scan.path, message)
        elif "Hounsfield" in warning:
            message = f"{warning}. Were the values rescaled, or is it no CT?"
            yield Finding("warning", "not-hounsfield", case.id, scan.path, message)
        else:
            yield Finding("warning", "odd-scan", case.id, scan.path, f"{warning}.")


def _mask_findings(case: Case, mask: LabelledCase, tree: KnowledgeTree) -> Iterator[Finding]:
    """What is odd about a mask on its own."""
    seen, labels = mask
    if unknown := _unknown_keys(case, mask):
        message = (
            f"holds {listed(unknown)}, of which the labels of this case say nothing. Add them to "
            f"the labels of {case.dataset} (null if they name no structure), or correct the mask."
        )
        yield Finding("error", "unknown-label", case.id, labels.path, message)
    if not seen.labels:
        message = "has no voxel of any structure. Is that so, or was the wrong file exported?"
        yield Finding("warning", "empty-mask", case.id, labels.path, message)
    measures = measure(mask)
    yield from check_sides(measures.centroids, tree, case=case.id, file=labels.path)
    yield from check_overlaps(case, seen, measures.num_voxels, tree=tree, file=labels.path)


def _unknown_keys(case: Case, mask: LabelledCase) -> list[Any]:
    """What the mask holds and the labels do not mention, not even as nothing."""
    seen, labels = mask
    held: set[Any] = set()
    if case.holds == "values":
        negative = np.unique(labels.values[labels.values < 0]).tolist()
        held = {*seen.labels, *seen.unnamed, *negative}
    # the map of several masks has values of its own; their keys have to be read again
    elif case.holds == "channels":
        volumes, _ = read_mask_volumes(labels.path)
        held = {number for number, volume in enumerate(volumes, start=1) if (volume > 0).any()}
    elif case.holds == "segments":
        segments = read_segments(labels.path, labels.geometry)
        held = {name for name, segment in segments.items() if segment.any()}
    return sorted(held - {*case.labels, *case.unnamed})


def _grid_findings(case: Case, scan: _Scan, mask: LabelledCase) -> Iterator[Finding]:
    """Whether the mask lies where its scan lies."""
    path, place = mask.labels.path, mask.labels.geometry
    if place.shape != scan.geometry.shape:
        sizes = [" x ".join(map(str, grid.shape)) for grid in (place, scan.geometry)]
        message = f"has {sizes[0]} voxels, its scan {sizes[1]}. Resample it onto the scan."
        yield Finding("error", "geometry-mismatch", case.id, path, message)
        return
    shift_mm = largest_shift_mm(place.affine, scan.geometry.affine, place.shape)
    if shift_mm > MAX_SHIFT_MM:
        message = (
            f"lies up to {shift_mm:.3g} mm from its scan ({place.orientation} and "
            f"{scan.geometry.orientation}). Resample it onto the scan, or correct the header that "
            "is wrong."
        )
        yield Finding("error", "geometry-mismatch", case.id, path, message)
    elif shift_mm > _ROUNDING_MM:
        message = (
            f"lies up to {shift_mm:.2g} mm from its scan, which counts as the same grid. Copy the "
            "affine of the scan to be sure."
        )
        yield Finding("warning", "shifted-grid", case.id, path, message)
