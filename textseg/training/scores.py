"""Scores a model on whole held-out scans.

The scans go through ``Segmenter`` as a user's would. Besides the structures a reference mask
holds, prompts of the same domain that it annotates but does not hold are asked for, to see whether
the model says "not found".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from textseg.datasets import Case, LabelSpace, read_label_map
from textseg.imaging import Modality
from textseg.knowledge import Concept, KnowledgeTree
from textseg.network.weights import ModelManifest
from textseg.outputs.segmentation import Segmentation
from textseg.prompts import Resolution
from textseg.training.corruptions import Corruption, ScanPair
from textseg.training.datamodule import validation_cases
from textseg.training.metrics import agreement, dice
from textseg.training.sampling import DomainConfig

Mask: TypeAlias = NDArray[np.bool_]
Values: TypeAlias = Mapping[str, Sequence[int]]
NO_CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType({})


class Resolver(Protocol):
    """What tells the meaning of a prompt to a model."""

    tree: KnowledgeTree

    def resolve(self, prompt: str) -> Resolution:
        """What a prompt means to the model."""


class ScanSegmenter(Resolver, Protocol):
    """The part of ``textseg.Segmenter`` that scoring needs."""

    manifest: ModelManifest

    def __call__(
        self, scan: Any, prompts: str | Sequence[str], *, modality: Modality
    ) -> Segmentation:
        """The answer to each prompt."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StructureScore(_Record):
    """Agreement on one structure that the reference holds; HD95 is None if nothing was found."""

    concept: str
    name: str
    dice: float
    nsd_2mm: float
    hd95_mm: float | None
    presence: float
    reference_ml: float


class AbsentScore(_Record):
    """What the model said about a structure that the reference annotates and does not hold."""

    concept: str
    status: str
    presence: float
    predicted_ml: float


class CaseScore(_Record):
    """One scan.

    Attributes:
        sided: Structures found whose counterpart on the other side the reference holds as well.
        exchanged: How many of them overlap the counterpart more than the structure itself.
    """

    id: str
    dataset: str
    domain: str
    modality: str
    elapsed_s: float
    structures: tuple[StructureScore, ...]
    absent: tuple[AbsentScore, ...]
    sided: int = 0
    exchanged: int = 0

    @property
    def mean_dice(self) -> float:
        """Mean over the structures the reference holds."""
        return float(np.mean([score.dice for score in self.structures]))


class CorruptedScore(_Record):
    """A scan made worse: mean Dice of the structures that it still shows, and theirs before."""

    id: str
    dataset: str
    corruption: str
    structures: int
    dice: float
    clean_dice: float


class ModelScores(_Record):
    """All scans a model was scored on."""

    model: str
    version: str
    sha256: str
    cases: tuple[CaseScore, ...]
    corrupted: tuple[CorruptedScore, ...] = ()


def score_model(
    segmenter: ScanSegmenter,
    domains: Sequence[DomainConfig],
    cases: Sequence[Case],
    *,
    corruptions: Mapping[str, Corruption] = NO_CORRUPTIONS,
    progress: Callable[[CaseScore], None] | None = None,
) -> ModelScores:
    """Scores of a model on every validation scan of its domains, none of them trained on.

    Args:
        segmenter: The model.
        domains: Those it was trained on.
        cases: All cases; the domains say which are for validation.
        corruptions: What is done besides to the first scan of each data set.
        progress: Called after each scan.
    """
    manifest = segmenter.manifest
    offered = {domain.name: domain.concepts for domain in manifest.domains}
    scored: list[CaseScore] = []
    corrupted: list[CorruptedScore] = []
    for domain in domains:
        space = LabelSpace(tuple(offered.get(domain.name, ())), segmenter.tree)
        for case in validation_cases(domain, cases):
            pair, values = read_scan(case, space)
            is_first = case.dataset not in {score.dataset for score in scored}
            score = score_scan(segmenter, case, pair, values, domain=domain.name)
            scored.append(score)
            for name, corruption in corruptions.items() if is_first else ():
                worse = score_scan(segmenter, case, corruption(pair), values, domain=domain.name)
                corrupted += _corrupted(score, worse, name)
            if progress is not None:
                progress(score)
    return ModelScores(
        model=manifest.name,
        version=manifest.version,
        sha256=manifest.sha256,
        cases=tuple(scored),
        corrupted=tuple(corrupted),
    )


