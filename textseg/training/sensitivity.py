"""How much a model's masks depend on the report: the same scans, asked with other reports.

A report is swapped for one that says something else, dropped, shuffled (its sentences in another
order) and negated (each finding denied). A model that reads it loses Dice with the swapped one and
hardly any with the shuffled one; one that ignores it answers all alike. Masks with the right and
another report are compared as well, which needs no reference.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textseg.datasets import Case, LabelSpace
from textseg.datasets.label_map import read_label_map, read_pair
from textseg.errors import ModelError
from textseg.imaging import Modality
from textseg.network.weights import ModelManifest
from textseg.outputs.segmentation import Segmentation
from textseg.reports import join_sentences, negate, shuffle_sentences, split_sentences
from textseg.training.aggregation import FEW_SCANS, mean_with_interval
from textseg.training.metrics import dice
from textseg.training.scores import Resolver, prompt_for
from textseg.training.sensitivity_report import (
    CHANGES,
    EVERYTHING,
    RIGHT,
    CaseSensitivity,
    Change,
    Effect,
    GroupSensitivity,
    SensitivityReport,
)

Report: TypeAlias = str | Path
Reports: TypeAlias = Mapping[Change, Report | None]
Masks: TypeAlias = Mapping[str, NDArray[np.bool_]]


class ReportedSegmenter(Resolver, Protocol):
    """The part of ``textseg.Segmenter`` that asking with reports needs."""

    manifest: ModelManifest

    def __call__(
        self,
        scan: Any,
        prompts: str | Sequence[str],
        *,
        report: str | PathLike[str] | None,
        modality: Modality,
    ) -> Segmentation:
        """The answer to each prompt."""


def text_sensitivity(
    segmenter: ReportedSegmenter,
    cases: Sequence[Case],
    *,
    generator: np.random.Generator,
    prompts: Sequence[str] | None = None,
    limit: int | None = None,
    samples: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> SensitivityReport:
    """What a model makes of the reports of some cases.

    Args:
        segmenter: A model that reads reports.
        cases: Those with a scan, a mask and a report are asked about.
        generator: Source of the orders of sentences and of the resampled scans.
        prompts: Ids of the concepts to ask for, where the reference holds them; all that the model
            can segment if left out.
        limit: How many cases at most; see ``reported_cases``.
        samples: How often scans are drawn for the intervals; 0 gives none.
        progress: Called with cases done and cases to do.

    Raises:
        ModelError: The model reads no reports (E400), or no case has a report and a structure that
            the model segments (E404).
        InputError: A file of a case cannot be used.
    """
    manifest = segmenter.manifest
    if not manifest.reads_reports:
        raise ModelError(
            f"the model {manifest.name} does not read reports.",
            remedy="Give a model that was trained with them.",
        )
    offered = prompts or [concept for domain in manifest.domains for concept in domain.concepts]
    space = LabelSpace(tuple(dict.fromkeys(offered)), segmenter.tree)
    usable = reported_cases(cases, limit=limit)
    swapped = _swapped_reports(usable, space)
    measured = []
    for done, case in enumerate(usable, start=1):
        reports = _changed_reports(case, swapped[case.id], generator)
        found = _measure(segmenter, case, space, reports)
        measured += [] if found is None else [found]
        if progress is not None:
            progress(done, len(usable))
    if not measured:
        raise ModelError(
            f"none of {len(cases)} cases has a report and a structure that {manifest.name} "
            "segments.",
            code="E404",
            remedy="Give cases with a scan, a mask and a report each.",
        )
    return SensitivityReport(
        model=manifest.name,
        version=manifest.version,
        sha256=manifest.sha256,
        samples=samples,
        groups=_groups(measured, generator=generator, samples=samples),
        cases=tuple(measured),
    )


def reported_cases(cases: Sequence[Case], *, limit: int | None = None) -> list[Case]:
    """Cases with a scan, a mask and a report, in their order.

    Args:
        cases: Cases to choose from.
        limit: How many at most; of each group of each data set about as many.
    """
    usable = [case for case in cases if case.has_scan and case.masks and case.report is not None]
    met: Counter[tuple[str, str]] = Counter()
    ranks = []
    for place, case in enumerate(usable):
        group = case.dataset, case.group
        ranks.append((met[group], place))
        met[group] += 1
    kept = sorted(place for _, place in sorted(ranks)[:limit])
    return [usable[place] for place in kept]


def _measure(
    segmenter: ReportedSegmenter, case: Case, space: LabelSpace, reports: Reports
) -> CaseSensitivity | None:
    """The figures of a case; None if its reference holds nothing of the space."""
    scan, (seen, labels) = read_pair(case)
    reference = {
        prompt_for(segmenter, concept): np.isin(labels.values, values)
        for concept, values in space.values(seen).items()
        if values and np.isin(labels.values, values).any()
    }
    if not reference:
        return None

    def masks(report: Report | None) -> Masks:
        result = segmenter(scan, list(reference), report=report, modality=case.modality)
        return {prompt: result[prompt].mask for prompt in reference}

    right = masks(case.report)
    scores, changed = {RIGHT: _mean_dice(right, reference)}, {}
    for change, report in reports.items():
        answer = masks(report)
        scores[change] = _mean_dice(answer, reference)
        changed[change] = 1 - _mean_dice(answer, right)
    return CaseSensitivity(
        id=case.id,
        dataset=case.dataset,
        group=case.group,
        prompts=len(reference),
        dice={name: round(score, 4) for name, score in scores.items()},
        changed={name: round(share, 4) for name, share in changed.items()},
    )


def _mean_dice(masks: Masks, others: Masks) -> float:
    return float(np.mean([dice(mask, others[prompt]) for prompt, mask in masks.items()]))


def _changed_reports(case: Case, swapped: Report | None, generator: np.random.Generator) -> Reports:
    """What to say in place of a case's report; of one known by its features alone, less."""
    reports: dict[Change, Report | None] = {} if swapped is None else {"swapped": swapped}
    reports["dropped"] = None
    report = case.read_report()
    if report is None or report.features is not None:
        return reports
    shuffled = _shuffled(report.text, random.Random(int(generator.integers(2**32))))
    if shuffled is not None:
        reports["shuffled"] = shuffled
    denied = negate(report.text)
    if denied != join_sentences(split_sentences(report.text)):
        reports["negated"] = denied
    return reports


