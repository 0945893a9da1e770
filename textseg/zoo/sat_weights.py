"""The published SAT models: their shape, the names of their weights, and what ours are called.

SAT is "One model to rule them all: towards universal segmentation for medical images with text
prompts" (Zhao et al., 2023). A model is two files, the network and its text encoder, both written
at the same step of one training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache

from torch import Tensor

from textseg.errors import ModelError
from textseg.network.backbones import BackboneConfig
from textseg.network.model import NetworkConfig
from textseg.zoo.checkpoint import Checkpoint
from textseg.zoo.sat_shapes import Shapes, network_shapes, text_shapes


def _sat(
    channels: tuple[int, ...], *, blocks: int, token_hidden: int, mask_hidden: tuple[int, ...]
) -> NetworkConfig:
    """A SAT model over a plain U-Net, with the mask heads of its training."""
    return NetworkConfig(
        backbone=BackboneConfig(
            channels=channels, blocks=(blocks,) * len(channels), norm="instance"
        ),
        decoder_blocks=blocks,
        light_full_resolution=False,
        full_channels=channels[0],
        mask_levels=len(mask_hidden),
        query_features=768,
        embedding=768,
        layers=6,
        heads=8,
        hidden=2048,
        text_shortcut=False,
        token_hidden=token_hidden,
        mask_hidden=mask_hidden,
        gelu_ends=True,
        query_projection=False,
        presence_head=False,
        whiten_queries=False,
        norm="instance",
    )


SAT_NANO = _sat(
    (64, 64, 128, 256, 512, 768),
    blocks=2,
    token_hidden=768,
    mask_hidden=(256, 256, 384, 512),
)
SAT_PRO = _sat(
    (128, 128, 256, 512, 1024, 1536),
    blocks=3,
    token_hidden=1536,
    mask_hidden=(384, 384, 512, 512),
)

MODELS: Mapping[str, NetworkConfig] = {"sat-nano": SAT_NANO, "sat-pro": SAT_PRO}
"""Configuration of each model that can be imported, with the mask heads of its training."""

DROPPED = ""
_FIRST = "backbone.stages.0.0.0.weight"

NAMES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "network": (
        ("backbone.encoder.stages.{s}.0.convs.{i}.conv", "backbone.stages.{s}.{i}.0"),
        ("backbone.encoder.stages.{s}.0.convs.{i}.norm", "backbone.stages.{s}.{i}.1"),
        ("backbone.decoder.transpconvs.{s}", "pixel_decoder.stages.{s}.up"),
        ("backbone.decoder.stages.{s}.convs.{i}.conv", "pixel_decoder.stages.{s}.blocks.{i}.0"),
        ("backbone.decoder.stages.{s}.convs.{i}.norm", "pixel_decoder.stages.{s}.blocks.{i}.1"),
        ("projection_layer", "token_pool.project"),
        ("transformer_decoder.layers.{l}.norm1", DROPPED),  # of a self-attention it lacks
        ("transformer_decoder.layers.{l}.norm2", "query_decoder.layers.{l}.attention_norm"),
        ("transformer_decoder.layers.{l}.multihead_attn", "query_decoder.layers.{l}.attention"),
        ("transformer_decoder.layers.{l}.norm3", "query_decoder.layers.{l}.feed_forward_norm"),
        ("transformer_decoder.layers.{l}.linear1", "query_decoder.layers.{l}.feed_forward.0"),
        ("transformer_decoder.layers.{l}.linear2", "query_decoder.layers.{l}.feed_forward.2"),
        ("transformer_decoder.norm", "query_decoder.norm"),
        ("mask_embed_proj", "mask_heads.0"),
        ("mid_mask_embed_proj.0", "mask_heads.1"),
        ("mid_mask_embed_proj.1", "mask_heads.2"),
        ("mid_mask_embed_proj.2", "mask_heads.3"),
    ),
    "text_encoder": (
        ("text_tower.biolord.embeddings.position_ids", DROPPED),  # of older transformers
        ("text_tower.biolord.pooler", DROPPED),  # a text is the mean of its words
        ("text_tower.biolord", "transformer"),
        ("projection_layer", "projection"),
        ("modality_embed", "modality"),
    ),
}
"""How SAT's names begin, once canonical, and ours instead; the first row that fits counts."""


