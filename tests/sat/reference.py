"""SAT (Nano, Pro) as its description reads: the oracle that textseg's own networks are tested by.

Nothing here is fast or shared with textseg. Axes are H, W and D, without a batch; weights are read
under the names of the original checkpoints. The file reads in the order things happen: scan, text
tower, network, sliding window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import monai.transforms as mt
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from torch import Tensor
from transformers import MPNetConfig, MPNetModel

from tests.sat.filled import (
    ARCHITECTURES,
    BUCKETS,
    POSITIONS,
    QUERY_LAYERS,
    TEXT_HEADS,
    TEXT_HIDDEN,
    TEXT_LAYERS,
    VOCABULARY,
    WIDTH,
    SatKind,
)

SPACING_MM = (1.0, 1.0, 3.0)
WINDOW = (288, 288, 96)
MAX_QUERIES = 256
HEADS = 8
LEVELS = 6
CT_RANGE_HU = (-500.0, 1000.0)
PERCENTILES = (0.5, 99.5)


def preprocess(
    array: np.ndarray, affine: np.ndarray, modality: str, orientation: str = "RAS"
) -> Tensor:
    """The scan on SAT's grid, ``H W D``: oriented, 1 x 1 x 3 mm, cut to values above 0, z-scored.

    Only the modality ``ct`` is clipped to a range of HU; any other word means percentiles.
    """
    steps = [
        mt.Orientation(orientation, labels=None),
        mt.Spacing(SPACING_MM, mode="bilinear"),
        mt.CropForeground(),
    ]
    scan = MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine))
    volume = mt.Compose(steps)(scan).as_tensor()[0]
    low, high = CT_RANGE_HU
    if modality.lower() != "ct":
        low, high = np.percentile(volume.numpy(), PERCENTILES)
    volume = volume.clip(low, high)
    return (volume - volume.mean()) / volume.std(correction=0)


class ReferenceText:
    """The text tower: token ids and modalities in, queries out."""

    def __init__(self, state: Mapping[str, Tensor]):
        self._weights = {name.removeprefix("module."): value for name, value in state.items()}
        config = MPNetConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=TEXT_HEADS,
            intermediate_size=TEXT_HIDDEN,
            max_position_embeddings=POSITIONS,
            relative_attention_num_buckets=BUCKETS,
            layer_norm_eps=1e-5,
        )
        self._tower = MPNetModel(config).eval()
        prefix = "text_tower.biolord."
        tower = {
            name.removeprefix(prefix): value
            for name, value in self._weights.items()
            # a buffer that this version of the library computes itself
            if name.startswith(prefix) and not name.endswith("position_ids")
        }
        self._tower.load_state_dict(tower)

    @torch.no_grad()
    def hidden(self, ids: Tensor) -> Tensor:
        """Last hidden state ``N L 768`` of ids ``N L``, which are padded with 0."""
        return self._tower(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state

    def pool(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Mean over the tokens that are not padding, ``N 768``."""
        mask = (ids > 0).to(hidden.dtype)[:, :, None]
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)

    def project(self, pooled: Tensor) -> Tensor:
        """The pooled text in the space of queries, ``N 768``."""
        weights = self._weights
        x = F.gelu(_linear(weights, "projection_layer.0", pooled))
        return _linear(weights, "projection_layer.2", x)

    def __call__(self, ids: Tensor, modalities: Tensor) -> Tensor:
        """Queries ``N 768``; modality 0 is CT, 1 MR, 2 ultrasound, 3 PET."""
        projected = self.project(self.pool(self.hidden(ids), ids))
        return projected + self._weights["modality_embed.weight"][modalities]


@dataclass(frozen=True)
class Encoded:
    """What one patch gives before any query is seen."""

    encoder_maps: tuple[Tensor, ...]
    """Six maps ``C H W D``, full resolution first."""
    decoder_maps: tuple[Tensor, ...]
    """Five maps ``C H W D``, full resolution first."""
    tokens: Tensor
    """Memory, ``T 768``; D runs fastest."""
    position: Tensor
    """Position code, ``T 768``, which is added to the memory where it serves as key."""


@dataclass(frozen=True)
class Stages:
    """All that the network computes for one patch and its queries, in order."""

    encoded: Encoded
    decoded_query: Tensor
    """Queries after attention, ``N 768``."""
    mask_vectors: Tensor
    """One vector a query, ``N C``."""
    logits: Tensor
    """``N H W D``"""
    deep_logits: tuple[Tensor, ...]
    """Outputs at a half, a quarter and an eighth of the resolution, which only training uses."""


