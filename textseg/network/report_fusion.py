"""A report refines the maps of a network: which maps, and by which kind of fusion.

    report B T F ── context ── text B T W ──┐
    map B C X Y Z ───────────────────── fusion ── map of the same shape

A scan without a report, or whose report has no token, keeps its maps bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from textseg.errors import ModelError
from textseg.network.pixel_decoder import Refinement
from textseg.network.report_fusion_gated import GatedFusion
from textseg.network.report_fusion_parts import FusionBlock, TextContext
from textseg.network.report_fusion_sequential import SequentialFusion
from textseg.network.report_fusion_strip import StripFusion
from textseg.network.report_place import Stated, StatedPrior
from textseg.network.report_tokens import ReportTokens


class ReportConfig(BaseModel):
    """How reports reach the image.

    Attributes:
        fusion: ``gated`` attention, the ``sequential`` one published with TextBraTS, or ``strip``
            kernels after LSMS.
        token_features: Length of a token; that of the encoder that reads the reports.
        levels: Maps that are refined: 0 is the coarsest of the pyramid, the bottleneck, 1 the
            coarsest decoded map, and so on up to half resolution.
        width: Width of the text inside the fusion (not ``sequential``).
        heads: Attention heads (not ``sequential``).
        layers: Times that text and image read each other (``gated``).
        hidden: Width of the feed-forward parts (not ``sequential``).
        context_layers: Self-attention layers over the tokens, in which "no", "left" and the site
            find one another (not ``sequential``).
        size: Voxels of the coarsest map, the window divided by the last stride (``sequential``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fusion: Literal["gated", "sequential", "strip"] = "gated"
    token_features: int = Field(ge=1)
    levels: tuple[int, ...] = (0,)
    width: int = 96
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=2, ge=1)
    hidden: int = Field(default=192, ge=1)
    context_layers: int = Field(default=2, ge=0)
    size: tuple[int, int, int] | None = None

    @model_validator(mode="after")
    def _settings_agree(self) -> ReportConfig:
        if not self.levels or len(set(self.levels)) < len(self.levels) or min(self.levels) < 0:
            raise ValueError(f"levels {self.levels} must be different numbers from 0, at least one")
        if self.width % self.heads or self.width < 6:  # a position takes six numbers
            raise ValueError(f"width {self.width} must be a multiple of {self.heads} heads, from 6")
        if self.fusion != "sequential" and self.size is not None:
            raise ValueError(f"size {self.size} is for sequential fusion; {self.fusion} takes any")
        if self.fusion == "sequential" and self.levels != (0,):
            raise ValueError(f"sequential fusion is made for level 0 alone, not {self.levels}")
        if self.fusion == "sequential" and (self.size is None or min(self.size) < 1):
            raise ValueError(
                f"sequential fusion needs the size of the coarsest map, not {self.size}; it is the "
                "window divided by the last stride"
            )
        return self


class Heard(NamedTuple):
    """Reports as a network has read them.

    Attributes:
        has_token: ``B`` bool, which say anything.
        text: Their tokens in context, at least one each.
    """

    has_token: Tensor
    text: ReportTokens


class ReportFusion(nn.Module):
    """Everything of a network that has to do with reports.

    Args:
        config: Which maps, and how.
        channels: Channels of the maps, from the bottleneck to half resolution.
        judged: Channels of the maps that all masks are made of, from full resolution down; none
            where each prompt has maps of its own.
    """

    def __init__(
        self, config: ReportConfig, channels: Sequence[int], judged: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.config = config
        self.context: TextContext | None = None
        if config.fusion != "sequential":
            self.context = TextContext(
                config.token_features,
                config.width,
                layers=config.context_layers,
                heads=config.heads,
                hidden=config.hidden,
            )
        self.blocks = nn.ModuleDict(
            {str(level): _make_block(config, channels[level]) for level in config.levels}
        )
        self.prior: StatedPrior | None = None
        if config.fusion == "gated" and judged:
            self.prior = StatedPrior(config.width, judged)

    def read(self, report: ReportTokens) -> Heard:
        """The reports, each token in its context.

        Raises:
            ModelError: The tokens have another length than the network takes.
        """
        if report.tokens.shape[-1] != self.config.token_features:
            raise ModelError(
                f"the report's tokens are {report.tokens.shape[-1]} long, and the network takes "
                f"{self.config.token_features}.",
                remedy="Encode the report with the encoder that the model was trained with.",
            )
        has_token = report.mask.any(dim=1)  # B
        tokens, mask = _one_at_least(report)
        tokens = tokens.float().masked_fill(~mask[..., None], 0)
        # attention to nothing is NaN, also in gradients: who has no token reads zeros, in vain
        mask = mask | ~has_token[:, None]
        text = tokens if self.context is None else self.context(tokens, mask)
        return Heard(has_token, ReportTokens(text, mask))

    def refinements(self, heard: Heard) -> dict[int, Refinement]:
        """What the reports do to the map of each level."""
        return {
            level: partial(_refined, block, heard.text, heard.has_token)
            for level, block in self._by_level()
        }

    def prior_map(self, heard: Heard, grid: tuple[int, int, int]) -> Tensor | None:
        """What the reports alone say of a coarse grid, ``B 2 X Y Z``; None without ``judged`` maps.

        It is 0 for a scan whose report has no token; see ``StatedPrior``.
        """
        if self.prior is None:
            return None
        stated = self.prior.stated_map(heard.text, grid)
        return torch.where(heard.has_token[:, None, None, None, None], stated, 0)

    def stated(self, report: ReportTokens, grid: tuple[int, int, int]) -> list[Stated]:
        """All that is read of a window from the reports alone; nothing but for gated fusion.

        Raises:
            ModelError: As ``read``.
        """
        text = self.read(report).text
        readers = [block.place for _, block in self._by_level() if isinstance(block, GatedFusion)]
        if self.prior is not None:
            readers.append(self.prior.place)
        return [place(text, grid) for place in readers]

    def held_per_voxel(self, strides: Sequence[int]) -> float:
        """Numbers held at once per voxel of the volume, at most.

        Args:
            strides: Voxels of the volume per voxel of each map, from the bottleneck on.
        """
        held = [block.held / strides[level] ** 3 for level, block in self._by_level()]
        return max(held if self.prior is None else [*held, float(self.prior.held)])

    def _by_level(self) -> Iterator[tuple[int, FusionBlock]]:
        for level in self.config.levels:
            block: FusionBlock = self.blocks[str(level)]  # type: ignore[assignment]
            yield level, block


def _make_block(config: ReportConfig, channels: int) -> FusionBlock:
    if config.size is not None:
        return SequentialFusion(channels, config.token_features, size=config.size)
    if config.fusion == "strip":
        return StripFusion(channels, config.width, heads=config.heads)
    return GatedFusion(
        channels,
        config.width,
        layers=config.layers,
        heads=config.heads,
        hidden=config.hidden,
    )


def _one_at_least(report: ReportTokens) -> ReportTokens:
    """The reports, with padding if there is no token at all.

    Every weight then takes part in every step, as training on several devices needs.
    """
    if report.mask.shape[1]:
        return report
    padded = functional.pad(report.tokens, (0, 0, 0, 1)), functional.pad(report.mask, (0, 1))
    return ReportTokens(*padded)


def _refined(block: FusionBlock, text: ReportTokens, has_token: Tensor, image: Tensor) -> Tensor:
    """The map ``B C X Y Z`` after fusion, where there is a report."""
    return torch.where(has_token[:, None, None, None, None], block(image, text), image)
