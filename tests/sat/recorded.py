"""The numbers that parity is tested on: outputs of SAT ``main`` @5676be5 with filled weights.

The original computed them in float64; ``make_fixture.py`` wrote them. No weights of SAT are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.sat.reference import Stages

CASES = ("nano", "pro", "text", "infer")
FOLDER = Path(__file__).resolve().parent / "fixture"
SHOWN_CHANNELS = 8

Arrays = dict[str, np.ndarray]


def stored(case: str) -> Arrays:
    """The numbers of ``nano``, ``pro``, ``text`` or ``infer`` by name."""
    with np.load(FOLDER / f"{case}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def measured(stages: Stages, case: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The numbers of a network under the names of the recording, in float64.

    Voxels are looked up where ``case`` says. Statistics are mean, deviation, minimum and maximum.
    """
    encoded, logits = stages.encoded, stages.logits.double()
    outputs = (stages.logits, *stages.deep_logits)
    numbers = {
        "encoder_stage_stats": _statistics(encoded.encoder_maps),
        "encoder_stage_channel_mean": _channel_means(encoded.encoder_maps),
        "decoder_stage_stats": _statistics(encoded.decoder_maps),
        "decoder_stage_channel_mean": _channel_means(encoded.decoder_maps),
        "pos_embedding": encoded.position,
        "image_embedding": encoded.tokens,
        "decoded_query": stages.decoded_query,
        "mask_embedding": stages.mask_vectors,
        "logits_at_voxels": _at(logits, case["voxel_index"]),
        "logits_stats": _statistics(logits),
        "logits_mean_over_wd": logits.mean(dim=(2, 3)),
        "logits_mean_over_hd": logits.mean(dim=(1, 3)),
        "logits_mean_over_hw": logits.mean(dim=(1, 2)),
        "ds_shapes": torch.tensor([output.shape[1:] for output in outputs]),
        "ds_stats": torch.stack([_statistics(output) for output in outputs]),
    }
    for level, output in enumerate(stages.deep_logits, start=1):
        numbers[f"ds{level}_logits"] = _at(output, case[f"ds{level}_index"])
    return {name: value.double() for name, value in numbers.items()}


def _statistics(maps: Sequence[Tensor] | Tensor) -> Tensor:
    return torch.stack(
        [torch.stack([x.mean(), x.std(correction=0), x.min(), x.max()]) for x in _double(maps)]
    )


def _channel_means(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([x[:SHOWN_CHANNELS].mean(dim=(1, 2, 3)) for x in _double(maps)])


def _double(maps: Sequence[Tensor] | Tensor) -> list[Tensor]:
    return [x.double() for x in maps]


def _at(logits: Tensor, index: np.ndarray) -> Tensor:
    return logits.flatten(1)[:, torch.from_numpy(index).long()]
