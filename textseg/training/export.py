"""From a training checkpoint to a model folder that ``Segmenter.from_pretrained`` loads."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from textseg.datasets import LabelSpace
from textseg.errors import ModelError
from textseg.knowledge import model_vocabulary
from textseg.knowledge.importing import write_tree_file
from textseg.knowledge.vocabularies import MODEL_VOCABULARY
from textseg.network.model import NetworkConfig, PromptedSegmenter
from textseg.network.report_encoder import ReportEncoderConfig
from textseg.network.sat_text_encoder import SatTextEncoder
from textseg.network.text_encoder import TextEncoder, TextEncoderConfig
from textseg.network.weights import Domain, ModelManifest, save_model
from textseg.training.adaptation import AdaptationConfig, adapt, merged_state
from textseg.training.checkpoint import read_checkpoint
from textseg.training.sampling import DomainConfig
from textseg.training.sensitivity_report import SENSITIVITY_FILE, SensitivityReport


def export_model(
    checkpoint: Path,
    folder: Path,
    *,
    network: NetworkConfig,
    adaptation: AdaptationConfig,
    spaces: Sequence[tuple[DomainConfig, LabelSpace]],
    encoder: TextEncoder | SatTextEncoder,
    name: str,
    version: str,
    licence: str,
    omit: Sequence[str] = (),
    report_encoder: ReportEncoderConfig | None = None,
    sensitivity: SensitivityReport | None = None,
) -> ModelManifest:
    """Writes the averaged weights of a checkpoint as a model folder.

    Concepts of the user's vocabularies go along, so that the model can be used without those.

    Args:
        checkpoint: What ``textseg fit`` wrote.
        folder: Where to; its name should be the model's.
        network: Shape of the network that was trained.
        adaptation: What of it was trained; low-rank updates become part of the weights.
        spaces: The domains it was trained on and the concepts of each.
        encoder: The text encoder its queries came from.
        name: Name of the model.
        version: Version of the weights.
        licence: Licence of the weights.
        omit: Concepts that did not learn well enough to be offered.
        report_encoder: What made tokens of the reports it was trained with.
        sensitivity: What it makes of reports, to be kept with it.

    Raises:
        ModelError: The checkpoint is of another network (E402); the network reads reports and it
            is not said by which encoder (E400); or a concept is in no vocabulary (E404).
    """
    reads = _described_report_encoder(network, report_encoder)
    trained = PromptedSegmenter(network)
    adapt(trained, adaptation)
    _fill(trained, checkpoint, prefix="network.")
    model = PromptedSegmenter(network)
    model.load_state_dict(merged_state(trained))
    domains = tuple(_domain(config, space, omit) for config, space in spaces)
    manifest = ModelManifest(
        name=name,
        version=version,
        licence=licence,
        sha256="",
        files=_write_vocabulary(folder, domains) | _write_sensitivity(folder, sensitivity),
        network=network.model_dump(mode="json"),
        text_encoder=encoder.config.model_dump(mode="json"),
        report_encoder=reads,
        domains=domains,
    )
    return save_model(folder, model, encoder, manifest=manifest)


def export_encoder(
    checkpoint: Path,
    folder: Path,
    *,
    config: TextEncoderConfig,
    name: str,
    version: str,
    licence: str,
) -> ModelManifest:
    """Writes the text encoder of a ``textseg pretrain`` checkpoint as a model folder of its own.

    Raises:
        ModelError: The checkpoint is of another encoder.
    """
    encoder = TextEncoder(config)
    _fill(encoder, checkpoint, prefix="encoder.")
    manifest = ModelManifest(
        name=name,
        version=version,
        licence=licence,
        sha256="",
        network=None,
        text_encoder=config.model_dump(mode="json"),
        domains=(),
    )
    return save_model(folder, None, encoder, manifest=manifest)


def _described_report_encoder(
    network: NetworkConfig, report_encoder: ReportEncoderConfig | None
) -> dict[str, object] | None:
    """The encoder as a manifest describes it, with the length of its tokens."""
    if network.report is None and report_encoder is None:
        return None
    if network.report is None or report_encoder is None:
        raise ModelError(
            "a network that reads reports goes with the report encoder it was trained with.",
            code="E400",
            remedy="Give the configuration of the run, with its data.report_encoder.",
        )
    return report_encoder.with_features(network.report.token_features).model_dump(mode="json")


def _domain(config: DomainConfig, space: LabelSpace, omit: Sequence[str]) -> Domain:
    return Domain(
        name=config.name,
        spacing_mm=config.grid_mm,
        window=config.window,
        modalities=config.modalities,
        concepts=tuple(c for c in space.concepts if c not in omit),
    )


def _write_vocabulary(folder: Path, domains: Sequence[Domain]) -> dict[str, str]:
    """Writes the concepts a model brings along; their file with its sha256, if there are any."""
    path = folder / MODEL_VOCABULARY
    text = model_vocabulary({concept for domain in domains for concept in domain.concepts})
    if not text:
        # one that an earlier model in this folder brought is not this model's
        path.unlink(missing_ok=True)
        return {}
    write_tree_file(path, text)
    return {path.name: sha256(text.encode()).hexdigest()}


def _write_sensitivity(folder: Path, sensitivity: SensitivityReport | None) -> dict[str, str]:
    """Writes what a model makes of reports, if that is known; its file with its sha256."""
    if sensitivity is None:
        (folder / SENSITIVITY_FILE).unlink(missing_ok=True)
        return {}
    return {SENSITIVITY_FILE: sensitivity.write(folder)}


def _fill(module: nn.Module, checkpoint: Path, *, prefix: str) -> None:
    """Loads the part of a checkpoint whose names start with the prefix."""
    state: dict[str, Any] = read_checkpoint(checkpoint)["state_dict"]
    tensors = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"the checkpoint does not fit: {error}", code="E402", path=checkpoint
        ) from error
