"""Starts a network from another model's weights, and says what did not come along."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from textseg.errors import ModelError
from textseg.network.model import NetworkConfig, PromptedSegmenter
from textseg.network.report_encoder import ReportEncoderConfig
from textseg.network.weights import find_model, read_model_manifest
from textseg.training.sampling import DomainConfig

logger = logging.getLogger(__name__)

_WHITENING = "query_whitening"
_HEARING = "query_decoder.norm.weight"
_LINES_IN_AN_ERROR = 4


class Misfit(NamedTuple):
    """A tensor of one name and two shapes."""

    name: str
    here: tuple[int, ...]
    there: tuple[int, ...]


@dataclass(frozen=True)
class StartReport:
    """Which tensors of a network start from another model's weights.

    Attributes:
        loaded: Tensors taken as they are.
        reshaped: Convolutions of the volume, adapted to its number of channels.
        mismatched: Tensors left as they were, as theirs have another shape.
        missing: Tensors left as they were, as the other model has none of their name.
        unused: Tensors of the other model that the network has no place for.
        num_loaded: Numbers in the loaded and reshaped tensors.
        num_total: Numbers in all tensors of the network.
    """

    loaded: tuple[str, ...]
    reshaped: tuple[Misfit, ...]
    mismatched: tuple[Misfit, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    num_loaded: int
    num_total: int

    @property
    def fraction(self) -> float:
        """Part of the network's numbers that come from the other model."""
        return self.num_loaded / self.num_total

    @property
    def complete(self) -> bool:
        """Whether nothing was left out on either side."""
        return not (self.mismatched or self.missing or self.unused)

    def lines(self) -> list[str]:
        """The share that was loaded, then a line for each tensor that was not taken as it is."""
        return [
            f"{self.num_loaded:,} of {self.num_total:,} weights ({self.fraction:.1%}) start from "
            "the other model",
            *(f"reshaped: {m.name} from {m.there} to {m.here}" for m in self.reshaped),
            *(f"another shape: {m.name} is {m.here}, not {m.there}" for m in self.mismatched),
            *(f"missing there: {name}" for name in self.missing),
            *(f"unused: {name}" for name in self.unused),
        ]


def start_from(
    network: nn.Module, weights: Mapping[str, Tensor], *, least: float = 0.9
) -> StartReport:
    """Loads every tensor whose name and shape fit, and logs what is left out.

    A convolution of the volume may have another number of channels if one of the two numbers is 1:
    the kernel of one channel is shared out among the new ones, or those of several are added up.

    Args:
        network: What is to start; it stays as it was if too little fits.
        weights: Tensors of the other model, by name.
        least: Least part of the network's weights that has to come along.

    Raises:
        ModelError: Less than that fits (E402).
    """
    report, fitting = _compared(network, weights)
    lines = report.lines()
    if report.fraction < least:
        rest = len(lines) - _LINES_IN_AN_ERROR
        more = [f"and {rest} more"] if rest > 0 else []
        raise ModelError(
            f"too few weights fit: {'; '.join(lines[:_LINES_IN_AN_ERROR] + more)}.",
            code="E402",
            remedy="Use the network configuration the weights were made with, or lower "
            f"`model.init_least`, now {least}.",
        )
    network.load_state_dict(fitting, strict=False)
    for line in lines:
        logger.log(logging.INFO if report.complete else logging.WARNING, line)
    return report


def keeps_hearing(network: PromptedSegmenter, start: StartReport | None) -> bool:
    """Whether a network hears queries as the model did that it started from."""
    wanted = _WHITENING if network.config.whiten_queries else _HEARING
    return start is not None and wanted in start.loaded


def check_levels(network: PromptedSegmenter, *, num_levels: int) -> None:
    """Refuses losses at levels that the network makes no masks of.

    Args:
        network: The network.
        num_levels: Levels with losses; only those of ``late`` fusion are judged at several.

    Raises:
        ModelError: There are more than the network makes masks at (E400).
    """
    levels = num_levels if network.config.fusion == "late" else 1
    if not 1 <= levels <= len(network.mask_heads):
        raise ModelError(
            f"losses.levels has {levels} levels; the network has masks at "
            f"{len(network.mask_heads)} of them.",
            code="E400",
            remedy="Raise network.mask_levels, or drop levels.",
        )


def check_width(queries: Tensor, network: PromptedSegmenter, *, encoder: str) -> None:
    """Refuses queries of a text encoder whose vectors have another length than the network's.

    Raises:
        ModelError: They have (E400).
    """
    if queries.shape[1] != network.config.query_features:
        raise ModelError(
            f"the text encoder {encoder!r} makes queries of {queries.shape[1]} numbers; the "
            f"network takes {network.config.query_features}.",
            code="E400",
            remedy="Give data.encoder the model that training starts from, or set "
            f"network.query_features to {queries.shape[1]}.",
        )


