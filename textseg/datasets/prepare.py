"""Makes a data set ready for training: read, checked, on its working grid, cut to the body, stored.

What a case becomes lies in a folder named after the content of its files and the settings, so that
a second run makes only what is missing or damaged, and equal cases are stored once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from textseg.atomic import file_sha256, write_atomically, write_json
from textseg.datasets.cases import SPECS_FOLDER, Case
from textseg.datasets.label_map import read_pair, sample_voxels
from textseg.datasets.masks import on_grid
from textseg.datasets.spec import DatasetSpec
from textseg.datasets.store import SUFFIX, write_array
from textseg.errors import ResourceError
from textseg.imaging import (
    Geometry,
    Grid,
    Volume,
    body_mask,
    intensity_scale,
    plan_grid,
    ras_spacing_mm,
    to_grid,
)
from textseg.imaging.labels import Labels
from textseg.reports.given import FEATURES_SUFFIX, GivenReport

logger = logging.getLogger(__name__)

LIST_NAME, ENTRY_NAME = "cases.json", "case.json"
_FORMAT = 1
_MARGIN_VOXELS = 4
_RESERVE = 1 << 30
_PROBED = 4
Progress = Callable[[int, int], None]
Part = tuple[slice, slice, slice]


@dataclass(frozen=True)
class PrepareConfig:
    """How scans are prepared.

    Attributes:
        spacing_mm: Voxel size along X Y Z of RAS; None keeps each scan's own.
        crop: Leave out what lies outside the body and all structures.
    """

    spacing_mm: tuple[float, float, float] | None = None
    crop: bool = True


@dataclass(frozen=True)
class Prepared:
    """What a run left behind.

    Attributes:
        cases: Number of cases in the list, those of other data sets included.
        made: How many of them this run made; the others were there.
        num_bytes: Size of all of them.
        path: The case list.
    """

    cases: int
    made: int
    num_bytes: int
    path: Path


def prepare(
    cases: Sequence[Case],
    out: Path,
    *,
    specs: Sequence[DatasetSpec],
    config: PrepareConfig,
    workers: int = 0,
    progress: Progress | None = None,
) -> Prepared:
    """Prepares cases into a folder and writes their list last.

    Cases of other data sets that were prepared into the same folder stay in the list.

    Args:
        cases: Cases with masks, with or without a scan.
        out: Folder to write into; prepared cases in it are used again.
        specs: The data sets of the cases, which go along with the list.
        config: How to prepare them.
        workers: Processes; 0 works in this one.
        progress: Called with cases done and cases to do.

    Raises:
        InputError: A case is damaged, or its mask does not lie on its scan (E321).
        ResourceError: E502, the cases will not fit on the disk, going by the first few.
    """
    out.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    made = 0
    for entry, fresh in _prepared(cases, out, config, workers):
        entries.append(entry)
        made += fresh
        if progress is not None:
            progress(len(entries), len(cases))
        _check_room(entries, len(cases), out)
    (out / SPECS_FOLDER).mkdir(exist_ok=True)
    for spec in specs:
        _write_spec(spec, out / SPECS_FOLDER)
    entries = _joined(out / LIST_NAME, entries)
    write_json(out / LIST_NAME, entries, overwrite=True)
    return Prepared(len(entries), made, sum(entry["bytes"] for entry in entries), out / LIST_NAME)


def _joined(path: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with those of other data sets that were prepared into the folder before.

    A case that is called like another data set's gets its data set's name before its own.
    """
    mine = {entry["dataset"] for entry in entries}
    listed = json.loads(path.read_bytes()) if path.exists() else []
    others = [entry for entry in listed if entry["dataset"] not in mine]
    taken = {entry["id"] for entry in others}
    if any(entry["id"] in taken for entry in entries):
        entries = [{**entry, "id": f"{entry['dataset']}-{entry['id']}"} for entry in entries]
    return sorted(others + entries, key=lambda entry: str(entry["dataset"]))


