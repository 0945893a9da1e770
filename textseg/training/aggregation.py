"""Means over the rows of an evaluation, each with the interval that resampled scans give it.

Means are taken as in Zhao et al. (2023, SAT): over the scans of a data set to one figure for each
class, over data sets to one for each class of a modality, and over classes to regions and to the
whole; lesions are a region of their own. Unlike there, a structure that the reference does not hold
is counted beside the means, not as a perfect score in them.

Intervals are percentile bootstraps. What is drawn again is the scan with all its rows, since the
structures of one scan are not independent, and it is drawn within its data set, since data sets are
chosen and not sampled. A data set with one scan therefore adds nothing to the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from textseg.training.evaluation import EvaluationRow, Metric

__all__ = [
    "FEW_SCANS",
    "LEVEL",
    "Group",
    "Interval",
    "Means",
    "Summary",
    "auroc",
    "compare_groups",
    "mean_with_interval",
    "summarise",
]

Figures: TypeAlias = NDArray[np.float64]
Key: TypeAlias = tuple[str, ...]
Scan: TypeAlias = tuple[str, str]  # what it is drawn within, and its case

_METRICS: tuple[Metric, ...] = get_args(Metric)

LEVEL = 0.95
"""Share of the resampled means that an interval holds."""
FEW_SCANS = 5
"""Groups with fewer scans have no interval: resampling three scans says little of a fourth."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it may lie.

    Attributes:
        mean: None if there is nothing to average.
        low: Lower end; None without resampling, or where no two scans tell of the spread.
        high: Upper end, likewise.
        count: Values that were averaged.
        left_out: Values that were not, being unknown or infinite.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Means:
    """The figures of one class, data set or region, over structures that the reference holds.

    Attributes:
        name: Of the class (as the structure was first called), data set or region.
        classes: Pairs of modality and concept that were averaged.
        scans: Scans that hold at least one of them.
        absent: Structures that the reference does not hold, counted for each scan.
        absent_correct: Those of them for which the prediction is empty as well.
        presence_auroc: How well the presence score tells present from absent structures; None
            where either is missing.
        concept, modality, region: Of a class.
    """

    name: str
    classes: int
    scans: int
    dice: Interval
    nsd: Interval
    hd95_mm: Interval
    absent: int
    absent_correct: int
    presence_auroc: float | None
    concept: str | None = None
    modality: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class Summary:
    """Means of every class, data set and region, and of all classes."""

    concepts: tuple[Means, ...]
    datasets: tuple[Means, ...]
    regions: tuple[Means, ...]
    overall: Means


@dataclass(frozen=True, slots=True)
class Group:
    """The scans that share a value, such as those of one scanner; each scan counts once.

    Attributes:
        column: What they were grouped by.
        value: What they share, or empty where the table has nothing.
        scans: How many they are.
        is_small: They are fewer than ``FEW_SCANS``, so no interval is given.
        dice, nsd: Mean over scans of a scan's mean over its structures.
        dice_difference: ``dice`` less that of all other scans; no interval if those are few, no
            mean if there are none.
    """

    column: str
    value: str
    scans: int
    is_small: bool
    dice: Interval
    nsd: Interval
    dice_difference: Interval


def mean_with_interval(
    values: Iterable[tuple[str, float | None]],
    *,
    generator: np.random.Generator,
    samples: int = 1000,
    level: float = LEVEL,
) -> Interval:
    """Mean of all values, with the interval that scans drawn with replacement give it.

    Args:
        values: Pairs of a case and a value; a case may have several, which are drawn together.
            What is None, NaN or infinite is left out and counted.
        generator: Source of the draws.
        samples: How often scans are drawn; 0 gives no interval.
        level: Share of the resampled means that the interval holds.

    >>> values = [("a", 1.0), ("b", 0.5), ("c", None)]
    >>> mean_with_interval(values, generator=np.random.default_rng(0), samples=0)
    Interval(mean=0.75, low=None, high=None, count=2, left_out=1)
    """
    given = list(values)
    known = [
        (("", case), value) for case, value in given if value is not None and math.isfinite(value)
    ]
    means = _stratum_means(known, generator=generator, samples=samples)
    scans = [scan for scan, _ in known]
    return _interval(means.get(("",)), scans, left_out=len(given) - len(known), level=level)