class FileKind(StrEnum):
    """What a checkpoint is, in the words of an error."""

    SAT_NANO = "SAT-Nano"
    SAT_PRO = "SAT-Pro"
    SAT_UNET_H = "SAT with the U-Net H, which was not published as Nano or Pro"
    SAT_SWIN = "SAT with a SwinUNETR"
    SAT_MAMBA = "SAT with a U-Mamba"
    SAT_OTHER = "a SAT model of another size"
    TEXT = "the text encoder of SAT"
    PRETRAINING = "a file of SAT's knowledge pre-training, not the text encoder of a SAT model"
    OTHER_TEXT = "a text encoder of another kind than BioLORD, such as MedCPT or BERT"
    TEXTSEG = "a model of textseg itself"
    UNKNOWN = "no model that textseg knows"


KINDS: Mapping[str, FileKind] = {"sat-nano": FileKind.SAT_NANO, "sat-pro": FileKind.SAT_PRO}


def config_of(name: str, state: Mapping[str, Tensor]) -> NetworkConfig:
    """Configuration of a model as its checkpoint has it: with all its mask heads, or the first."""
    config = MODELS[name]
    if any(key.startswith("mid_mask_embed_proj.") for key in state):
        return config
    return config.model_copy(update={"mask_levels": 1, "mask_hidden": config.mask_hidden[:1]})


def classify(state: Mapping[str, Tensor]) -> FileKind:
    """What the weights of a checkpoint belong to."""
    if any("atlas_tower" in key or "temperature" in key for key in state):
        return FileKind.PRETRAINING
    if "modality_embed.weight" in state or any(key.startswith("text_tower.") for key in state):
        return _text_kind(state)
    if any(key.startswith("transformer_decoder.") for key in state):
        return _network_kind(state)
    if any(key.startswith(("token_pool.", "network.token_pool.")) for key in state):
        return FileKind.TEXTSEG
    return FileKind.UNKNOWN


def _text_kind(state: Mapping[str, Tensor]) -> FileKind:
    modality = state.get("modality_embed.weight")
    if modality is not None and modality.shape[:1] == (5,):
        return FileKind.PRETRAINING
    if any(key.startswith("text_tower.biolord.") for key in state):
        return FileKind.TEXT
    return FileKind.OTHER_TEXT


def _network_kind(state: Mapping[str, Tensor]) -> FileKind:
    """Which SAT it is, by what only its backbone has; a file with gaps is still the nearest."""
    if any("mamba" in key or key.startswith("backbone.decoder.encoder.") for key in state):
        return FileKind.SAT_MAMBA
    if any("swin" in key.lower() for key in state):
        return FileKind.SAT_SWIN
    nearest = max(MODELS, key=lambda name: _share(state, MODELS[name]))
    if _share(state, MODELS[nearest]) > 0.5:
        return KINDS[nearest]
    first = state.get("backbone.encoder.stages.0.0.convs.0.conv.weight")
    if first is not None and first.shape[:1] == (256,):
        return FileKind.SAT_UNET_H
    return FileKind.SAT_OTHER


def _share(state: Mapping[str, Tensor], config: NetworkConfig) -> float:
    """Share of a model's backbone that is in the checkpoint."""
    shapes = {k: s for k, s in network_shapes(config).items() if k.startswith("backbone.")}
    return sum(k in state and state[k].shape == s for k, s in shapes.items()) / len(shapes)


def check_pair(network: Checkpoint, text: Checkpoint, *, name: str, unpaired: bool = False) -> None:
    """Refuses two files that are not the network and the text encoder of one model.

    Args:
        network: The file given as the network.
        text: The file given as its text encoder.
        name: A key of ``MODELS``.
        unpaired: Accept files that were written at different steps of training.

    Raises:
        ModelError: E409, or E411 where a file is of no known model.
    """
    found, found_text, wanted = classify(network.state), classify(text.state), KINDS[name]
    if found is FileKind.TEXT and found_text in KINDS.values():
        raise ModelError(
            f"the two files are swapped: this is {found}.",
            code="E409",
            path=network.path,
            remedy=f"Exchange {network.path.name} and {text.path.name}.",
        )
    if found is not wanted:
        raise _mistaken(network, found, f"the checkpoint of {wanted}")
    if found_text is not FileKind.TEXT:
        raise _mistaken(text, found_text, f"the text encoder published with {wanted}")
    if not unpaired and (network.step is None or network.step != text.step):
        raise ModelError(
            f"its text encoder {text.path.name} was written at step {text.step}, this at step "
            f"{network.step}; the two files of one model have the same step.",
            code="E409",
            path=network.path,
            remedy="Give the text encoder published with it, or accept these two with --unpaired.",
        )


