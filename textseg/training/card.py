"""Scores a model on whole held-out scans and writes its card from the figures.

The scans go through ``Segmenter`` as a user's would. Besides the structures a reference mask
holds, prompts of the same domain that it annotates but does not hold are asked for, to see whether
the model says "not found".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from textseg.datasets import Case, LabelSpace
from textseg.imaging import read_volume
from textseg.knowledge import KnowledgeTree
from textseg.network.weights import ModelManifest
from textseg.outputs.segmentation import Segmentation
from textseg.segmenter import Segmenter
from textseg.training.datamodule import validation_cases
from textseg.training.metrics import agreement
from textseg.training.sampling import DomainConfig


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
    """One scan."""

    id: str
    dataset: str
    domain: str
    modality: str
    elapsed_s: float
    structures: tuple[StructureScore, ...]
    absent: tuple[AbsentScore, ...]

    @property
    def mean_dice(self) -> float:
        """Mean over the structures the reference holds."""
        return float(np.mean([score.dice for score in self.structures]))


class ModelScores(_Record):
    """All scans a model was scored on."""

    model: str
    version: str
    sha256: str
    cases: tuple[CaseScore, ...]


def score_model(
    segmenter: Segmenter,
    domains: Sequence[DomainConfig],
    cases: Sequence[Case],
    *,
    progress: Callable[[CaseScore], None] | None = None,
) -> ModelScores:
    """Scores of a model on every validation scan of its domains, none of them trained on."""
    manifest = segmenter.manifest
    offered = {domain.name: domain.concepts for domain in manifest.domains}
    scored = []
    for domain in domains:
        space = LabelSpace(tuple(offered.get(domain.name, ())), segmenter.tree)
        for case in validation_cases(domain, cases):
            score = score_scan(segmenter, case, space, domain=domain.name)
            scored.append(score)
            if progress is not None:
                progress(score)
    return ModelScores(
        model=manifest.name,
        version=manifest.version,
        sha256=manifest.sha256,
        cases=tuple(scored),
    )


def score_scan(segmenter: Segmenter, case: Case, space: LabelSpace, *, domain: str) -> CaseScore:
    """Scores of one labelled scan."""
    assert case.image is not None
    assert case.label is not None
    values = space.values(case)
    names = {concept: segmenter.tree[concept].name for concept in values}
    prompts = {concept: _prompt(segmenter, concept) for concept in values}
    result = segmenter(case.image, list(prompts.values()), modality=case.modality)
    reference = read_volume(case.label, modality="mr").data[0]
    structures, absent = [], []
    for concept, raw in values.items():
        if raw:
            score = _structure_score(result, prompts[concept], np.isin(reference, raw))
            structures.append(score.model_copy(update={"concept": concept, "name": names[concept]}))
        else:
            absent.append(_absent_score(result, prompts[concept], concept))
    return CaseScore(
        id=case.id,
        dataset=case.dataset,
        domain=domain,
        modality=case.modality,
        elapsed_s=result.run.timings_s["total"],
        structures=tuple(structures),
        absent=tuple(absent),
    )


def _prompt(segmenter: Segmenter, concept: str) -> str:
    """The concept's name if it means just that to the model, else its id."""
    name = segmenter.tree[concept].name
    meaning = segmenter.resolve(name)
    return name if meaning.concepts == (concept,) else concept