def check_alike(queries: Tensor, before: Tensor, *, init_from: str) -> None:
    """Refuses queries that are not, but for rounding, those that the other model was asked with.

    Raises:
        ModelError: They are not (E400).
    """
    if before.shape != queries.shape or (before - queries).norm() > 0.05 * before.norm():
        raise ModelError(
            "a network without whitened queries keeps the text encoder it was trained with.",
            code="E400",
            remedy=f"Set data.encoder to {init_from}.",
        )


def check_conditions(
    network: NetworkConfig, domains: Sequence[DomainConfig], *, token_features: int | None
) -> None:
    """Refuses data with other channels or reports than the network takes.

    Args:
        network: Shape of the network.
        domains: What it is trained on.
        token_features: Length of the tokens that reports are made into; None if they are left out.

    Raises:
        ModelError: The data have other channels or reports (E400).
    """
    for domain in domains:
        if domain.channel_names != network.channels:
            raise ModelError(
                f"domain {domain.name!r} has {_named(domain.channel_names)}; the network takes "
                f"{_named(network.channels)}.",
                code="E400",
                remedy="Give network.channels and the `channels` of every domain alike.",
            )
    taken = None if network.report is None else network.report.token_features
    if token_features is None and taken is not None:
        logger.warning("the network reads reports, but data.report_encoder is not set")
    elif token_features != taken:
        reads = "no reports" if taken is None else f"reports of tokens of {taken} numbers"
        raise ModelError(
            f"data.report_encoder makes tokens of {token_features} numbers; the network reads "
            f"{reads}.",
            code="E400",
            remedy=f"Set network.report.token_features to {token_features}, or leave "
            "data.report_encoder out.",
        )


def check_origin(
    network: NetworkConfig, init_from: str, *, report_encoder: ReportEncoderConfig | None
) -> None:
    """Refuses to start from a model that means other channels or tokens by the same numbers.

    Args:
        network: Shape of the network.
        init_from: Name or folder of the model.
        report_encoder: What makes tokens of the reports now.

    Raises:
        ModelError: It does (E400).
    """
    origin = read_model_manifest(find_model(init_from))
    as_many = len(origin.channels) == len(network.channels)
    if as_many and origin.channels != network.channels:
        raise ModelError(
            f"{init_from} takes {_named(origin.channels)}, the network {_named(network.channels)}.",
            code="E400",
            remedy="Give network.channels and the `channels` of every domain in that order.",
        )
    if network.report is None or report_encoder is None or origin.report_encoder is None:
        return
    stored = ReportEncoderConfig.model_validate(origin.report_encoder)
    before, now = (
        encoder.with_features(network.report.token_features) for encoder in (stored, report_encoder)
    )
    if before != now:
        raise ModelError(
            f"{init_from} reads reports by another encoder ({before}) than data.report_encoder "
            f"({now}).",
            code="E400",
            remedy="Set data.report_encoder to that of the model.",
        )


def _named(channels: Sequence[str]) -> str:
    return f"the channels {', '.join(channels)}" if channels else "a single image"


def _compared(
    network: nn.Module, weights: Mapping[str, Tensor]
) -> tuple[StartReport, dict[str, Tensor]]:
    """The report, and what can be loaded."""
    state = network.state_dict()
    convolutions = {f"{n}.weight" for n, m in network.named_modules() if isinstance(m, nn.Conv3d)}
    fitting: dict[str, Tensor] = {}
    reshaped, mismatched = [], []
    for name in (name for name in state if name in weights):
        here, there = state[name], weights[name]
        misfit = Misfit(name, tuple(here.shape), tuple(there.shape))
        if here.shape == there.shape:
            fitting[name] = there
        elif name in convolutions and _reads_the_volume(misfit):
            fitting[name] = _with_inputs(there, here.shape[1])
            reshaped.append(misfit)
        else:
            mismatched.append(misfit)
    report = StartReport(
        loaded=tuple(name for name in fitting if state[name].shape == weights[name].shape),
        reshaped=tuple(reshaped),
        mismatched=tuple(mismatched),
        missing=tuple(name for name in state if name not in weights),
        unused=tuple(name for name in weights if name not in state),
        num_loaded=sum(tensor.numel() for tensor in fitting.values()),
        num_total=sum(tensor.numel() for tensor in state.values()),
    )
    return report, fitting


def _reads_the_volume(misfit: Misfit) -> bool:
    """Whether two kernels differ in their number of inputs alone, and one has a single input."""
    here, there = misfit.here, misfit.there
    same_otherwise = (here[0], *here[2:]) == (there[0], *there[2:])
    return same_otherwise and 1 in (here[1], there[1])


def _with_inputs(kernel: Tensor, inputs: int) -> Tensor:
    """A kernel that makes of ``inputs`` equal channels what the kernel makes of its own."""
    return kernel.sum(1, keepdim=True).expand(-1, inputs, -1, -1, -1) / inputs
