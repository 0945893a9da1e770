"""Scores whole scans during training, on the scan's own grid, with the engine that users run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textseg.datasets import Case, LabelSpace, read_label_map
from textseg.imaging import (
    Grid,
    GridTransform,
    Volume,
    body_mask,
    normalise_intensity,
    to_grid,
)
from textseg.inference import segment_windows
from textseg.knowledge import Concept
from textseg.network.conditioned import Conditioned
from textseg.network.model import PromptedSegmenter
from textseg.network.report_encoder import ReportEncoder
from textseg.network.report_tokens import ReportTokens
from textseg.training.conditions import encode_report, in_order, scan_channels
from textseg.training.evaluation import EvaluationRow, region_of
from textseg.training.metrics import agreement, dice


@dataclass(frozen=True, eq=False)
class ValidationCase:
    """A labelled scan in memory, ready to be scored.

    Attributes:
        id: Identifier of the case.
        dataset: Name of its data set.
        domain: Index of its domain.
        image: ``C X Y Z`` model input on the working grid; a missing channel is NaN.
        body: ``X Y Z`` bool on the working grid.
        transform: Brings masks back to the scan.
        reference: Raw label values on the scan's grid.
        values: Row of the query, and the raw values that make up its reference mask.
        report: What was reported of the scan.
    """

    id: str
    dataset: str
    domain: int
    image: Tensor
    body: Tensor
    transform: GridTransform
    reference: npt.NDArray[np.int32]
    values: Mapping[int, tuple[int, ...]]
    report: ReportTokens | None = None


def load_validation_case(
    case: Case,
    space: LabelSpace,
    *,
    domain: int,
    spacing_mm: tuple[float, float, float],
    channels: Sequence[str] = (),
    encoder: ReportEncoder | None = None,
) -> ValidationCase:
    """A case with every concept of the space that its mask holds.

    Args:
        case: A labelled scan.
        space: The domain's concepts.
        domain: Index of the domain.
        spacing_mm: Working grid of the domain.
        channels: Names of the channels that the domain takes; none for a single image.
        encoder: What makes tokens of its report; without one, the report is left out.

    Raises:
        InputError: A file is damaged.
        ModelError: The scan has none of the channels, or the encoder cannot take the report (E404).
    """
    names = scan_channels(case, channels)
    volume = _with_channels(case.read_image(), names)
    data, transform = to_grid(volume, Grid(spacing_mm))
    seen, mask = read_label_map(case, scan=volume.geometry)
    values = {space.index[c]: v for c, v in space.values(seen).items() if v}
    report = encode_report(case, encoder)
    return ValidationCase(
        id=case.id,
        dataset=case.dataset,
        domain=domain,
        image=in_order(normalise_intensity(data, case.modality), names, channels),
        body=body_mask(data, case.modality),
        transform=transform,
        reference=mask.values,
        values=values,
        report=report and ReportTokens.of([report.tokens]),
    )


def _with_channels(volume: Volume, names: Sequence[str]) -> Volume:
    """The volume with these of its channels alone; as it is if none is named."""
    if not names:
        return volume
    places = [volume.channels.index(name) for name in names]
    return replace(
        volume,
        data=volume.data[places],
        channels=tuple(names),
        sources=tuple(volume.sources[place] for place in places),
    )


class Answer(NamedTuple):
    """What a network says of one concept of a scan.

    Attributes:
        mask: ``X Y Z`` bool on the scan's grid.
        presence: Probability that the structure is there.
    """

    mask: npt.NDArray[np.bool_]
    presence: float


def answer_case(
    network: PromptedSegmenter,
    case: ValidationCase,
    queries: Tensor,
    *,
    window: tuple[int, int, int],
) -> Iterator[tuple[int, Answer]]:
    """The answer for each concept that the reference holds, by the row of its query.

    Args:
        network: The network; it is put in evaluation mode and left as it was found.
        case: The scan, and its report if it has one.
        queries: ``K Q`` of the domain.
        window: Sliding window of the domain.
    """
    rows = list(case.values)
    training = network.training
    network.eval()
    device = next(network.parameters()).device
    image = case.image.to(device)
    if image.isnan().any():
        with torch.inference_mode():
            image = network.with_stand_ins(image[None])[0]
    prediction = segment_windows(
        network if case.report is None else Conditioned(network, case.report),
        image,
        queries[torch.tensor(rows)],
        window=window,
        body=case.body.to(device),
        precision="auto",
    )
    network.train(training)
    presence = prediction.presence.tolist()
    for row, probability, there in zip(rows, prediction.probability, presence, strict=True):
        yield row, Answer(case.transform.restore(probability), there)


def score_case(
    network: PromptedSegmenter,
    case: ValidationCase,
    queries: Tensor,
    *,
    window: tuple[int, int, int],
) -> dict[int, float]:
    """Dice of each present concept, by the row of its query; arguments as in ``answer_case``."""
    answers = answer_case(network, case, queries, window=window)
    return {
        row: dice(answer.mask, np.isin(case.reference, case.values[row])) for row, answer in answers
    }


def judge_case(
    network: PromptedSegmenter,
    case: ValidationCase,
    queries: Tensor,
    *,
    window: tuple[int, int, int],
    concepts: Sequence[Concept],
    modality: str,
) -> list[EvaluationRow]:
    """All figures of each present concept; arguments as in ``answer_case``.

    Args:
        network: See there.
        case: See there.
        queries: See there.
        window: See there.
        concepts: The domain's concepts, in the order of the queries.
        modality: Modality of the scan.
    """
    geometry = case.transform.source
    rows = []
    for row, answer in answer_case(network, case, queries, window=window):
        reference = np.isin(case.reference, case.values[row])
        score = agreement(answer.mask, reference, spacing_mm=geometry.spacing_mm)
        concept = concepts[row]
        rows.append(
            EvaluationRow(
                case=case.id,
                structure=concept.name,
                status="ok",
                dice=score.dice,
                nsd=score.nsd,
                hd95_mm=score.hd95_mm,
                volume_pred_ml=float(answer.mask.sum()) * geometry.voxel_volume_ml,
                volume_ref_ml=float(reference.sum()) * geometry.voxel_volume_ml,
                concept=concept.id,
                region=region_of(concept),
                dataset=case.dataset,
                modality=modality,
                presence=answer.presence,
            )
        )
    return rows
