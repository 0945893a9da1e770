"""Swin transformer encoder, the one inside MONAI's ``SwinUNETR``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from textseg.errors import ModelError
from textseg.network.backbones.base import Backbone
from textseg.network.layers import ConvBlock


class SwinBackbone(Backbone):
    """Shifted-window transformer pyramid (Hatamizadeh et al. 2022, "Swin UNETR").

    Args:
        in_channels: Channels of the volume.
        channels: Width of each stage, fine to coarse. The first belongs to a convolution at full
            resolution; from the second on each must be twice the one before. Three to six.
        depths: Transformer blocks of each strided stage but the first, which embeds patches.
        window: Side of the attention windows, in tokens.

    Raises:
        ModelError: The widths do not double or are too many, or MONAI is not installed.
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], *, depths: Sequence[int], window: int = 4
    ) -> None:
        super().__init__()
        swin = channels[1:]
        if any(b != 2 * a for a, b in pairwise(swin)) or not 3 <= len(channels) <= 6:
            raise ModelError(
                f"Swin takes three to six widths that double from the second on, "
                f"got {list(channels)}.",
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
        self.transformer: Any = SwinTransformer(
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
        # the transformer's own forward insists on four stages
        tokens = self.transformer.pos_drop(self.transformer.patch_embed(volume))
        maps = [self.full(volume), self.transformer.proj_out(tokens, normalize=True)]
        for level in range(1, len(self.channels) - 1):
            stage = getattr(self.transformer, f"layers{level}")[0]
            tokens = stage(tokens.contiguous())
            maps.append(self.transformer.proj_out(tokens, normalize=True))
        return maps
