"""What the scans and masks of data sets measure: grids, intensities, sizes of structures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.ndimage import find_objects

from textseg.datasets.cases import Case
from textseg.datasets.label_map import MAX_SHIFT_MM, LabelledCase, read_label_map
from textseg.datasets.label_space import LabelSpace
from textseg.errors import InputError, ModelError
from textseg.imaging import Geometry, Volume
from textseg.imaging.affine import closest_axes
from textseg.knowledge import KnowledgeTree

Sizes: TypeAlias = tuple[float, float, float]
"""One number per axis: to the right, to the front, to the head."""

SAMPLED_VOXELS = 10_000
"""Voxels of a case, at most, whose intensities count."""

_IMAGE_BYTES, _LABEL_BYTES = 4, 2  # float32 and int16, per voxel and channel


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(_Frozen):
    """How a number is spread over cases; percentiles are interpolated."""

    min: float
    p10: float
    median: float
    p90: float
    max: float


class Intensities(_Frozen):
    """Intensities inside labelled voxels, in the unit of the scans.

    Attributes:
        voxels: How many were drawn.
        mean: Mean.
        sd: Standard deviation.
        p0_5: Percentiles, this one and the next.
    """

    voxels: int
    mean: float
    sd: float
    p0_5: float
    p5: float
    p50: float
    p95: float
    p99_5: float


class ConceptFacts(_Frozen):
    """How often and how large a concept is.

    Attributes:
        known: Cases whose mask tells whether it is there.
        present: Cases with voxels of it; what follows is over these.
        volume_ml: Its volume; None where no case has it.
        extent_mm: Median extent of its bounding box per RAS axis; None where no case has it.
    """

    known: int
    present: int
    volume_ml: Spread | None
    extent_mm: Sizes | None


class Facts(_Frozen):
    """What a group of cases measures; axes run right, anterior, superior.

    Attributes:
        cases: Number of cases.
        images: Cases with a scan, not only a label map.
        modalities: Cases by modality and sequence ("" where none is named).
        channels: Cases by channel, of scans that have several.
        reports: Cases with a report.
        orientations: Cases by the axis order of their files.
        shape: Voxels per axis.
        spacing_mm: Voxel size per axis.
        field_of_view_mm: Shape times spacing.
        scanned_ml: All fields of view together.
        voxels: All voxels together.
        bytes: What they take in memory at their own grids, images as float32 and labels as int16.
        intensities: By modality, of the cases that have a scan; all channels together.
        concepts: Every concept with a label, and every union of those, by id.
    """

    cases: int
    images: int
    modalities: dict[str, dict[str, int]]
    channels: dict[str, int] = {}
    reports: int = 0
    orientations: dict[str, int]
    shape: tuple[Spread, Spread, Spread]
    spacing_mm: tuple[Spread, Spread, Spread]
    field_of_view_mm: tuple[Spread, Spread, Spread]
    scanned_ml: float
    voxels: int
    bytes: int
    intensities: dict[str, Intensities]
    concepts: dict[str, ConceptFacts]


class Fingerprint(_Frozen):
    """Facts of each data set, and of all together; ``model_dump_json`` writes what ``read`` reads.

    Attributes:
        datasets: By name of the data set.
        total: Over all cases.
    """

    datasets: dict[str, Facts]
    total: Facts

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """The fingerprint in a JSON file.

        Raises:
            ModelError: E406, the file cannot be read or holds something else.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            cause = error if isinstance(error, OSError) else error.errors()[0]["msg"]
            raise ModelError(
                f"is no fingerprint: {cause}.",
                code="E406",
                path=path,
                remedy="Make one with `textseg data fingerprint`.",
            ) from error


@dataclass(frozen=True, slots=True)
class _Measured:
    """What one case measures; ``sizes`` are None for concepts that are known to be absent."""

    case: Case
    orientation: str
    shape: tuple[int, int, int]
    spacing_mm: Sizes
    volume_ml: float
    sizes: dict[str, tuple[float, Sizes] | None]
    sample: NDArray[np.float32]


