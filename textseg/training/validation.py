"""Scores whole scans during training, on the scan's own grid, with the engine that users run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textseg.datasets import Case, LabelSpace, read_label_map
from textseg.imaging import (
    Grid,
    GridTransform,
    body_mask,
    normalise_intensity,
    to_grid,
)
from textseg.inference import segment_windows
from textseg.network.model import PromptedSegmenter
from textseg.training.metrics import dice


@dataclass(frozen=True, eq=False)
class ValidationCase:
    """A labelled scan in memory, ready to be scored.

    Attributes:
        id: Identifier of the case.
        domain: Index of its domain.
        image: ``1 X Y Z`` model input on the working grid.
        body: ``X Y Z`` bool on the working grid.
        transform: Brings masks back to the scan.
        reference: Raw label values on the scan's grid.
        values: Row of the query, and the raw values that make up its reference mask.
    """

    id: str
    domain: int
    image: Tensor
    body: Tensor
    transform: GridTransform
    reference: npt.NDArray[np.int32]
    values: Mapping[int, tuple[int, ...]]


def load_validation_case(
    case: Case, space: LabelSpace, *, domain: int, spacing_mm: tuple[float, float, float]
) -> ValidationCase:
    """A case with every concept of the space that its mask holds."""
    volume = case.read_image()
    data, transform = to_grid(volume, Grid(spacing_mm))
    seen, mask = read_label_map(case, scan=volume.geometry)
    values = {space.index[c]: v for c, v in space.values(seen).items() if v}
    return ValidationCase(
        id=case.id,
        domain=domain,
        image=normalise_intensity(data, case.modality),
        body=body_mask(data, case.modality),
        transform=transform,
        reference=mask.values,
        values=values,
    )


def score_case(
    network: PromptedSegmenter,
    case: ValidationCase,
    queries: Tensor,
    *,
    window: tuple[int, int, int],
) -> dict[int, float]:
    """Dice of each present concept, by the row of its query.

    Args:
        network: The network; it is put in evaluation mode and left as it was found.
        case: The scan.
        queries: ``K Q`` of the domain.
        window: Sliding window of the domain.
    """
    rows = list(case.values)
    training = network.training
    network.eval()
    device = next(network.parameters()).device
    prediction = segment_windows(
        network,
        case.image.to(device),
        queries[torch.tensor(rows)],
        window=window,
        body=case.body.to(device),
        precision="auto",
    )
    network.train(training)
    scores = {}
    for row, probability in zip(rows, prediction.probability, strict=True):
        mask = case.transform.restore(probability)
        scores[row] = dice(mask, np.isin(case.reference, case.values[row]))
    return scores
