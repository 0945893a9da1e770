"""From a training checkpoint to a model folder that ``Segmenter.from_pretrained`` loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textseg.errors import ModelError
from textseg.network.model import NetworkConfig, PromptedSegmenter
from textseg.network.text_encoder import TextEncoder
from textseg.network.weights import Domain, ModelManifest, save_model
from textseg.training.checkpoint import read_checkpoint
from textseg.training.datamodule import MixtureDataModule

_PREFIX = "network."


def export_model(
    checkpoint: Path,
    folder: Path,
    *,
    network: NetworkConfig,
    datamodule: MixtureDataModule,
    encoder: TextEncoder,
    name: str,
    version: str,
    licence: str,
    omit: Sequence[str] = (),
) -> ModelManifest:
    """Writes the averaged weights of a checkpoint as a model folder.

    Args:
        checkpoint: What ``textseg fit`` wrote.
        folder: Where to; its name should be the model's.
        network: Shape of the network that was trained.
        datamodule: The data it was trained on, set up; says which concepts each domain holds.
        encoder: The text encoder its queries came from.
        name: Name of the model.
        version: Version of the weights.
        licence: Licence of the weights.
        omit: Concepts that did not learn well enough to be offered.

    Raises:
        ModelError: The checkpoint is of another network.
    """
    state: dict[str, Any] = read_checkpoint(checkpoint)["state_dict"]
    tensors = {k[len(_PREFIX) :]: v for k, v in state.items() if k.startswith(_PREFIX)}
    model = PromptedSegmenter(network)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"the checkpoint is of another network: {error}", code="E402", path=checkpoint
        ) from error
    domains = []
    for config, space in zip(datamodule.domains, datamodule.spaces, strict=True):
        modalities = dict.fromkeys([config.modality, *(["mr"] if config.random_contrast else [])])
        domains.append(
            Domain(
                name=config.name,
                spacing_mm=(config.spacing_mm,) * 3,
                window=config.window,
                modalities=tuple(modalities),
                concepts=tuple(c for c in space.concepts if c not in omit),
            )
        )
    manifest = ModelManifest(
        name=name,
        version=version,
        licence=licence,
        sha256="",
        network=network.model_dump(mode="json"),
        text_encoder=encoder.config.model_dump(mode="json"),
        domains=tuple(domains),
    )
    return save_model(folder, model, encoder, manifest=manifest)
