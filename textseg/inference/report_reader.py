"""Reports as the vectors that a model reads beside the scan."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError

from textseg.errors import InputError, ModelError
from textseg.network.report_encoder import (
    ReportEncoder,
    ReportEncoderConfig,
    load_report_features,
    make_report_encoder,
)
from textseg.network.report_tokens import ReportTokens
from textseg.network.weights import ModelManifest
from textseg.reports.changes import swap_sides
from textseg.reports.given import GivenReport
from textseg.reports.sentences import split_sentences


class ReportReader:
    """Encodes reports for a model; what it needs for that is loaded with the first one.

    Args:
        manifest: Of the model.
        device: Where the model runs.
    """

    def __init__(self, manifest: ModelManifest, device: torch.device) -> None:
        self._manifest = manifest
        self._device = device

    def encoded(self, report: GivenReport | None) -> EncodedReport | None:
        """The report for the network; None if there is none or the network would not read it."""
        if report is None or not self._manifest.reads_reports:
            return None
        return EncodedReport(self, report)

    def read(self, text: str) -> ReportTokens:
        """Tokens ``1 T F`` of a text.

        Raises:
            InputError: The model takes features only.
        """
        with torch.inference_mode():
            tokens = self._encoder.tokens(split_sentences(text))
        return ReportTokens.of([tokens]).to(self._device)

    def load(self, features: Path) -> ReportTokens:
        """Tokens ``1 T F`` from a file of them.

        Raises:
            InputError: The model reads words, or the file is damaged or of another width.
        """
        if self._encoder.config.kind == "word":
            raise InputError(
                f"the model {self._manifest.name} takes reports as text, not as features.",
                path=features,
                remedy="Give the report itself, or a .txt file.",
            )
        tokens = load_report_features(features, features=self._encoder.features)
        return ReportTokens.of([tokens]).to(self._device)

    @cached_property
    def _encoder(self) -> ReportEncoder:
        described = self._manifest.report_encoder
        if described is None:
            raise ModelError(
                f"the manifest of {self._manifest.name} does not say how its reports are encoded.",
                remedy="Export the model again; report_encoder must be set.",
            )
        try:
            config = ReportEncoderConfig.model_validate(described)
        except ValidationError as error:
            raise ModelError(
                f"the manifest of {self._manifest.name} describes no report encoder of this "
                f"version: {error}"
            ) from error
        return make_report_encoder(config)


class EncodedReport:
    """A report as a network takes it, encoded once however many passes read it."""

    def __init__(self, reader: ReportReader, report: GivenReport) -> None:
        self._reader, self._report = reader, report

    @cached_property
    def tokens(self) -> ReportTokens:
        """``1 T F``."""
        if self._report.features is not None:
            return self._reader.load(self._report.features)
        return self._reader.read(self._report.text)

    @cached_property
    def mirrored(self) -> ReportTokens:
        """``1 T F`` of what it would say of the mirror image.

        Raises:
            InputError: Only its features are known.
        """
        if self._report.features is not None:
            raise InputError(
                "the sides of a report cannot be swapped in its features, as a mirror image needs.",
                path=self._report.features,
                remedy="Give the report as text, or do not mirror.",
            )
        return self._reader.read(swap_sides(self._report.text))