class ReferenceSat:
    """The network; a state without heads for deep supervision serves all but ``stages``."""

    def __init__(self, state: Mapping[str, Tensor], kind: SatKind):
        self._weights = {name.removeprefix("module."): value for name, value in state.items()}
        self._blocks = ARCHITECTURES[kind].blocks

    @torch.no_grad()
    def encode(self, image: Tensor) -> Encoded:
        """Maps and memory of a patch ``3 H W D`` whose axes are multiples of 32."""
        encoder_maps = self._encoder_maps(image)
        tokens = self._tokens(encoder_maps)
        position = position_code(encoder_maps[-1].shape[1:]).to(tokens)
        return Encoded(encoder_maps, self._decoder_maps(encoder_maps), tokens, position)

    @torch.no_grad()
    def decode_queries(self, encoded: Encoded, queries: Tensor) -> Tensor:
        """Queries ``N 768`` after six layers of attention to the memory."""
        key, value = encoded.tokens + encoded.position, encoded.tokens
        for layer in range(QUERY_LAYERS):
            prefix = f"transformer_decoder.layers.{layer}"
            normed = self._layer_norm(f"{prefix}.norm2", queries)
            queries = queries + self._attend(f"{prefix}.multihead_attn", normed, key, value)
            hidden = self._linear(f"{prefix}.linear1", self._layer_norm(f"{prefix}.norm3", queries))
            queries = queries + self._linear(f"{prefix}.linear2", F.relu(hidden))
        return self._layer_norm("transformer_decoder.norm", queries)

    def mask_vectors(self, decoded: Tensor, head: str = "mask_embed_proj") -> Tensor:
        """One vector ``C`` a query; the last layer is followed by a GELU too."""
        return self._gelu_mlp(head, decoded)

    @torch.no_grad()
    def logits(self, image: Tensor, queries: Tensor, max_queries: int = MAX_QUERIES) -> Tensor:
        """Logits ``N H W D`` of a patch ``3 H W D``; it is encoded once, whatever the chunks."""
        encoded = self.encode(image)
        chunks = []
        for chunk in queries.split(max_queries):
            vectors = self.mask_vectors(self.decode_queries(encoded, chunk))
            chunks.append(masks_of(encoded.decoder_maps[0], vectors))
        return torch.cat(chunks)

    @torch.no_grad()
    def stages(self, image: Tensor, queries: Tensor) -> Stages:
        """The same logits with all that leads to them, and those of deep supervision."""
        encoded = self.encode(image)
        decoded = self.decode_queries(encoded, queries)
        vectors = self.mask_vectors(decoded)
        full, *deep_maps = encoded.decoder_maps[:4]
        deep_vectors = [
            self.mask_vectors(decoded, f"mid_mask_embed_proj.{level}") for level in range(3)
        ]
        deep_logits = tuple(map(masks_of, deep_maps, deep_vectors))
        return Stages(encoded, decoded, vectors, masks_of(full, vectors), deep_logits)

    def _encoder_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for level in range(LEVELS):
            x = self._stage(f"backbone.encoder.stages.{level}.0", x, stride=1 if level == 0 else 2)
            maps.append(x)
        return tuple(maps)

    def _decoder_maps(self, encoder_maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        *skips, x = encoder_maps
        maps = []
        for stage, skip in enumerate(reversed(skips)):
            prefix = f"backbone.decoder.transpconvs.{stage}"
            weight, bias = self._weights[f"{prefix}.weight"], self._weights[f"{prefix}.bias"]
            x = torch.cat([F.conv_transpose3d(x, weight, bias, stride=2), skip])
            x = self._stage(f"backbone.decoder.stages.{stage}", x)
            maps.append(x)
        return tuple(reversed(maps))

    def _stage(self, prefix: str, x: Tensor, stride: int = 1) -> Tensor:
        for block in range(self._blocks):
            conv, norm = f"{prefix}.convs.{block}.conv", f"{prefix}.convs.{block}.norm"
            weight, bias = self._weights[f"{conv}.weight"], self._weights[f"{conv}.bias"]
            x = F.conv3d(x, weight, bias, stride=stride if block == 0 else 1, padding=1)
            weight, bias = self._weights[f"{norm}.weight"], self._weights[f"{norm}.bias"]
            x = F.instance_norm(x[None], weight=weight, bias=bias, eps=1e-5)[0]
            x = F.leaky_relu(x, 0.01, inplace=True)
        return x

    def _tokens(self, encoder_maps: Sequence[Tensor]) -> Tensor:
        pooled = [
            F.avg_pool3d(x, 2 ** (LEVELS - 1 - level)) for level, x in enumerate(encoder_maps)
        ]
        return self._gelu_mlp(
            "projection_layer", rearrange(torch.cat(pooled), "c h w d -> (h w d) c")
        )

    def _attend(self, prefix: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = self._weights[f"{prefix}.in_proj_weight"].chunk(3)
        biases = self._weights[f"{prefix}.in_proj_bias"].chunk(3)
        q, k, v = (
            rearrange(F.linear(x, weight, bias), "n (heads c) -> heads n c", heads=HEADS)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        attention = (q @ k.mT / math.sqrt(WIDTH / HEADS)).softmax(dim=-1)  # heads N T
        return self._linear(
            f"{prefix}.out_proj", rearrange(attention @ v, "heads n c -> n (heads c)")
        )

    def _gelu_mlp(self, prefix: str, x: Tensor) -> Tensor:
        return F.gelu(self._linear(f"{prefix}.2", F.gelu(self._linear(f"{prefix}.0", x))))

    def _layer_norm(self, prefix: str, x: Tensor) -> Tensor:
        weight, bias = self._weights[f"{prefix}.weight"], self._weights[f"{prefix}.bias"]
        return F.layer_norm(x, (WIDTH,), weight, bias, eps=1e-5)

    def _linear(self, prefix: str, x: Tensor) -> Tensor:
        return _linear(self._weights, prefix, x)


def _linear(weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{prefix}.weight"], weights[f"{prefix}.bias"])


def masks_of(features: Tensor, mask_vectors: Tensor) -> Tensor:
    """Logits ``N H W D``: how each voxel of ``C H W D`` agrees with each vector of ``N C``."""
    return torch.einsum("chwd,nc->nhwd", features, mask_vectors)


def position_code(size: Sequence[int]) -> Tensor:
    """Sines and cosines of h, w and d in turn, 256 channels each, ``T 768`` in float64."""
    channels = WIDTH // 3
    rates = 10_000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    codes = []
    for count in size:
        angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
        codes.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1))
    places = product(*(range(count) for count in size))
    return torch.stack(
        [torch.cat([code[n] for code, n in zip(codes, place, strict=True)]) for place in places]
    )


def windows(size: Sequence[int], window: Sequence[int] = WINDOW) -> list[tuple[slice, ...]]:
    """The windows of a volume, D fastest; an axis that is too short is one short slice."""
    return list(product(*(_axis_windows(n, w) for n, w in zip(size, window, strict=True))))


def _axis_windows(length: int, window: int) -> list[slice]:
    step = window // 2
    count = max(math.ceil(length / step) - 1, 1)
    stops = [min(i * step + window, length) for i in range(count)]
    return [slice(max(stop - window, 0), stop) for stop in stops]


def window_weight(window: Sequence[int] = WINDOW) -> Tensor:
    """How much a window says about each of its voxels: float16, 10 at the centre, nowhere 0."""
    impulse = np.zeros(window)
    impulse[tuple(n // 2 for n in window)] = 1
    bell = gaussian_filter(impulse, [n / 8 for n in window], mode="constant")
    weight = torch.from_numpy(bell / bell.max() * 10).half()
    weight[weight == 0] = weight[weight > 0].min()
    return weight


class Network(Protocol):
    """What is slid over a volume."""

    def logits(self, image: Tensor, queries: Tensor) -> Tensor:
        """Logits ``N H W D`` of a patch ``3 H W D``."""


@torch.no_grad()
def segment(
    model: Network, volume: Tensor, queries: Tensor, window: Sequence[int] = WINDOW
) -> Tensor:
    """Probability ``N H W D`` that each voxel of a preprocessed ``H W D`` is what a query means.

    All windows are cut first, and values and weights are summed for each query by itself, as the
    original does; both cost memory that could be spared. The network runs where the queries are;
    sums are kept on the CPU.
    """
    places = windows(volume.shape, window)
    patches = [_patch(volume[place], window) for place in places]
    weight = window_weight(window).float()
    total = torch.zeros(len(queries), *volume.shape)
    weights = torch.zeros_like(total)
    for place, patch in zip(places, patches, strict=True):
        logits = model.logits(patch.to(queries.device), queries)
        probability = logits.sigmoid().float().cpu()
        # a window cut short takes the corner of the weight, not its middle
        corner = tuple(slice(0, axis.stop - axis.start) for axis in place)
        total[:, *place] += probability[:, *corner] * weight[corner]
        weights[:, *place] += weight[corner]
    return total / weights


def _patch(cut: Tensor, window: Sequence[int]) -> Tensor:
    """Three equal channels of the window's size, with zeros behind what is short."""
    patch = cut.new_zeros(3, *window)
    patch[:, *(slice(0, n) for n in cut.shape)] = cut
    return patch


def masks(probability: Tensor) -> Tensor:
    """Masks on the preprocessed grid."""
    return probability > 0.5


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Overlap from 0 to 1; with an empty truth, 1 for an empty prediction."""
    both = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / both if both else 1.0
