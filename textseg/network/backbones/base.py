"""What every backbone promises: a pyramid of feature maps, fine to coarse."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Backbone(nn.Module):
    """Turns a volume into feature maps of decreasing resolution.

    Attributes:
        channels: Channels of each map.
        strides: Voxels of the volume per voxel of each map; the first is 1, each next one twice
            the one before.
    """

    channels: Sequence[int]
    strides: Sequence[int]

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Maps ``B Ci X/si Y/si Z/si`` of a volume ``B C X Y Z``, fine to coarse.

        Each of X, Y and Z must be a multiple of the last stride.
        """
        raise NotImplementedError