def _mistaken(checkpoint: Checkpoint, found: FileKind, wanted: str) -> ModelError:
    remedies = {kind: f"Import it as {name}." for name, kind in KINDS.items()}
    remedies[FileKind.TEXT] = "Give it as --text-encoder."
    remedies[FileKind.TEXTSEG] = "It needs no import."
    if wanted.startswith("the text"):
        remedies = {kind: "Give it as --checkpoint." for kind in KINDS.values()}
    unknown = found is FileKind.UNKNOWN
    begins = f"; its weights begin with {next(iter(checkpoint.state))}" if unknown else ""
    return ModelError(
        f"is {found}, not {wanted}{begins}.",
        code="E411" if unknown else "E409",
        path=checkpoint.path,
        remedy=remedies.get(found, f"Give {wanted}, as its authors publish it."),
    )


def convert(checkpoint: Checkpoint, *, name: str) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Configuration and weights of our network that computes what the checkpoint's does.

    Raises:
        ModelError: E413, a weight is missing, unknown, or of another shape.
    """
    config = config_of(name, checkpoint.state)
    weights = _renamed(checkpoint, network_shapes(config), "network")
    # three equal channels through three kernels are one channel through their sum
    weights[_FIRST] = weights[_FIRST].double().sum(1, keepdim=True).float()
    return config, weights


def convert_text(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Weights of our text encoder that computes what the checkpoint's does.

    Raises:
        ModelError: E413, a weight is missing, unknown, or of another shape.
    """
    return _renamed(checkpoint, text_shapes(), "text_encoder")


def _renamed(checkpoint: Checkpoint, shapes: Shapes, part: str) -> dict[str, Tensor]:
    """The weights under our names, in float32, once all of them are there and fit."""
    names = {key: _ours(key, part) for key in {**shapes, **checkpoint.state}}
    used = {key for key in shapes if names[key] != DROPPED}
    state = checkpoint.state
    missing = [key for key in shapes if key in used and key not in state]
    unknown = [key for key in state if key not in shapes and names[key] != DROPPED]
    unfit = [
        f"{key} ({_described(state[key])}, not {_by(shape)})"
        for key, shape in shapes.items()
        if key in state and not (state[key].shape == shape and state[key].is_floating_point())
    ]
    for rows, problem in (
        (missing, "lacks {} of its weights: {}"),
        (unknown, "has {} weights that the model does not: {}"),
        (unfit, "has {} weights that do not fit: {}"),
    ):
        if rows:
            raise ModelError(
                f"{problem.format(len(rows), _first(rows))}; nothing is loaded in part.",
                code="E413",
                path=checkpoint.path,
                remedy="Give the file as its authors publish it.",
            )
    return {names[key]: state[key].float() for key in shapes if key in used}


def _ours(key: str, part: str) -> str:
    """Our name of a weight, or ``DROPPED``; a name no row knows stays as it is."""
    for theirs, ours in NAMES[part]:
        if match := _pattern(theirs).match(key):
            return ours.format(**match.groupdict()) + key[match.end() :] if ours else DROPPED
    return key


@cache
def _pattern(beginning: str) -> re.Pattern[str]:
    """Matches names that begin so; ``{s}`` is a number."""
    number = re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(beginning))
    return re.compile(number + r"(?=\.|$)")


def _described(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f"{tensor.dtype}".removeprefix("torch.") + " "
    return kind + _by(tensor.shape)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _first(rows: Sequence[str], count: int = 3) -> str:
    return ", ".join(rows[:count]) + (", ..." if len(rows) > count else "")
