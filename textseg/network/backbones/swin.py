"""Swin transformer encoder, the one inside MONAI's ``SwinUNETR``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from textseg.errors import ModelError
from textseg.network.backbones.base import Backbone
from textseg.network.layers import ConvBlock


class SwinBackbone(Backbone):
    """Shifted-window transformer pyramid (Hatamizadeh et al. 2022, "Swin UNETR").

    Args:
        in_channels: Channels of the volume.
        channels: Width of each stage, fine to coarse. The first belongs to a convolution at full
            resolution; from the second on each must be twice the one before.
        depths: Transformer blocks of each strided stage but the first, which embeds patches.

    Raises:
        ModelError: The widths do not double, or MONAI is not installed.
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], *, depths: Sequence[int], window: int = 4
    ) -> None:
        super().__init__()
        swin = channels[1:]
        if any(b != 2 * a for a, b in pairwise(swin)):
            raise ModelError(
                f"Swin widths must double from the second on, got {list(channels)}.",
                remedy="Use for example 16, 24, 48, 96, 192.",
            )
        try:
            from monai.networks.nets.swin_unetr import SwinTransformer
        except ImportError as error:
            raise ModelError(
                "the Swin backbone needs MONAI.",
                code="E403",
                remedy='Run: pip install "textseg[train]"',
            ) from error
        self.channels = tuple(channels)
        self.strides = tuple(2**level for level in range(len(channels)))
        self.full = ConvBlock(in_channels, channels[0], norm="instance")
        stages = len(swin) - 1
        self.transformer: nn.Module = SwinTransformer(
            in_chans=in_channels,
            embed_dim=swin[0],
            window_size=(window,) * 3,
            patch_size=(2, 2, 2),
            depths=list(depths[:stages]),
            num_heads=[max(1, width // 24) for width in swin[:stages]],
            spatial_dims=3,
            use_v2=False,
        )

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Maps of every stage, fine to coarse."""
        coarse = self.transformer(volume, normalize=True)
        return [self.full(volume), *coarse[: len(self.channels) - 1]]
