"""SAT checkpoints and inputs that anyone can compute: every tensor follows from its name.

The original code was run once with these weights and inputs; what it gave is in ``fixture/``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

SatKind = Literal["nano", "pro"]
Kind = Literal["nano", "pro", "text"]
Shape = tuple[int, ...]

WIDTH = 768
QUERY_LAYERS, QUERY_HIDDEN = 6, 2048
TEXT_LAYERS, TEXT_HIDDEN, TEXT_HEADS = 12, 3072, 12
VOCABULARY, POSITIONS, BUCKETS, MODALITIES = 30_527, 514, 32, 4


@dataclass(frozen=True)
class Architecture:
    """What distinguishes the two networks; everything else follows from these numbers."""

    channels: tuple[int, ...]
    blocks: int
    mask_hidden: int
    deep_hidden: tuple[int, ...]
    patch: tuple[int, int, int]
    """Size in voxels, H W D, of the patch that the stored outputs belong to."""


ARCHITECTURES = {
    "nano": Architecture((64, 64, 128, 256, 512, 768), 2, 256, (256, 384, 512), (64, 32, 96)),
    "pro": Architecture((128, 128, 256, 512, 1024, 1536), 3, 384, (384, 512, 512), (64, 32, 64)),
}


def canonical(name: str) -> str:
    """The one name of a tensor that a checkpoint lists under several, without ``module.``."""
    name = name.removeprefix("module.")
    return name.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.")


def fill(name: str, shape: Shape) -> Tensor:
    """The tensor of this name: float32, or int64 counts for a table of positions."""
    name = canonical(name)
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).expand(shape).clone()
    owner, _, last = name.rpartition(".")
    owner = owner.rpartition(".")[2]
    values = _random(name).standard_normal(shape)
    if owner.startswith("norm") or owner == "LayerNorm":
        values = 0.1 * values + (last == "weight")
    elif len(shape) < 2:
        values *= 0.05
    else:
        values /= math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def case_image(size: Sequence[int]) -> Tensor:
    """The input patch, ``3 H W D``: waves of another length along each axis, and noise."""
    h, w, d = (np.arange(n).reshape(np.roll((n, 1, 1), axis)) for axis, n in enumerate(size))
    waves = np.sin(5 * h / size[0]) + np.cos(7 * w / size[1]) + np.sin(3 * d / size[2] + 1)
    image = waves + 0.5 * _random("image").standard_normal(tuple(size))
    return torch.from_numpy(image.astype(np.float32)).repeat(3, 1, 1, 1)


def case_queries(count: int) -> Tensor:
    """What stands in for the embeddings of prompts, ``N 768``."""
    values = _random("queries").standard_normal((count, WIDTH))
    return torch.from_numpy(values.astype(np.float32))


def case_voxels(size: Sequence[int], count: int) -> Tensor:
    """Where logits are compared: ascending indices into the flattened patch, none twice."""
    chosen = _random("voxels").choice(math.prod(size), count, replace=False)
    return torch.from_numpy(np.sort(chosen))


def _random(name: str) -> np.random.RandomState:
    return np.random.RandomState(crc32(name.encode()))


def state_shapes(kind: Kind, deep_supervision: bool = True) -> dict[str, Shape]:
    """Every key of the checkpoint, aliases included, and the shape of its tensor.

    Models for inference lack the heads of deep supervision. The text file lists the buffer of
    positions too, which files of older libraries hold and those of newer ones do not.
    """
    parts = _text_parts() if kind == "text" else _sat_parts(ARCHITECTURES[kind], deep_supervision)
    return {f"module.{name}": shape for name, shape in parts}


def filled_state(kind: Kind, deep_supervision: bool = True) -> dict[str, Tensor]:
    """The checkpoint's tensors by key; keys that are aliases hold the same tensor."""
    tensors: dict[str, Tensor] = {}
    state: dict[str, Tensor] = OrderedDict()
    for name, shape in state_shapes(kind, deep_supervision).items():
        if canonical(name) not in tensors:
            tensors[canonical(name)] = fill(name, shape)
        state[name] = tensors[canonical(name)]
    return state


def save_checkpoint(
    path: Path, kind: Kind, *, step: int = 200_000, state: dict[str, Tensor] | None = None
) -> None:
    """Writes a file as SAT's training does; ``state`` spares filling the tensors again."""
    state = filled_state(kind) if state is None else state
    container = {"step": step, "model_state_dict": OrderedDict(state)}
    if kind != "text":
        unique = {canonical(name): tensor for name, tensor in state.items()}
        optimizer = torch.optim.AdamW(unique.values(), lr=1e-4)
        container["optimizer_state_dict"] = optimizer.state_dict()
    torch.save(container, path)