def fingerprint(
    cases: Sequence[Case],
    *,
    tree: KnowledgeTree,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Facts of labelled cases, which are all read once; the same for any number of workers.

    Args:
        cases: One or more, each with masks.
        tree: The tree that says which concepts add up to which.
        workers: Cases to read at a time; each is in memory as a whole.
        progress: Told the cases done and the cases to do.

    Raises:
        InputError: A scan or mask is damaged, or they do not share a grid (E321).
    """
    measure = partial(_measure_or_name, spaces=_label_spaces(cases, tree))
    measured = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for one in pool.map(measure, cases, range(len(cases))):
            measured.append(one)
            if progress is not None:
                progress(len(measured), len(cases))
    names = dict.fromkeys(case.dataset for case in cases)
    groups = {name: [one for one in measured if one.case.dataset == name] for name in names}
    return Fingerprint(
        datasets={name: _facts(group, tree) for name, group in groups.items()},
        total=_facts(measured, tree),
    )


def _label_spaces(cases: Iterable[Case], tree: KnowledgeTree) -> dict[str, LabelSpace]:
    """By data set, the concepts it labels and those that are a union of several of them."""
    spaces = {}
    for name, annotated in {case.dataset: case.annotated for case in cases}.items():
        held = set(annotated)
        known = (i for i in tree.ids if i in held or len(tree.leaves(i, held)) > 1)
        spaces[name] = LabelSpace(tuple(known), tree)
    return spaces


def _measure_or_name(case: Case, number: int, *, spaces: dict[str, LabelSpace]) -> _Measured:
    """What a case measures; an error says how to find all files of its kind."""
    try:
        return _measure(case, spaces[case.dataset], np.random.default_rng(number))
    except InputError as error:
        remedy = f"{error.remedy or ''} `textseg data check` lists every damaged file.".lstrip()
        raise InputError(error.cause, code=error.code, path=error.path, remedy=remedy) from error


def _measure(case: Case, space: LabelSpace, generator: np.random.Generator) -> _Measured:
    scan = case.read_image() if case.has_scan else None
    read = read_label_map(case, scan=None if scan is None else scan.geometry)
    geometry = read.labels.geometry
    if scan is not None and not geometry.matches(scan.geometry, tolerance_mm=MAX_SHIFT_MM):
        raise InputError(
            "does not lie on the grid of its scan.", code="E321", path=read.labels.path
        )
    axes, _ = closest_axes(geometry.affine)
    x, y, z = axes
    spacing, shape = geometry.spacing_mm, geometry.shape
    return _Measured(
        case=case,
        orientation=geometry.orientation,
        shape=(shape[x], shape[y], shape[z]),
        spacing_mm=(spacing[x], spacing[y], spacing[z]),
        volume_ml=prod(shape) * geometry.voxel_volume_ml,
        sizes=_concept_sizes(read, space, geometry, axes),
        sample=_sample(read, scan, generator),
    )


def _concept_sizes(
    read: LabelledCase, space: LabelSpace, geometry: Geometry, axes: tuple[int, int, int]
) -> dict[str, tuple[float, Sizes] | None]:
    """Volume in ml and extent per RAS axis in mm of each concept the mask speaks about."""
    values = np.maximum(read.labels.values, 0)
    counts = np.bincount(values.ravel())
    boxes: list[Any] = find_objects(values)
    sizes: dict[str, tuple[float, Sizes] | None] = {}
    for concept, members in space.values(read.case).items():
        sizes[concept] = None
        if members:
            x, y, z = (
                geometry.spacing_mm[axis]
                * (
                    max(boxes[value - 1][axis].stop for value in members)
                    - min(boxes[value - 1][axis].start for value in members)
                )
                for axis in axes
            )
            sizes[concept] = (
                int(counts[list(members)].sum()) * geometry.voxel_volume_ml,
                (x, y, z),
            )
    return sizes


def _sample(
    read: LabelledCase, scan: Volume | None, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Intensities of some voxels that belong to a concept; none of a label map alone."""
    if scan is None:
        return np.zeros(0, np.float32)
    labelled = np.isin(read.labels.values, list(read.case.labels))
    inside: NDArray[np.float32] = np.concatenate([channel[labelled] for channel in scan.data])
    if len(inside) <= SAMPLED_VOXELS:
        return inside
    drawn = generator.choice(len(inside), SAMPLED_VOXELS, replace=False, shuffle=False)
    return inside[drawn]


def _facts(group: Sequence[_Measured], tree: KnowledgeTree) -> Facts:
    voxels = sum(prod(one.shape) for one in group)
    views = [[n * mm for n, mm in zip(one.shape, one.spacing_mm, strict=True)] for one in group]
    modalities: dict[str, Counter[str]] = {}
    samples: dict[str, list[NDArray[np.float32]]] = {}
    for one in group:
        modalities.setdefault(one.case.modality, Counter())[one.case.sequence] += 1
        if len(one.sample):
            samples.setdefault(one.case.modality, []).append(one.sample)
    concepts = {concept for one in group for concept in one.sizes}
    return Facts(
        cases=len(group),
        images=sum(one.case.has_scan for one in group),
        modalities={name: dict(counts) for name, counts in modalities.items()},
        channels=dict(Counter(name for one in group for name in one.case.channels)),
        reports=sum(one.case.report is not None for one in group),
        orientations=dict(Counter(one.orientation for one in group).most_common()),
        shape=_spreads([one.shape for one in group]),
        spacing_mm=_spreads([one.spacing_mm for one in group]),
        field_of_view_mm=_spreads(views),
        scanned_ml=sum(one.volume_ml for one in group),
        voxels=voxels,
        bytes=sum(prod(one.shape) * _bytes_per_voxel(one.case) for one in group),
        intensities={name: _intensities(np.concatenate(parts)) for name, parts in samples.items()},
        concepts={concept: _concept(concept, group) for concept in tree.ids if concept in concepts},
    )


def _bytes_per_voxel(case: Case) -> int:
    return _IMAGE_BYTES * max(1, len(case.channels)) + _LABEL_BYTES


def _concept(concept: str, group: Sequence[_Measured]) -> ConceptFacts:
    told = [one.sizes[concept] for one in group if concept in one.sizes]
    there = [size for size in told if size is not None]
    if not there:
        return ConceptFacts(known=len(told), present=0, volume_ml=None, extent_mm=None)
    x, y, z = (float(mm) for mm in np.median([extent for _, extent in there], axis=0))
    return ConceptFacts(
        known=len(told),
        present=len(there),
        volume_ml=_spread([volume for volume, _ in there]),
        extent_mm=(x, y, z),
    )


def _spread(numbers: Sequence[float]) -> Spread:
    least, p10, median, p90, most = np.percentile(numbers, [0, 10, 50, 90, 100]).tolist()
    return Spread(min=least, p10=p10, median=median, p90=p90, max=most)


def _spreads(rows: Sequence[Sequence[float]]) -> tuple[Spread, Spread, Spread]:
    x, y, z = zip(*rows, strict=True)
    return _spread(x), _spread(y), _spread(z)


def _intensities(sample: NDArray[np.float32]) -> Intensities:
    values = sample.astype(np.float64)
    p0_5, p5, p50, p95, p99_5 = np.percentile(values, [0.5, 5, 50, 95, 99.5]).tolist()
    return Intensities(
        voxels=len(values),
        mean=float(values.mean()),
        sd=float(values.std()),
        p0_5=p0_5,
        p5=p5,
        p50=p50,
        p95=p95,
        p99_5=p99_5,
    )