def summarise(
    rows: Sequence[EvaluationRow], *, generator: np.random.Generator, samples: int = 1000
) -> Summary:
    """Means of each class, data set and region and over all classes, as the module describes them.

    Args:
        rows: One for each structure of each scan.
        generator: Source of the draws; all means are of the same drawn scans.
        samples: How often scans are drawn; 0 gives no intervals.
    """
    scans = list(dict.fromkeys(map(_scan, rows)))
    draws = _draws(scans, generator=generator, samples=samples)
    series = {metric: _hierarchy(rows, metric, scans=scans, draws=draws) for metric in _METRICS}
    members: dict[Key, list[EvaluationRow]] = {}
    for row in rows:
        for key in _keys(row):
            members.setdefault(key, []).append(row)
    means = {
        key: _means(key, group, {metric: series[metric].get(key) for metric in _METRICS})
        for key, group in members.items()
    }
    return Summary(
        concepts=tuple(entry for key, entry in means.items() if key[0] == "concept"),
        datasets=tuple(entry for key, entry in means.items() if key[0] == "dataset"),
        regions=tuple(entry for key, entry in means.items() if key[0] == "region"),
        overall=means["overall",],
    )


def compare_groups(
    rows: Sequence[EvaluationRow],
    column: str,
    *,
    values: Mapping[str, str],
    generator: np.random.Generator,
    samples: int = 1000,
) -> tuple[Group, ...]:
    """Each group of scans against all others, in the order of their values.

    Args:
        rows: One for each structure of each scan.
        column: What the scans are grouped by.
        values: What each case has in that column.
        generator: Source of the draws.
        samples: How often scans are drawn; 0 gives no intervals.
    """
    dice, nsd = (_scan_means(rows, metric) for metric in ("dice", "nsd"))
    groups = []
    for value in sorted({values[case] for case in dice}):
        inside = {case: mean for case, mean in dice.items() if values[case] == value}
        outside = {case: mean for case, mean in dice.items() if values[case] != value}
        is_small = len(inside) < FEW_SCANS
        drawn = 0 if is_small else samples
        compared = drawn if len(outside) >= FEW_SCANS else 0
        mean = partial(mean_with_interval, generator=generator, samples=drawn)
        groups.append(
            Group(
                column=column,
                value=value,
                scans=len(inside),
                is_small=is_small,
                dice=mean(inside.items()),
                nsd=mean((case, nsd[case]) for case in inside),
                dice_difference=_difference(inside, outside, generator=generator, samples=compared),
            )
        )
    return tuple(groups)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Probability that a positive scores above a negative, ties counting half.

    >>> auroc([0.9, 0.6], [0.1, 0.6])
    0.875
    """
    ordered = np.sort(negative)
    below, not_above = (np.searchsorted(ordered, positive, side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / len(ordered))


def _keys(row: EvaluationRow) -> tuple[Key, ...]:
    """Every class, data set and region that a row belongs to."""
    concept = ("concept", row.modality, row.concept, row.region)
    return concept, ("dataset", row.dataset), ("region", row.region), ("overall",)


def _scan(row: EvaluationRow) -> Scan:
    return row.dataset, row.case


def _hierarchy(
    rows: Iterable[EvaluationRow], metric: Metric, *, scans: Sequence[Scan], draws: Figures
) -> dict[Key, Figures]:
    """The mean of each key in every sample, from means over scans upwards."""
    values = [
        (_scan(row), (row.dataset, *_keys(row)[0][1:]), getattr(row, metric))
        for row in rows
        if row.is_present and math.isfinite(getattr(row, metric))
    ]
    cells = _cell_means(values, scans, draws=draws)
    classes = _averaged(cells, lambda cell: ("concept", *cell[1:]))
    datasets = _averaged(cells, lambda cell: ("dataset", cell[0]))
    regions = _averaged(classes, lambda key: ("region", key[3]))
    return {**classes, **datasets, **regions, **_averaged(classes, lambda _: ("overall",))}


def _means(
    key: Key, rows: Sequence[EvaluationRow], series: Mapping[Metric, Figures | None]
) -> Means:
    """The entry of one key, from its rows and its mean in every sample."""
    present = [row for row in rows if row.is_present]
    absent = [row for row in rows if not row.is_present]
    scores = [[r.presence for r in side if r.presence is not None] for side in (present, absent)]
    level, *names = key
    is_class = level == "concept"
    modality, concept, region = names if is_class else (None, None, None)
    return Means(
        name=rows[0].structure if is_class else names[0] if names else level,
        classes=len({(row.modality, row.concept) for row in present}),
        scans=len(set(map(_scan, present))),
        dice=_metric_interval(series["dice"], present, "dice"),
        nsd=_metric_interval(series["nsd"], present, "nsd"),
        hd95_mm=_metric_interval(series["hd95_mm"], present, "hd95_mm"),
        absent=len(absent),
        absent_correct=sum(not row.volume_pred_ml for row in absent),
        presence_auroc=auroc(*scores) if all(scores) else None,
        concept=concept,
        modality=modality,
        region=region,
    )


def _metric_interval(
    series: Figures | None, rows: Sequence[EvaluationRow], metric: Metric
) -> Interval:
    known = [_scan(row) for row in rows if math.isfinite(getattr(row, metric))]
    return _interval(series, known, left_out=len(rows) - len(known))


def _interval(
    series: Figures | None, scans: Sequence[Scan], *, left_out: int, level: float = LEVEL
) -> Interval:
    """The interval of a series, the mean of these scans' values and then that of each sample."""
    if series is None:
        return Interval(None, None, None, 0, left_out)
    mean, count = float(series[0]), len(scans)
    # a sample may hold no scan with this structure
    resampled = series[1:][np.isfinite(series[1:])]
    # with no more scans than data sets, each data set has one, and every sample is the same
    has_spread = len(set(scans)) > len({dataset for dataset, _ in scans})
    if not has_spread or not len(resampled):
        return Interval(mean, None, None, count, left_out)
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), count, left_out)


