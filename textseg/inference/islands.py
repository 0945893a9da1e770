"""Takes away the crumbs of a mask: pieces far smaller than its largest one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from textseg.kernels.restore import bounding_box

ISLAND_SHARE = 0.1
"""A piece smaller than this part of the largest piece is an island."""


class Cleaned(NamedTuple):
    """Probability ``X Y Z`` without islands, and how many there were."""

    probability: Tensor
    islands: int


def drop_islands(probability: Tensor, *, threshold: float) -> Cleaned:
    """The probability of one structure, 0 where its mask had islands.

    A structure in one piece, or in several of like size such as costal cartilage, comes back as it
    is. Pieces hang together by faces, edges and corners.

    Args:
        probability: uint8 ``X Y Z``, 0..255, in host memory; it is not changed.
        threshold: Probability above which a voxel belongs to the mask.

    >>> row = torch.tensor([200] * 20 + [0, 255, 0], dtype=torch.uint8)[:, None, None]
    >>> drop_islands(row, threshold=0.5).probability[-3:].flatten().tolist()
    [0, 0, 0]
    """
    mask = probability > 255 * threshold
    box = bounding_box(mask)
    if box is None:
        return Cleaned(probability, 0)
    pieces, count = ndimage.label(mask[box].numpy(), structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    small = sizes < ISLAND_SHARE * sizes.max()
    if count == 1 or not small.any():
        return Cleaned(probability, 0)
    is_island = np.concatenate([[False], small])[pieces]
    cleaned = probability.clone()
    cleaned[box][torch.from_numpy(is_island)] = 0
    return Cleaned(cleaned, int(small.sum()))
