"""Makes a model folder of the two files that a SAT model is published as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from textseg.atomic import file_sha256
from textseg.errors import ModelError, ResourceError
from textseg.knowledge import load_classes, load_tree
from textseg.network.model import NetworkConfig, PromptedSegmenter
from textseg.network.sat_text_encoder import SatTextEncoder, SatTextEncoderConfig
from textseg.network.weights import Domain, ModelManifest, save_model
from textseg.zoo.checkpoint import read_checkpoint
from textseg.zoo.model_folder import check_free, new_model_folder
from textseg.zoo.sat_weights import (
    SAT_NANO,
    SAT_PRO,
    FileKind,
    check_pair,
    classify,
    convert,
    convert_text,
)

__all__ = [
    "SAT_NANO",
    "SAT_PRO",
    "FileKind",
    "classify",
    "convert",
    "convert_text",
    "domains",
    "import_sat",
]

SPACING_MM = (1.0, 1.0, 3.0)
WINDOW = (288, 288, 96)
_SPINE = "spine"
"""Region whose MR scans, all of one data set, were turned to sagittal slices."""


def import_sat(
    checkpoint: Path,
    text_encoder: Path,
    vocabulary: Path,
    folder: Path,
    *,
    name: str,
    version: str | None = None,
    licence: str = "unknown",
    source: Mapping[str, str] | None = None,
    unpaired: bool = False,
    overwrite: bool = False,
) -> ModelManifest:
    """Writes the model folder of a SAT model in float32; returns its manifest.

    Nothing in the files is run, every weight is accounted for, and the folder appears when it is
    complete.

    Args:
        checkpoint: The network, as published.
        text_encoder: The text encoder published with it.
        vocabulary: ``vocab.txt`` of BioLORD-2023-C, from which the text encoder was made.
        folder: The model folder to write.
        name: ``sat-nano`` or ``sat-pro``, which the checkpoint must be.
        version: Of the weights; named after the step of training by default.
        licence: Of the weights.
        source: sha256 of the three files by name, if known; otherwise they are worked out.
        unpaired: Accept files that were written at different steps of training.
        overwrite: Replace a model that is there.

    Raises:
        ModelError: The files are not what they must be: E402 and E405 to E413.
        ResourceError: The folder exists (E504) or cannot be written.
    """
    check_free(folder, overwrite=overwrite)
    pieces = _read_pieces(vocabulary)
    network_file, text_file = read_checkpoint(checkpoint), read_checkpoint(text_encoder)
    check_pair(network_file, text_file, name=name, unpaired=unpaired)
    config, weights = convert(network_file, name=name)
    text_config, text_weights = SatTextEncoderConfig(), convert_text(text_file)
    encoder = _encoder(text_config, text_weights, pieces)
    manifest = ModelManifest(
        name=name,
        version=version or f"step-{network_file.step}",
        licence=licence,
        sha256="",
        source=dict(source or _sha256(checkpoint, text_encoder, vocabulary)),
        network=config.model_dump(mode="json"),
        text_encoder=text_config.model_dump(mode="json"),
        domains=domains(),
        preparation="sat",
        # what is there shows in the masks alone, whichever threshold they are cut at
        presence_threshold=0.0,
    )
    num_bytes = sum(
        4 * tensor.numel() for part in (weights, text_weights) for tensor in part.values()
    )
    with new_model_folder(folder, overwrite=overwrite, num_bytes=num_bytes) as built:
        return _saved(built, _network(config, weights), encoder, manifest)


def _sha256(*files: Path) -> dict[str, str]:
    """Checksums by the name of the file, or by its whole path where names are alike."""
    alike = len({path.name for path in files}) < len(files)
    return {str(path) if alike else path.name: file_sha256(path) for path in files}


def domains() -> tuple[Domain, ...]:
    """What SAT segments, where: in each modality the classes that its data sets label there."""
    tree = load_tree()
    shown = {written: _concepts(written) for written in ("CT", "MRI", "PET")}
    spine = [concept for concept in shown["MRI"] if tree[concept].region == _SPINE]
    body = [concept for concept in shown["MRI"] if concept not in spine]
    return (
        _domain("body-ct", "ct", shown["CT"]),
        _domain("body-mr", "mr", body),
        _domain("spine-mr", "mr", spine, axes="ASR"),
        _domain("body-pet", "pet", shown["PET"]),
    )


def _domain(
    name: str, modality: Literal["ct", "mr", "pet"], concepts: Sequence[str], *, axes: str = "RAS"
) -> Domain:
    return Domain(
        name=name,
        spacing_mm=SPACING_MM,
        window=WINDOW,
        modalities=(modality,),
        concepts=tuple(concepts),
        axes=axes,
    )


def _concepts(modality: str) -> tuple[str, ...]:
    """Concepts that are a class of their own in a modality."""
    classes = load_classes().values()
    found = (c.concepts for c in classes if modality in c.modalities and len(c.concepts) == 1)
    return tuple(sorted({concept for (concept,) in found}))


def _read_pieces(path: Path) -> list[str]:
    """The word pieces of a vocabulary file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise ModelError(
            "there is no such vocabulary." if missing else f"is no vocabulary: {error}.",
            code="E405" if missing else "E411",
            path=path,
            remedy="Give the vocab.txt of FremyCompany/BioLORD-2023-C.",
        ) from error
    return text.removesuffix("\n").split("\n")


def _network(config: NetworkConfig, weights: Mapping[str, Tensor]) -> PromptedSegmenter:
    """The network with these very tensors, which may still be on disk."""
    with torch.device("meta"):
        network = PromptedSegmenter(config)
    network.load_state_dict(weights, assign=True)
    return network


def _encoder(
    config: SatTextEncoderConfig, weights: Mapping[str, Tensor], pieces: list[str]
) -> SatTextEncoder:
    with torch.device("meta"):
        encoder = SatTextEncoder(config, pieces)
    encoder.load_state_dict(weights, assign=True)
    return encoder


def _saved(
    folder: Path, network: PromptedSegmenter, encoder: SatTextEncoder, manifest: ModelManifest
) -> ModelManifest:
    try:
        return save_model(folder, network, encoder, manifest=manifest, half=False)
    except SafetensorError as error:  # what it makes of a full disk
        raise ResourceError(f"the weights cannot be written: {error}.", path=folder) from error
