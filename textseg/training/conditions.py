"""What a network is given of a case besides one image: named channels, and a report as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from textseg.datasets import Case
from textseg.errors import ModelError
from textseg.network.report_encoder import ReportEncoder, load_report_features
from textseg.network.report_tokens import ReportTokens
from textseg.reports.changes import swap_sides
from textseg.reports.given import GivenReport
from textseg.reports.text import split_sentences
from textseg.training.augment import chance


class CaseReport(NamedTuple):
    """The report of a case as tokens.

    Attributes:
        tokens: ``T F``, what it says of the scan.
        mirrored: ``T F``, what it would say of the mirrored scan; None where that cannot be known.
    """

    tokens: Tensor
    mirrored: Tensor | None


def encode_report(case: Case, encoder: ReportEncoder | None) -> CaseReport | None:
    """The report of a case; None without a report, or without what could read it.

    Raises:
        InputError: The report or the file of its features cannot be read.
        ModelError: Features are not of this encoder's kind, or it takes features alone (E404).
    """
    given = None if encoder is None else case.read_report()
    if encoder is None or given is None:
        return None
    _check_kind(case, given, encoder)
    if given.features is not None:
        return CaseReport(load_report_features(given.features, features=encoder.features), None)
    mirrored = swap_sides(given.text)
    tokens = encoder.tokens(split_sentences(given.text))
    if mirrored == given.text:
        return CaseReport(tokens, tokens)
    return CaseReport(tokens, encoder.tokens(split_sentences(mirrored)))


def join_reports(reports: Sequence[Tensor | None], features: int) -> ReportTokens:
    """The reports of a batch; None is a report that says nothing.

    Args:
        reports: Of each crop, ``T F``.
        features: Length of a token.
    """
    nothing = torch.zeros(0, features)
    return ReportTokens.of([nothing if report is None else report for report in reports])


def scan_channels(case: Case, channels: Sequence[str]) -> tuple[str, ...]:
    """Those channels of a scan that a domain takes, in the domain's order; none for one image.

    Args:
        case: A case with a scan.
        channels: The domain's; none for scans of one unnamed channel.

    Raises:
        ModelError: E404, the domain takes channels and the scan has none of them, or the reverse.
    """
    found = tuple(name for name in channels if name in case.channels)
    if found or not (channels or case.channels):
        return found
    has = ", ".join(case.channels) or "a single image"
    raise ModelError(
        f"case {case.id!r} has {has}; its domain takes {', '.join(channels) or 'a single image'}.",
        code="E404",
        remedy="Give the domain the `channels` of its data sets, and each data set its own domain.",
    )


def in_order(images: Tensor, names: Sequence[str], channels: Sequence[str]) -> Tensor:
    """Images of some channels as a network takes all of them, with NaN for those missing.

    Args:
        images: ``C X Y Z``.
        names: Which channels these are; none for a single image.
        channels: Those of the network, in its order; none for a single image.
    """
    if not channels:
        return images
    nothing = torch.full_like(images[0], torch.nan)
    return torch.stack(
        [images[names.index(name)] if name in names else nothing for name in channels]
    )


def keep_channels(names: Sequence[str], dropout: float, generator: Generator) -> tuple[str, ...]:
    """The channels that a crop shows, never none of them.

    Args:
        names: Those there are.
        dropout: Probability that one of several is left out.
        generator: Source of randomness.
    """
    if len(names) < 2 or dropout == 0:
        return tuple(names)
    kept = tuple(name for name in names if not chance(dropout, generator))
    return kept or (names[int(torch.randint(len(names), (), generator=generator))],)


def _check_kind(case: Case, given: GivenReport, encoder: ReportEncoder) -> None:
    """Refuses features where words are read, and words where only features are."""
    kind = encoder.config.kind
    if given.features is not None and kind == "word":
        raise ModelError(
            f"the report of case {case.id!r} is given as features, which the report encoder of "
            f"kind {kind!r} does not make.",
            code="E404",
            path=given.features,
            remedy="Give the reports as texts, or set data.report_encoder.kind to features.",
        )
    if given.features is None and kind == "features":
        raise ModelError(
            f"the report of case {case.id!r} is a text, and a report encoder of kind {kind!r} "
            "reads none.",
            code="E404",
            remedy="Give the reports as .npy files, or choose another data.report_encoder.",
        )