def _sat_parts(architecture: Architecture, deep: bool) -> Iterator[tuple[str, Shape]]:
    channels, blocks = architecture.channels, architecture.blocks
    for stage, (before, after) in enumerate(pairwise((3, *channels))):
        yield from _stage(f"backbone.encoder.stages.{stage}.0", before, after, blocks)
    for stage, (below, skip) in enumerate(pairwise(reversed(channels))):
        yield from _stage(f"backbone.decoder.stages.{stage}", 2 * skip, skip, blocks)
        yield f"backbone.decoder.transpconvs.{stage}.weight", (below, skip, 2, 2, 2)
        yield f"backbone.decoder.transpconvs.{stage}.bias", (skip,)
    yield from _mlp("projection_layer", sum(channels), channels[-1], WIDTH)
    for layer in range(QUERY_LAYERS):
        yield from _query_layer(f"transformer_decoder.layers.{layer}")
    yield from _affine("transformer_decoder.norm", (WIDTH,), WIDTH)
    yield from _mlp("mask_embed_proj", WIDTH, architecture.mask_hidden, channels[0])
    if deep:
        for level, hidden in enumerate(architecture.deep_hidden):
            yield from _mlp(f"mid_mask_embed_proj.{level}", WIDTH, hidden, channels[level + 1])


def _stage(prefix: str, before: int, after: int, blocks: int) -> Iterator[tuple[str, Shape]]:
    for block in range(blocks):
        kernel = (after, before if block == 0 else after, 3, 3, 3)
        for conv, norm in (("conv", "norm"), ("all_modules.0", "all_modules.1")):
            yield from _affine(f"{prefix}.convs.{block}.{conv}", kernel, after)
            yield from _affine(f"{prefix}.convs.{block}.{norm}", (after,), after)


def _query_layer(prefix: str) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.multihead_attn.in_proj_weight", (3 * WIDTH, WIDTH)
    yield f"{prefix}.multihead_attn.in_proj_bias", (3 * WIDTH,)
    yield from _affine(f"{prefix}.multihead_attn.out_proj", (WIDTH, WIDTH), WIDTH)
    yield from _affine(f"{prefix}.linear1", (QUERY_HIDDEN, WIDTH), QUERY_HIDDEN)
    yield from _affine(f"{prefix}.linear2", (WIDTH, QUERY_HIDDEN), WIDTH)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _affine(f"{prefix}.{norm}", (WIDTH,), WIDTH)


def _text_parts() -> Iterator[tuple[str, Shape]]:
    tower = "text_tower.biolord"
    yield f"{tower}.embeddings.position_ids", (1, POSITIONS)
    yield f"{tower}.embeddings.word_embeddings.weight", (VOCABULARY, WIDTH)
    yield f"{tower}.embeddings.position_embeddings.weight", (POSITIONS, WIDTH)
    yield from _affine(f"{tower}.embeddings.LayerNorm", (WIDTH,), WIDTH)
    for layer in range(TEXT_LAYERS):
        prefix = f"{tower}.encoder.layer.{layer}"
        for name in "qkvo":
            yield from _affine(f"{prefix}.attention.attn.{name}", (WIDTH, WIDTH), WIDTH)
        yield from _affine(f"{prefix}.attention.LayerNorm", (WIDTH,), WIDTH)
        yield from _affine(f"{prefix}.intermediate.dense", (TEXT_HIDDEN, WIDTH), TEXT_HIDDEN)
        yield from _affine(f"{prefix}.output.dense", (WIDTH, TEXT_HIDDEN), WIDTH)
        yield from _affine(f"{prefix}.output.LayerNorm", (WIDTH,), WIDTH)
    yield f"{tower}.encoder.relative_attention_bias.weight", (BUCKETS, TEXT_HEADS)
    yield from _affine(f"{tower}.pooler.dense", (WIDTH, WIDTH), WIDTH)
    yield from _mlp("projection_layer", WIDTH, WIDTH, WIDTH)
    yield "modality_embed.weight", (MODALITIES, WIDTH)


def _mlp(prefix: str, before: int, hidden: int, after: int) -> Iterator[tuple[str, Shape]]:
    yield from _affine(f"{prefix}.0", (hidden, before), hidden)
    yield from _affine(f"{prefix}.2", (after, hidden), after)


def _affine(prefix: str, weight: Shape, bias: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.weight", weight
    yield f"{prefix}.bias", (bias,)