def read_scan(case: Case, space: LabelSpace) -> tuple[ScanPair, Values]:
    """A scan with its reference, and which label values each concept of the space has in it."""
    scan = case.read_image()
    seen, labels = read_label_map(case, scan=scan.geometry)
    return ScanPair(scan, labels.values), space.values(seen)


def score_scan(
    segmenter: ScanSegmenter, case: Case, pair: ScanPair, values: Values, *, domain: str
) -> CaseScore:
    """Scores of one labelled scan."""
    prompts = {concept: prompt_for(segmenter, concept) for concept in values}
    result = segmenter(pair.scan, list(prompts.values()), modality=case.modality)
    references = {concept: np.isin(pair.labels, raw) for concept, raw in values.items() if raw}
    references = {concept: mask for concept, mask in references.items() if mask.any()}
    structures, absent = [], []
    for concept in values:
        if concept in references:
            structures.append(
                _structure_score(
                    result, prompts[concept], segmenter.tree[concept], references[concept]
                )
            )
        else:
            absent.append(_absent_score(result, prompts[concept], concept))
    nearer = [
        _is_exchanged(result[prompts[concept]].mask, mask, references[other])
        for concept, mask in references.items()
        if (other := segmenter.tree.counterpart(concept)) in references
        and result[prompts[concept]].mask.any()
    ]
    return CaseScore(
        id=case.id,
        dataset=case.dataset,
        domain=domain,
        modality=case.modality,
        elapsed_s=result.run.timings_s["total"],
        structures=tuple(structures),
        absent=tuple(absent),
        sided=len(nearer),
        exchanged=sum(nearer),
    )


def _is_exchanged(mask: Mask, own: Mask, other: Mask) -> bool:
    return dice(mask, other) > dice(mask, own)


def _corrupted(clean: CaseScore, worse: CaseScore, name: str) -> list[CorruptedScore]:
    """How a scan made worse compares; nothing if it shows none of the structures."""
    before = {score.concept: score.dice for score in clean.structures}
    after = {score.concept: score.dice for score in worse.structures}
    if not after:
        return []
    return [
        CorruptedScore(
            id=clean.id,
            dataset=clean.dataset,
            corruption=name,
            structures=len(after),
            dice=round(float(np.mean(list(after.values()))), 4),
            clean_dice=round(float(np.mean([before[concept] for concept in after])), 4),
        )
    ]


def prompt_for(segmenter: Resolver, concept: str) -> str:
    """The concept's name if it means just that to the model, else its id."""
    name = segmenter.tree[concept].name
    meaning = segmenter.resolve(name)
    return name if meaning.concepts == (concept,) else concept


def _structure_score(
    result: Segmentation, prompt: str, concept: Concept, reference: np.ndarray
) -> StructureScore:
    answer = result[prompt]
    score = agreement(answer.mask, reference, spacing_mm=result.geometry.spacing_mm)
    return StructureScore(
        concept=concept.id,
        name=concept.name,
        dice=round(score.dice, 4),
        nsd_2mm=round(score.nsd, 4),
        hd95_mm=round(score.hd95_mm, 2) if np.isfinite(score.hd95_mm) else None,
        presence=round(answer.presence or 0.0, 4),
        reference_ml=round(float(reference.sum()) * result.geometry.voxel_volume_ml, 3),
    )


def _absent_score(result: Segmentation, prompt: str, concept: str) -> AbsentScore:
    answer = result[prompt]
    return AbsentScore(
        concept=concept,
        status=answer.status,
        presence=round(answer.presence or 0.0, 4),
        predicted_ml=round(float(answer.mask.sum()) * result.geometry.voxel_volume_ml, 3),
    )