def _shuffled(text: str, generator: random.Random) -> str | None:
    """The sentences in an order that is not their own; None if they have no other."""
    sentences = split_sentences(text)
    if len(set(sentences)) < 2:
        return None
    own = other = join_sentences(sentences)
    while other == own:
        other = shuffle_sentences(text, generator)
    return other


def _swapped_reports(cases: Sequence[Case], space: LabelSpace) -> dict[str, Report | None]:
    """What to say of each case in place of its report, None if there is nothing.

    That is its own swapped report, or that of the case whose structures lie farthest from its own.
    """
    swapped: dict[str, Report | None] = {case.id: case.swapped_report for case in cases}
    lacking = [case for case in cases if case.swapped_report is None]
    if not lacking:
        return swapped
    reports = {case.id: case.read_report() for case in cases}
    places = {case.id: _place_mm(case, space) for case in cases}

    def can_swap(case: Case, other: Case) -> bool:
        mine, theirs = reports[case.id], reports[other.id]
        if mine is None or theirs is None or (mine.features is None) != (theirs.features is None):
            return False
        return mine.sha256 != theirs.sha256 and bool(np.isfinite(places[other.id]).all())

    for case in lacking:
        others = [other for other in cases if can_swap(case, other)]
        apart = [float(np.linalg.norm(places[case.id] - places[other.id])) for other in others]
        if others and np.isfinite(apart).all():
            swapped[case.id] = others[int(np.argmax(apart))].report
    return swapped


def _place_mm(case: Case, space: LabelSpace) -> NDArray[np.float64]:
    """Centroid of a case's structures, from the middle of its grid; NaN if there are none."""
    seen, labels = read_label_map(case)
    values = [value for held in space.values(seen).values() for value in held]
    voxels = np.argwhere(np.isin(labels.values, values))
    if not len(voxels):
        return np.full(3, np.nan)
    middle = (np.array(labels.geometry.shape) - 1) / 2
    points = labels.geometry.to_world(np.stack([voxels.mean(axis=0), middle]))
    offset: NDArray[np.float64] = points[0] - points[1]
    return offset


def _groups(
    cases: Sequence[CaseSensitivity], *, generator: np.random.Generator, samples: int
) -> tuple[GroupSensitivity, ...]:
    """All cases, and then those of each group if there are several."""
    names = list(dict.fromkeys(case.group for case in cases))
    members = {name or "-": [case for case in cases if case.group == name] for name in names}
    groups = {EVERYTHING: list(cases), **(members if len(names) > 1 else {})}
    return tuple(
        _group(name, group, generator=generator, samples=samples) for name, group in groups.items()
    )


def _group(
    name: str, cases: Sequence[CaseSensitivity], *, generator: np.random.Generator, samples: int
) -> GroupSensitivity:
    drawn = samples if len(cases) >= FEW_SCANS else 0
    mean = partial(mean_with_interval, generator=generator, samples=drawn)
    effects = tuple(
        Effect(
            change=change,
            dice=mean((case.id, case.dice.get(change)) for case in cases),
            difference=mean((case.id, case.difference(change)) for case in cases),
            changed=mean((case.id, case.changed.get(change)) for case in cases),
        )
        for change in CHANGES
    )
    right = mean((case.id, case.dice[RIGHT]) for case in cases)
    return GroupSensitivity(name=name, scans=len(cases), dice=right, effects=effects)
