"""What decides the shape of the network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from textseg.network.backbones import BackboneConfig
from textseg.network.layers import NormName
from textseg.network.report_fusion import ReportConfig


class NetworkConfig(BaseModel):
    """Everything that decides the network's shape.

    Attributes:
        backbone: Which backbone, and its widths.
        fusion: How prompts meet the image.
        decoder_blocks: Convolution blocks per decoder stage.
        light_full_resolution: Use the cheap last decoder stage.
        full_channels: Channels of the finest decoded map.
        half_channels: How many of them the cheap last stage takes from half resolution through one
            linear layer: its middle is too narrow for what that knows of a hundred structures.
        least_channels: Least channels of the other decoded maps; classifying a hundred
            structures takes more than the finest backbone stages have.
        mask_levels: Decoder levels, from full resolution down, that masks can be made at; those
            below the first serve training alone.
        prompt_maps: Prompt-dependent maps per decoder stage (``multiscale`` only).
        query_features: Length of a query vector.
        embedding: Width of the query decoder.
        layers: Cross-attention layers.
        heads: Attention heads.
        hidden: Width of the feed-forward part.
        text_shortcut: Let the text reach the mask vectors directly as well, through one linear
            layer; without it they come from the refined queries alone, as published, and a hundred
            similar names take many more steps to tell apart.
        token_hidden: Width inside the projection of image tokens; ``embedding`` if None.
        mask_hidden: Width inside the mask head of each level; ``embedding`` if empty.
        gelu_ends: Tokens and mask vectors end in a GELU, and masks have no bias, as published for
            SAT.
        query_projection: Bring queries to the width of the query decoder by a linear layer;
            without it they must have that width.
        presence_head: Say apart from the mask whether a structure is there; without it, it is
            there if some voxel is likely to belong to it.
        whiten_queries: Make the queries a model is trained on equally far apart, by a fixed linear
            map; the text vectors of "vertebra L1" and "vertebra L2" are nearly parallel.
        norm: Normalisation in the decoder.
        channels: Names of the volume's channels, in order (``flair``, ``t1ce``); a named channel
            may be missing from a scan. Empty for volumes whose channels have no names.
        report: How reports reach the image; ``None`` for a network that reads none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneConfig = BackboneConfig()
    fusion: Literal["late", "multiscale"] = "late"
    decoder_blocks: int = 1
    light_full_resolution: bool = True
    full_channels: int = 32
    half_channels: int = Field(default=0, ge=0)
    least_channels: int = 0
    mask_levels: int = Field(default=2, ge=1)
    prompt_maps: int = 8
    query_features: int = 391
    embedding: int = 192
    layers: int = 3
    heads: int = 6
    hidden: int = 512
    text_shortcut: bool = True
    token_hidden: int | None = None
    mask_hidden: tuple[int, ...] = ()
    gelu_ends: bool = False
    query_projection: bool = True
    presence_head: bool = True
    whiten_queries: bool = True
    norm: NormName = "group"
    channels: tuple[str, ...] = ()
    report: ReportConfig | None = None

    @model_validator(mode="after")
    def _widths_agree(self) -> NetworkConfig:
        if self.mask_hidden and len(self.mask_hidden) < self.mask_levels:
            raise ValueError(
                f"mask_hidden {self.mask_hidden} has no width for each of {self.mask_levels} levels"
            )
        if self.half_channels >= self.full_channels or (
            self.half_channels and not self.light_full_resolution
        ):
            raise ValueError(
                f"half_channels {self.half_channels} must be fewer than full_channels "
                f"{self.full_channels}, and 0 without light_full_resolution"
            )
        if not self.query_projection and self.query_features != self.embedding:
            raise ValueError(
                f"queries of {self.query_features} numbers do not fit the width "
                f"{self.embedding} without query_projection"
            )
        if self.fusion == "late" and self.presence_head and self.mask_levels < 2:
            raise ValueError("presence_head reads masks at half resolution: mask_levels must be 2")
        if self.gelu_ends and self.text_shortcut:
            raise ValueError(
                "text_shortcut adds to mask vectors, which gelu_ends keeps as they are"
            )
        return self

    @model_validator(mode="after")
    def _channels_have_names(self) -> NetworkConfig:
        if not self.channels:
            return self
        if len(self.channels) != self.backbone.in_channels:
            raise ValueError(
                f"channels {self.channels} names {len(self.channels)}, but backbone.in_channels is "
                f"{self.backbone.in_channels}; they must agree"
            )
        if len(set(self.channels)) < len(self.channels) or "" in self.channels:
            raise ValueError(
                f"channels {self.channels} must be different names, none of them empty"
            )
        return self

    @model_validator(mode="after")
    def _report_levels_exist(self) -> NetworkConfig:
        finest = len(self.backbone.channels) - 2
        if self.report is not None and max(self.report.levels) > finest:
            raise ValueError(
                f"report.levels {self.report.levels} must lie from 0, the bottleneck, to "
                f"{finest}, half resolution"
            )
        return self