def _structure_score(result: Segmentation, prompt: str, reference: np.ndarray) -> StructureScore:
    answer = result[prompt]
    score = agreement(answer.mask, reference, spacing_mm=result.geometry.spacing_mm)
    return StructureScore(
        concept="",
        name="",
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


def render_card(
    manifest: ModelManifest, scores: ModelScores, cases: Sequence[Case], tree: KnowledgeTree
) -> str:
    """The card in Markdown, from the manifest and the scores alone."""
    sections = [
        f"# {manifest.name} {manifest.version}",
        "Generated by `textseg card` from `scores.json`; research use, not a medical device.",
        _domain_section(manifest, tree),
        _summary_section(scores),
        *(_case_section(group) for group in _by_dataset(scores.cases)),
        _absence_section(scores),
        _limits_section(scores),
        _licence_section(manifest, cases),
    ]
    return "\n\n".join(sections) + "\n"


def _by_dataset(scores: Iterable[CaseScore]) -> list[list[CaseScore]]:
    groups: dict[str, list[CaseScore]] = {}
    for score in scores:
        groups.setdefault(score.dataset, []).append(score)
    return list(groups.values())


def _domain_section(manifest: ModelManifest, tree: KnowledgeTree) -> str:
    lines = ["## What it segments", ""]
    for domain in manifest.domains:
        names = ", ".join(tree[concept].name for concept in domain.concepts)
        modalities = " and ".join(domain.modalities).upper()
        lines += [
            f"**{domain.name}** ({modalities}, {domain.spacing_mm[0]:g} mm working grid, "
            f"{len(domain.concepts)} structures): {names}.",
            "",
        ]
    lines += [
        "Anything that is exactly a union of these (kidneys, lungs, lumbar vertebrae, ...) can be "
        "asked for as well."
    ]
    return "\n".join(lines)


def _summary_section(scores: ModelScores) -> str:
    lines = [
        "## Figures on scans it was not trained on",
        "",
        "| data set | scans | structures | mean Dice | mean NSD 2 mm |",
        "|---|---|---|---|---|",
    ]
    for group in _by_dataset(scores.cases):
        rows = [row for score in group for row in score.structures]
        lines.append(
            f"| {group[0].dataset} | {len(group)} | {len({row.concept for row in rows})} "
            f"| {np.mean([row.dice for row in rows]):.3f} "
            f"| {np.mean([row.nsd_2mm for row in rows]):.3f} |"
        )
    return "\n".join(lines)


def _case_section(group: Sequence[CaseScore]) -> str:
    by_name: dict[str, list[StructureScore]] = {}
    for score in group:
        for row in score.structures:
            by_name.setdefault(row.name, []).append(row)
    scans = group[0].id if len(group) == 1 else f"mean over {len(group)} scans"
    lines = [
        f"### {group[0].dataset} ({scans})",
        "",
        "| structure | Dice | NSD 2 mm | HD95 mm | presence |",
        "|---|---|---|---|---|",
    ]
    for name, rows in sorted(by_name.items(), key=lambda item: -_mean_dice(item[1])):
        found = [row.hd95_mm for row in rows if row.hd95_mm is not None]
        distance = f"{np.mean(found):.1f}" if found else "not found"
        lines.append(
            f"| {name} | {_mean_dice(rows):.3f} | {np.mean([row.nsd_2mm for row in rows]):.3f} "
            f"| {distance} | {np.mean([row.presence for row in rows]):.2f} |"
        )
    return "\n".join(lines)


def _mean_dice(rows: Sequence[StructureScore]) -> float:
    return float(np.mean([row.dice for row in rows]))


def _absence_section(scores: ModelScores) -> str:
    absent = [row for case in scores.cases for row in case.absent]
    present = [row.presence for case in scores.cases for row in case.structures]
    lines = ["## Structures that are not in the scan", ""]
    if not absent:
        return "\n".join([*lines, "No validation scan lacks a structure that it annotates."])
    refused = sum(row.status == "not_found" for row in absent)
    false_ml = sum(row.predicted_ml for row in absent)
    lines.append(
        f"Of {len(absent)} prompts for structures that the reference annotates and does not hold, "
        f"{refused} were answered `not_found`; the others drew {false_ml:.0f} ml of false mask "
        f"altogether. AUROC of the presence score, present against absent prompts: "
        f"{auroc(present, [row.presence for row in absent]):.3f}."
    )
    return "\n".join(lines)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Probability that a positive scores above a negative, ties counting half.

    >>> auroc([0.9, 0.6], [0.1, 0.6])
    0.875
    """
    higher = np.subtract.outer(np.asarray(positive), np.asarray(negative))
    return float(((higher > 0) + 0.5 * (higher == 0)).mean())


def _limits_section(scores: ModelScores) -> str:
    weak = sorted({row.name for case in scores.cases for row in case.structures if row.dice < 0.5})
    lines = [
        "## What it cannot do",
        "",
        "- Lesions, devices, and every structure not listed above.",
        "- The reference labels of the torso scans are themselves a model's output: Dice there "
        "means agreement with it.",
        "- Torso structures were learned on images synthesised from two people's label maps; "
        "unusual anatomy, arms in the field of view and pathology were never seen.",
    ]
    if weak:
        lines.append(f"- Dice below 0.5 on at least one scan: {', '.join(weak)}.")
    return "\n".join(lines)


def _licence_section(manifest: ModelManifest, cases: Sequence[Case]) -> str:
    used = {(case.dataset, case.licence) for case in cases if case.split == "train" and case.labels}
    lines = [
        "## Training data and licences",
        "",
        f"The weights are released under {manifest.licence}. They were trained on:",
        "",
        *(f"- {dataset}: {licence}" for dataset, licence in sorted(used)),
    ]
    return "\n".join(lines)


def write_card(
    folder: Path,
    scores: ModelScores,
    *,
    manifest: ModelManifest,
    cases: Sequence[Case],
    tree: KnowledgeTree,
) -> Path:
    """Writes ``scores.json`` and ``CARD.md`` into a model folder; returns the card's path."""
    (folder / "scores.json").write_text(scores.model_dump_json(indent=1) + "\n", encoding="utf-8")
    card = folder / "CARD.md"
    card.write_text(render_card(manifest, scores, cases, tree), encoding="utf-8")
    return card
