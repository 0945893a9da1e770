"""The network: a volume is encoded once, then any number of text queries are decoded against it.

    volume B C X Y Z ── backbone ── pyramid ── pixel decoder ── decoded maps
                                       │                             │
                                       └─ tokens ── query decoder ── mask vectors ── B K X Y Z
                          queries B K Q ──────────────┘        └──── presence B K

``late`` fusion (Zhao et al. 2023, SAT) decodes the pixels without looking at the prompt and dots
each refined query with the finest map. ``multiscale`` fusion (Rokuss et al. 2025, VoxTell) joins
prompt-dependent maps to every decoder stage, which costs one decoder pass per prompt. A report, if
the network reads any, refines the coarsest map and perhaps decoded ones (``report_fusion``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from textseg.errors import ModelError
from textseg.network.backbones import make_backbone
from textseg.network.config import NetworkConfig
from textseg.network.layers import Perceptron
from textseg.network.masks import largest_logits, mask_logits
from textseg.network.pixel_decoder import Block, PixelDecoder, Refinement, doubled
from textseg.network.query_decoder import QueryDecoder, TokenPool
from textseg.network.report_fusion import Heard, ReportFusion
from textseg.network.report_fusion_parts import grid_of
from textseg.network.report_tokens import ReportTokens

__all__ = ["Decoded", "Features", "NetworkConfig", "PromptedSegmenter"]


@dataclass(frozen=True)
class Features:
    """What one backbone pass leaves behind, shared by all prompts.

    Attributes:
        maps: Backbone pyramid, fine to coarse, each ``B Ci X/si Y/si Z/si``.
        decoded: Prompt-free decoder maps from half resolution down, fine to coarse; empty for
            ``multiscale`` fusion.
        tokens: Pooled image tokens ``B N E``.
        position: Position code of the tokens ``N E``.
        finest: Prompt-free map at full resolution, once ``encode`` has made it.
        refinements: What reports do to decoded maps, by level from the bottleneck up.
        prior: What reports alone say of each place, ``B 2 x y z`` of a coarse grid.
    """

    maps: tuple[Tensor, ...]
    decoded: tuple[Tensor, ...]
    tokens: Tensor
    position: Tensor
    finest: Tensor | None = None
    refinements: Mapping[int, Refinement] = field(default_factory=dict)
    prior: Tensor | None = None


class Decoded(NamedTuple):
    """What the network says about prompts: a mask is a map seen along its mask vector.

    Attributes:
        features: Map at full resolution ``B C X Y Z``.
        vectors: Weights and, last, bias of each prompt's mask, ``B K C+1``.
        presence: Presence logits ``B K``.
    """

    features: Tensor
    vectors: Tensor
    presence: Tensor

    @property
    def logits(self) -> Tensor:
        """Mask logits ``B K X Y Z``."""
        return mask_logits(self.features, self.vectors)

    @classmethod
    def of_logits(cls, logits: Tensor, presence: Tensor) -> Decoded:
        """Masks ``B K X Y Z`` that no map is shared by: each is a map of its own."""
        own = torch.eye(logits.shape[1], device=logits.device)
        vectors = functional.pad(own, (0, 1)).expand(len(logits), -1, -1)
        return cls(logits, vectors, presence)


class PromptedSegmenter(nn.Module):
    """Text-prompted segmentation network; see the module's picture.

    Attributes:
        granularity: Window sizes must be multiples of this many voxels.
        recompute: Compute the backbone again for the backward pass, to save memory.
    """

    recompute = False

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config.backbone)
        channels = tuple(self.backbone.channels)
        self.granularity = int(self.backbone.strides[-1])
        extra = config.prompt_maps if config.fusion == "multiscale" else 0
        self.pixel_decoder = PixelDecoder(
            channels,
            blocks=config.decoder_blocks,
            light=config.light_full_resolution,
            full_channels=config.full_channels,
            half_channels=config.half_channels,
            least_channels=config.least_channels,
            extra=extra,
            norm=config.norm,
        )
        self.token_pool = TokenPool(
            channels,
            config.embedding,
            hidden=config.token_hidden or config.embedding,
            gelu_end=config.gelu_ends,
        )
        self.query_mean: Tensor
        self.query_whitening: Tensor
        if config.whiten_queries:
            self.register_buffer("query_mean", torch.zeros(config.query_features))
            self.register_buffer("query_whitening", torch.eye(config.query_features))
        self.query_projection: nn.Module = nn.Identity()
        if config.query_projection:
            self.query_projection = nn.Linear(config.query_features, config.embedding)
        self.query_decoder = QueryDecoder(
            config.embedding, layers=config.layers, heads=config.heads, hidden=config.hidden
        )
        levels = self.pixel_decoder.channels if config.fusion == "late" else (config.full_channels,)
        levels = levels[: config.mask_levels]
        self.mask_heads = _mask_heads(config, levels)
        self.shortcuts = nn.ModuleList(
            nn.Linear(config.query_features, width + 1, bias=False)
            for width in levels
            if config.text_shortcut
        )
        for weight in self.shortcuts.parameters():
            nn.init.zeros_(weight)
        self.prompt_heads = nn.ModuleList(
            nn.Linear(config.embedding, extra * width) for width in channels[1:-1] if extra
        )
        if config.presence_head:
            self.presence_head = Perceptron(config.embedding, config.embedding, 1)
            self.evidence = nn.Parameter(torch.tensor(0.5))
        if config.channels:
            self.stand_ins = nn.Parameter(torch.zeros(len(config.channels)))
        self.report_fusion: ReportFusion | None = None
        if config.report is not None:
            # bottleneck first, up to half resolution
            widths = (channels[-1], *reversed(self.pixel_decoder.channels[1:]))
            judged = self.pixel_decoder.channels[:2] if config.fusion == "late" else ()
            self.report_fusion = ReportFusion(config.report, widths, judged)

    def whiten(self, queries: Tensor) -> None:
        """Sets the fixed map that makes the queries ``N Q`` it will be trained on uncorrelated.

        Of a single query there is nothing to tell apart, so the map stays as it was.
        """
        mean = queries.mean(0)
        if torch.allclose(queries, mean, atol=1e-6):
            return
        covariance = (queries - mean).T @ (queries - mean) / len(queries)
        scale, axes = torch.linalg.eigh(covariance)
        floor = 1e-4 * scale.sum()  # directions with nothing but rounding stay small
        self.query_mean.copy_(mean)
        self.query_whitening.copy_(axes @ torch.diag((scale + floor).rsqrt()) @ axes.T)

    def translate(self, queries: Tensor, asked: Tensor) -> None:
        """Sets the fixed map so that new queries are heard as those it was trained on.

        With it a trained network gets another text encoder and answers as before.

        Args:
            queries: Queries of the new encoder, ``N Q``.
            asked: Queries of the same concepts by the encoder it was trained with, ``N Q``.

        Raises:
            ModelError: It has no such map.
        """
        if not self.config.whiten_queries:
            raise ModelError(
                "a network without whitened queries keeps the text encoder it was trained with.",
                code="E402",
            )
        heard = self._whitened(asked)
        # the shortest map that fits; a query's switches are its constant
        fitted = torch.linalg.lstsq(queries.double(), heard.double(), rcond=1e-6, driver="gelsd")
        self.query_mean.zero_()
        self.query_whitening.copy_(fitted.solution)

    @property
    def activations_per_voxel(self) -> int:
        """Numbers held at once for each voxel of a window, at most, when it is encoded."""
        strides = [int(stride) ** 3 for stride in self.backbone.strides]
        kept = [*zip(self.backbone.channels, strides, strict=True)]
        kept += zip(self.pixel_decoder.channels[1:], strides[1:], strict=False)
        steered = self.prompts_per_pass if self.config.fusion == "multiscale" else 0
        # never at once: a report refines a map before the finest one is made
        peak = float(self.pixel_decoder.held)
        if self.report_fusion is not None:
            peak = max(peak, self.report_fusion.held_per_voxel(self.backbone.strides[::-1]))
        return ceil(sum(int(c) / s for c, s in kept) + peak) + steered

    @property
    def prompts_per_pass(self) -> int:
        """Prompts to decode at once: many where they share one map, few where each has its own."""
        return 128 if self.config.fusion == "late" else 8

    def with_stand_ins(self, volume: Tensor) -> Tensor:
        """The volume ``B C X Y Z``; a channel that is NaN throughout gets its learned stand-in.

        A volume that lacks nothing is returned as it is, not copied.
        """
        if not self.config.channels:
            return volume
        missing = volume.isnan().all(dim=(2, 3, 4), keepdim=True)
        if not missing.any():
            return volume
        stand_ins = self.stand_ins.to(volume.dtype)[:, None, None, None]
        return torch.where(missing, stand_ins, volume)

    def encode(self, volume: Tensor, report: ReportTokens | None = None) -> Features:
        """Features of a volume ``B C X Y Z`` whose sides are multiples of ``granularity``.

        Args:
            volume: Without missing channels; see ``with_stand_ins``.
            report: What is known of each of the B scans beside the prompts. A scan whose report has
                no token is encoded exactly as without.

        Raises:
            ModelError: The report is for another network, or for another number of scans.
        """
        features = self.encode_coarse(volume, report)
        if self.config.fusion == "multiscale":
            return features
        return replace(features, finest=self.finest(features))

    def encode_coarse(self, volume: Tensor, report: ReportTokens | None = None) -> Features:
        """Features without the map at full resolution."""
        heard = self._heard(report, len(volume))
        fusion = self.report_fusion
        refinements = {} if heard is None or fusion is None else fusion.refinements(heard)
        maps = self._pyramid(volume)
        if 0 in refinements:
            maps = [*maps[:-1], refinements[0](maps[-1])]
        late = self.config.fusion == "late"
        decoded = self.pixel_decoder(maps, refinements=refinements) if late else []
        prior = None
        if heard is not None and fusion is not None:
            prior = fusion.prior_map(heard, grid_of(maps[-2]))
        if prior is not None:
            half = decoded[0]
            decoded[0] = half + self._told(prior, half.shape[2:], level=1).to(half.dtype)
        tokens, position = self.token_pool(maps)
        return Features(
            tuple(maps), tuple(decoded), tokens, position, refinements=refinements, prior=prior
        )

    def _told(self, prior: Tensor, shape: Sequence[int], *, level: int) -> Tensor:
        """What the report alone adds to a map that masks are made of."""
        assert self.report_fusion is not None and self.report_fusion.prior is not None
        told: Tensor = self.report_fusion.prior(prior, shape, level)
        return told

    def _heard(self, report: ReportTokens | None, scans: int) -> Heard | None:
        """The reports of so many scans as they are read; None where there are none."""
        if report is None:
            return None
        if self.report_fusion is None:
            raise ModelError(
                "this network reads no reports.",
                remedy="Leave the report out, or take a model whose network has `report` fusion.",
            )
        if len(report.mask) != scans:
            raise ModelError(f"{len(report.mask)} reports were given for {scans} scans.")
        return self.report_fusion.read(report)

    def _pyramid(self, volume: Tensor) -> list[Tensor]:
        if not (self.recompute and torch.is_grad_enabled()):
            return self.backbone(volume)  # type: ignore[no-any-return]
        return checkpoint(self.backbone, volume, use_reentrant=False)  # type: ignore[no-any-return]

    def finest(self, features: Features, block: Block | None = None) -> Tensor:
        """Prompt-free map at full resolution, of a block of half-resolution voxels or of all."""
        finest = self.pixel_decoder.finest(features.decoded[0], features.maps[0], block)
        if features.prior is None:
            return finest
        told = self._told(features.prior, features.maps[0].shape[2:], level=0)
        part = (slice(None),) * 3 if block is None else doubled(block)
        return finest + told[:, :, *part].to(finest.dtype)

    def refine(self, features: Features, queries: Tensor) -> Tensor:
        """Queries ``B K Q`` after reading the image, with the queries themselves: ``B K E+Q``."""
        asked = self._whitened(queries).to(features.tokens.dtype)
        refined = self.query_decoder(
            self.query_projection(asked), features.tokens, features.position
        )
        return torch.cat([refined, asked.to(refined.dtype)], dim=-1)

    def _whitened(self, queries: Tensor) -> Tensor:
        if not self.config.whiten_queries:
            return queries
        # in float32: rounding would be scaled up with what little tells two names apart
        with torch.autocast(queries.device.type, enabled=False):
            return (queries.float() - self.query_mean) @ self.query_whitening

    def presence(self, features: Features, refined: Tensor) -> Tensor:
        """Presence logits ``B K``: what the refined query says, and the surest voxel of its mask.

        Masks do not learn from presence, so a wrong presence cannot spoil them.
        """
        with torch.no_grad():
            if self.config.fusion == "multiscale":
                surest = self.masks(features, refined).flatten(2).amax(-1).float()
            elif self.config.presence_head:
                surest = largest_logits(features.decoded[0], self.mask_vectors(refined, level=1))
            else:
                surest = largest_logits(_finest(features), self.mask_vectors(refined))
        return self._judged(refined, surest)

    def _judged(self, refined: Tensor, surest: Tensor) -> Tensor:
        if not self.config.presence_head:
            return surest
        said: Tensor = self.presence_head(refined[..., : self.config.embedding])
        return said.squeeze(-1).float() + self.evidence * surest

    def mask_vectors(self, refined: Tensor, level: int = 0) -> Tensor:
        """Weights and, last, bias of each prompt's mask at a decoder level, ``B K C+1``.

        Level 0 is full resolution, each next one half of it; those exist with ``late`` fusion.
        """
        seen = refined[..., : self.config.embedding]
        asked = refined[..., self.config.embedding :]
        vectors: Tensor = self.mask_heads[level](seen).float()
        if self.config.gelu_ends:
            return functional.pad(vectors, (0, 1))  # no bias
        if self.config.text_shortcut:
            vectors = vectors + self.shortcuts[level](asked).float()
        return vectors

    def decode(self, features: Features, queries: Tensor) -> Decoded:
        """Masks of every prompt at full resolution, and its presence logit."""
        exactly = partial(torch.autocast, queries.device.type, enabled=False)
        # in float32: half precision rounds differently with the number of prompts
        seen = replace(features, tokens=features.tokens.float(), position=features.position.float())
        with exactly():
            refined = self.refine(seen, queries.float())
            if self.config.fusion == "late":
                presence = self.presence(features, refined)
                return Decoded(_finest(features), self.mask_vectors(refined), presence)
        logits = self.masks(features, refined)
        with exactly():
            presence = self._judged(refined, logits.detach().flatten(2).amax(-1).float())
        return Decoded.of_logits(logits, presence)

    def masks(self, features: Features, refined: Tensor) -> Tensor:
        """Mask logits ``B K X Y Z`` of refined queries at full resolution."""
        vectors = self.mask_vectors(refined)
        if self.config.fusion == "late":
            return mask_logits(_finest(features), vectors)
        steered = [
            mask_logits(self._steered_map(features, refined[:, k]), vectors[:, k : k + 1])
            for k in range(refined.shape[1])
        ]
        return torch.cat(steered, dim=1)

    def _steered_map(self, features: Features, query: Tensor) -> Tensor:
        """Finest decoder map when one refined query ``B E`` steers every stage."""
        extras: list[Tensor | None] = [None]
        for head, skip in zip(self.prompt_heads, features.maps[1:-1], strict=True):
            kernels = head(query[:, : self.config.embedding]).unflatten(
                1, (self.config.prompt_maps, skip.shape[1])
            )
            extras.append(torch.einsum("bcxyz,bmc->bmxyz", skip, kernels.to(skip.dtype)))
        decoded: list[Tensor] = self.pixel_decoder(features.maps, extras, features.refinements)
        return self.pixel_decoder.finest(decoded[0], features.maps[0])


def _mask_heads(config: NetworkConfig, levels: Sequence[int]) -> nn.ModuleList:
    """What makes mask vectors for maps of so many channels."""
    inner = config.mask_hidden or (config.embedding,) * len(levels)
    return nn.ModuleList(
        Perceptron(config.embedding, hidden, width, gelu_end=True)
        if config.gelu_ends
        else Perceptron(config.embedding, hidden, width + 1)
        for hidden, width in zip(inner, levels, strict=False)
    )


def _finest(features: Features) -> Tensor:
    """The map at full resolution, which ``encode`` leaves and ``encode_coarse`` does not."""
    assert features.finest is not None
    return features.finest
