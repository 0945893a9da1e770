"""Names and shapes of the tensors in SAT's checkpoints, worked out from a model's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TypeAlias

from textseg.network.model import NetworkConfig

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
_Rows: TypeAlias = Iterator[tuple[str, tuple[int, ...]]]

IMAGE_CHANNELS = 3
"""SAT is given its one channel three times."""


def network_shapes(config: NetworkConfig) -> Shapes:
    """Shape of every tensor in the checkpoint of a network, under its one name."""
    return dict(_network_shapes(config))


def text_shapes() -> Shapes:
    """Shape of every tensor in the checkpoint of a text encoder."""
    return dict(_text_shapes())


def _network_shapes(config: NetworkConfig) -> _Rows:
    widths, width = config.backbone.channels, config.embedding
    inputs = (IMAGE_CHANNELS, *widths)
    for level, count in enumerate(config.backbone.blocks):
        stage = [inputs[level]] + [widths[level]] * count
        yield from _convolutions(f"backbone.encoder.stages.{level}.0", stage)
    for place, (skip, coarse) in enumerate(reversed(list(pairwise(widths)))):
        yield f"backbone.decoder.transpconvs.{place}.weight", (coarse, skip, 2, 2, 2)
        yield f"backbone.decoder.transpconvs.{place}.bias", (skip,)
        stage = [2 * skip] + [skip] * config.decoder_blocks
        yield from _convolutions(f"backbone.decoder.stages.{place}", stage)
    yield from _perceptron("projection_layer", sum(widths), config.token_hidden or width, width)
    for layer in range(config.layers):
        yield from _attention_layer(f"transformer_decoder.layers.{layer}", width, config.hidden)
    yield from _norm("transformer_decoder.norm", width)
    outputs = (config.full_channels, *widths[1:])
    for level in range(config.mask_levels):
        name = f"mid_mask_embed_proj.{level - 1}" if level else "mask_embed_proj"
        yield from _perceptron(name, width, config.mask_hidden[level], outputs[level])


def _text_shapes(width: int = 768, hidden: int = 3072) -> _Rows:
    tower = "text_tower.biolord"
    yield f"{tower}.embeddings.word_embeddings.weight", (30527, width)
    yield f"{tower}.embeddings.position_embeddings.weight", (514, width)
    yield from _norm(f"{tower}.embeddings.LayerNorm", width)
    for number in range(12):
        layer = f"{tower}.encoder.layer.{number}"
        for part in "qkvo":
            yield from _linear(f"{layer}.attention.attn.{part}", width, width)
        yield from _norm(f"{layer}.attention.LayerNorm", width)
        yield from _linear(f"{layer}.intermediate.dense", width, hidden)
        yield from _linear(f"{layer}.output.dense", hidden, width)
        yield from _norm(f"{layer}.output.LayerNorm", width)
    yield f"{tower}.encoder.relative_attention_bias.weight", (32, 12)
    yield from _linear(f"{tower}.pooler.dense", width, width)
    yield from _perceptron("projection_layer", width, width, width)
    yield "modality_embed.weight", (4, width)


def _convolutions(stage: str, widths: list[int]) -> _Rows:
    for block, (inputs, outputs) in enumerate(pairwise(widths)):
        yield f"{stage}.convs.{block}.conv.weight", (outputs, inputs, 3, 3, 3)
        yield f"{stage}.convs.{block}.conv.bias", (outputs,)
        yield from _norm(f"{stage}.convs.{block}.norm", outputs)


def _attention_layer(layer: str, width: int, hidden: int) -> _Rows:
    yield f"{layer}.multihead_attn.in_proj_weight", (3 * width, width)
    yield f"{layer}.multihead_attn.in_proj_bias", (3 * width,)
    yield from _linear(f"{layer}.multihead_attn.out_proj", width, width)
    yield from _linear(f"{layer}.linear1", width, hidden)
    yield from _linear(f"{layer}.linear2", hidden, width)
    for number in (1, 2, 3):
        yield from _norm(f"{layer}.norm{number}", width)


def _perceptron(name: str, inputs: int, hidden: int, outputs: int) -> _Rows:
    yield from _linear(f"{name}.0", inputs, hidden)
    yield from _linear(f"{name}.2", hidden, outputs)


def _linear(name: str, inputs: int, outputs: int) -> _Rows:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> _Rows:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