def _write_spec(spec: DatasetSpec, folder: Path) -> None:
    text = yaml.safe_dump(spec.model_dump(), sort_keys=False, allow_unicode=True)

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    write_atomically(folder / f"{spec.name}.yaml", write, overwrite=True)


def _prepared(
    cases: Sequence[Case], out: Path, config: PrepareConfig, workers: int
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Each case's entry, in order, and whether it was made now."""
    if workers == 0:
        for case in cases:
            yield prepare_case(case, out, config)
        return
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pending = [pool.submit(prepare_case, case, out, config) for case in cases]
        try:
            for future in pending:
                yield future.result()
        finally:
            for future in pending:
                future.cancel()


def prepare_case(case: Case, out: Path, config: PrepareConfig) -> tuple[dict[str, Any], bool]:
    """The entry of a case in the list, and whether it was made now."""
    key = _content_key(case, config)
    folder = out / key
    if (entry := _sound_entry(folder)) is not None:
        return {**entry, "id": case.id, "split": case.split}, False
    partial = out / f".{key}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    entry = _make(case, partial, config, name=key)
    write_json(partial / ENTRY_NAME, entry)
    partial.rename(folder)
    return entry, True


def _make(case: Case, folder: Path, config: PrepareConfig, *, name: str) -> dict[str, Any]:
    """Writes the arrays of a case, and its report."""
    scan, (seen, labels) = read_pair(case)
    images, values, geometry = _on_working_grid(scan, labels, config)
    label = folder / f"labels{SUFFIX}"
    spots = {str(v): places.tolist() for v, places in sample_voxels(values).items() if v}
    smallest = np.uint8 if values.max() < 256 else np.uint16 if values.max() < 65536 else np.int32
    write_array(label, values.astype(smallest), geometry, spots=spots)
    channels = {channel: folder / f"image_{channel}{SUFFIX}" for channel in case.channels}
    scans = list(channels.values()) or [folder / f"image{SUFFIX}"][: len(images)]
    for path, image in zip(scans, images, strict=True):
        scale = intensity_scale(torch.from_numpy(image), case.modality)
        write_array(path, image, geometry, scale=asdict(scale))
    reports = {key: _write_report(given, folder / key) for key, given in _reports(case).items()}
    files = [label, *scans, *reports.values()]
    entry = {
        "id": case.id,
        "dataset": case.dataset,
        "split": case.split,
        "modality": f"{case.modality.upper()}-{case.sequence}".rstrip("-"),
        "image": f"{name}/{scans[0].name}" if scans and not channels else None,
        "label": f"{name}/{label.name}",
        "concepts": {str(value): list(concepts) for value, concepts in seen.labels.items()},
        "unnamed_values": list(seen.unnamed),
        "shape": list(geometry.shape),
        "spacing": [round(step, 6) for step in geometry.spacing_mm],
        "licence": case.licence,
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": {path.name: file_sha256(path) for path in files},
    }
    if channels:
        entry["channels"] = {channel: f"{name}/{path.name}" for channel, path in channels.items()}
    entry |= {key: f"{name}/{path.name}" for key, path in reports.items()}
    return entry | ({"group": case.group} if case.group else {})


def _reports(case: Case) -> dict[str, GivenReport]:
    """The reports that come with a case, by what the list calls them."""
    reports = {"report": case.report, "swapped_report": case.swapped_report}
    return {key: GivenReport.of(given) for key, given in reports.items() if given is not None}


def _write_report(report: GivenReport, stem: Path) -> Path:
    """The file of a report, or of its features."""
    if report.features is None:
        path = stem.with_suffix(".txt")
        path.write_text(report.text, encoding="utf-8")
    else:
        path = stem.with_suffix(FEATURES_SUFFIX)
        shutil.copyfile(report.features, path)
    return path


def _on_working_grid(
    scan: Volume | None, labels: Labels, config: PrepareConfig
) -> tuple[list[NDArray[np.float32]], NDArray[np.int32], Geometry]:
    """Channels of the scan and mask in RAS order on the working grid, cut to the body."""
    grid = Grid(config.spacing_mm or ras_spacing_mm(labels.geometry))
    if scan is None:
        target = plan_grid(labels.geometry, grid).target
        values = on_grid(labels, target).values
        part = _box(values > 0) if config.crop else _whole(target)
        return [], np.ascontiguousarray(values[part]), _cut(target, part)
    data, transform = to_grid(scan, grid)
    values = on_grid(labels, transform.target).values
    part = _whole(transform.target)
    if config.crop:
        part = _box(body_mask(data, scan.modality).numpy() | (values > 0))
    images = [np.ascontiguousarray(channel[part]) for channel in data.numpy()]
    return images, np.ascontiguousarray(values[part]), _cut(transform.target, part)


def _whole(geometry: Geometry) -> Part:
    x, y, z = (slice(0, size) for size in geometry.shape)
    return x, y, z


def _box(kept: NDArray[np.bool_]) -> Part:
    """The box around what is kept, with a margin; everything if that is nothing."""
    bounds = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        places = np.flatnonzero(kept.any(axis=others))
        first, last = (places[0], places[-1]) if len(places) else (0, kept.shape[axis])
        bounds.append(slice(max(0, int(first) - _MARGIN_VOXELS), int(last) + 1 + _MARGIN_VOXELS))
    x, y, z = bounds
    return x, y, z


def _cut(geometry: Geometry, part: Part) -> Geometry:
    """Where a part of a grid lies."""
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.to_world(np.array([[one.start for one in part]]))[0]
    x, y, z = (
        min(one.stop, size) - one.start for one, size in zip(part, geometry.shape, strict=True)
    )
    return Geometry((x, y, z), affine)


def _content_key(case: Case, config: PrepareConfig) -> str:
    """A name that changes with the content of the files and with everything done to them."""
    files = (*case.scan_files, *case.masks.values())
    content: dict[str, Any] = {
        "format": _FORMAT,
        "config": asdict(config),
        "files": [_digest(path) for path in files],
        "volume": [case.volume_index, case.series, case.own_grid, case.head_first],
        "masks": [case.holds, *case.masks],
        "labels": sorted((str(key), list(ids)) for key, ids in case.labels.items()),
        "modality": case.modality,
    }
    # of cases without these, what an earlier version prepared is used again
    if case.channels:
        content["channels"] = list(case.channels)
    content |= {key: report.sha256 for key, report in _reports(case).items()}
    if case.group:
        content["group"] = case.group
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder."""
    if path.is_file():
        return file_sha256(path)
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(map(file_sha256, inside)).encode()).hexdigest()


def _sound_entry(folder: Path) -> dict[str, Any] | None:
    """The entry of a case prepared earlier; None if it is not there or its files have changed."""
    try:
        entry: dict[str, Any] = json.loads((folder / ENTRY_NAME).read_bytes())
        if all(file_sha256(folder / name) == known for name, known in entry["sha256"].items()):
            return entry
        logger.warning("%s was damaged and is made again", folder)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError) as error:
        logger.warning("%s was damaged and is made again (%s)", folder, error)
    return None


def _check_room(entries: Sequence[dict[str, Any]], total: int, out: Path) -> None:
    """Stops after the first few cases if the rest will not fit."""
    if not entries or len(entries) != min(total, _PROBED):
        return
    left = (total - len(entries)) * max(entry["bytes"] for entry in entries)
    free = shutil.disk_usage(out).free - _RESERVE
    logger.info("about %.1f GB to go, %.1f GB free", left / 1e9, free / 1e9)
    if left > free:
        raise ResourceError(
            f"{total - len(entries)} more cases need up to {left / 1e9:.1f} GB, and "
            f"{max(0, free) / 1e9:.1f} GB are free.",
            code="E502",
            path=out,
            remedy="Choose a coarser --spacing or another disk; what is prepared is kept.",
        )