def _scan_means(rows: Sequence[EvaluationRow], metric: Metric) -> dict[str, float | None]:
    """Mean of each scan over the structures its reference holds; None if there are none."""
    figures: dict[str, list[float]] = {row.case: [] for row in rows}
    for row in rows:
        if row.is_present:
            figures[row.case].append(getattr(row, metric))
    return {case: sum(known) / len(known) if known else None for case, known in figures.items()}


def _difference(
    first: Mapping[str, float | None],
    second: Mapping[str, float | None],
    *,
    generator: np.random.Generator,
    samples: int,
) -> Interval:
    """Mean of the first scans less that of the second, each drawn from its own."""
    known = [
        ((side, case), value)
        for side, scans in (("first", first), ("second", second))
        for case, value in scans.items()
        if value is not None
    ]
    means = _stratum_means(known, generator=generator, samples=samples)
    difference = means["first",] - means["second",] if len(means) == 2 else None
    return _interval(difference, [scan for scan, _ in known], left_out=0)


def _stratum_means(
    values: Sequence[tuple[Scan, float]], *, generator: np.random.Generator, samples: int
) -> dict[Key, Figures]:
    """The mean of each stratum's values, and then its mean in every sample."""
    scans = list(dict.fromkeys(scan for scan, _ in values))
    draws = _draws(scans, generator=generator, samples=samples)
    return _cell_means([(scan, scan[:1], value) for scan, value in values], scans, draws=draws)


def _draws(scans: Sequence[Scan], *, generator: np.random.Generator, samples: int) -> Figures:
    """How often each scan is in a sample; scans are drawn within their stratum, S N.

    The first row is one throughout, so what is computed from it is the figure itself.
    """
    draws = np.ones((1 + samples, len(scans)))
    for stratum in dict.fromkeys(stratum for stratum, _ in scans):
        members = [index for index, scan in enumerate(scans) if scan[0] == stratum]
        even = np.full(len(members), 1 / len(members))
        draws[1:, members] = generator.multinomial(len(members), even, size=samples)
    return draws


def _cell_means(
    values: Sequence[tuple[Scan, Key, float]], scans: Sequence[Scan], *, draws: Figures
) -> dict[Key, Figures]:
    """Mean of each cell in every sample, from triples of a scan, a cell and a value."""
    place = {scan: index for index, scan in enumerate(scans)}
    cells = {key: index for index, key in enumerate(dict.fromkeys(key for _, key, _ in values))}
    sums, counts = np.zeros((2, len(scans), len(cells)))
    for scan, key, value in values:
        sums[place[scan], cells[key]] += value
        counts[place[scan], cells[key]] += 1
    means = _ratio(draws @ sums, draws @ counts)
    return {key: means[:, index] for key, index in cells.items()}


def _averaged(series: Mapping[Key, Figures], onto: Callable[[Key], Key]) -> dict[Key, Figures]:
    """Mean over all series that a function sends to the same key, where they are known."""
    members: dict[Key, list[Figures]] = {}
    for key, figures in series.items():
        members.setdefault(onto(key), []).append(figures)
    means = {}
    for key, group in members.items():
        stack = np.stack(group)
        known = np.isfinite(stack)
        means[key] = _ratio(np.where(known, stack, 0).sum(0), known.sum(0, dtype=np.float64))
    return means


def _ratio(sums: Figures, counts: Figures) -> Figures:
    """Means, NaN where nothing was counted."""
    with np.errstate(invalid="ignore"):
        means: Figures = sums / counts
    return means
