"""Backbones by name; a new one is a file here and a line in ``make_backbone``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from textseg.network.backbones.base import Backbone
from textseg.network.backbones.unet import UNetBackbone
from textseg.network.layers import NormName

__all__ = ["Backbone", "BackboneConfig", "UNetBackbone", "make_backbone"]


class BackboneConfig(BaseModel):
    """Which backbone, and how wide.

    Attributes:
        kind: Plain U-Net, residual U-Net, or Swin transformer (needs ``textseg[train]``).
        in_channels: Channels of the volume.
        channels: Width of each stage, fine to coarse.
        blocks: Blocks of each stage. A convolutional first stage of 0 blocks is the volume itself:
            at full resolution every convolution is dear.
        norm: Normalisation of the convolutional kinds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["unet", "residual_unet", "swin"] = "unet"
    in_channels: int = 1
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 2, 2, 2)
    norm: NormName = "group"

    @model_validator(mode="after")
    def _one_count_per_width(self) -> BackboneConfig:
        if len(self.blocks) != len(self.channels) or len(self.channels) < 3:
            raise ValueError(
                f"channels {self.channels} and blocks {self.blocks} must be of one length, "
                "three stages or more"
            )
        if self.kind != "swin" and not self.blocks[0] and self.channels[0] != self.in_channels:
            raise ValueError(
                f"a first stage of 0 blocks passes on the {self.in_channels} channels of the "
                f"volume, not {self.channels[0]}"
            )
        return self


def make_backbone(config: BackboneConfig) -> Backbone:
    """The backbone a configuration describes, with fresh weights."""
    if config.kind == "swin":
        from textseg.network.backbones.swin import SwinBackbone

        return SwinBackbone(config.in_channels, config.channels, depths=config.blocks[2:])
    return UNetBackbone(
        config.in_channels,
        config.channels,
        blocks=config.blocks,
        residual=config.kind == "residual_unet",
        norm=config.norm,
    )
