"""Reports to tokens: fixed vectors of words, states of a transformer, or files computed before."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from textseg.errors import InputError
from textseg.files import unreadable
from textseg.network.word_vectors import MARKER, word_vector, words_of
from textseg.reports.text import check_file

_WORD_FEATURES = 128


class ReportEncoderConfig(BaseModel):
    """How a report becomes tokens.

    Attributes:
        kind: Fixed vectors of its words, the states of a transformer, or only files of features
            that were computed elsewhere.
        features: Length of a token. Words take 128 if it is left out; a transformer has its own,
            which it must be if it is stated; of files it must be stated.
        model: Folder of the transformer, or its name on the Hugging Face hub.
        revision: Which version of it, a tag or commit on the hub; None takes the newest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["word", "hub", "features"] = "word"
    features: int | None = Field(default=None, ge=8)
    model: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _names_a_model_where_one_is_used(self) -> ReportEncoderConfig:
        if self.kind == "hub" and not self.model:
            raise ValueError(
                "a report encoder of kind 'hub' needs model: a folder or a name on the hub."
            )
        if self.kind != "hub" and (self.model or self.revision):
            raise ValueError(
                f"a report encoder of kind {self.kind!r} has no use for model {self.model!r} and "
                f"revision {self.revision!r}; set kind 'hub', or leave them out."
            )
        if self.kind == "features" and self.features is None:
            raise ValueError("a report encoder of kind 'features' needs features, their length.")
        return self

    def with_features(self, features: int) -> ReportEncoderConfig:
        """The same configuration that states the length of a token, unless it does already."""
        return self.model_copy(update={"features": self.features or features})


class ReportEncoder(Protocol):
    """What turns the sentences of a report into tokens; it learns nothing."""

    @property
    def config(self) -> ReportEncoderConfig:
        """What makes the same encoder again."""

    @property
    def features(self) -> int:
        """Length of a token."""

    def tokens(self, sentences: Sequence[str]) -> Tensor:
        """Tokens ``T F`` in float32 on the CPU, ``0 F`` for no sentences."""


class WordReportEncoder:
    """One fixed vector a word, and one between sentences: no download, nothing to learn.

    The same text has the same tokens on every machine. A token knows neither its place nor its
    neighbors.
    """

    def __init__(self, config: ReportEncoderConfig | None = None) -> None:
        config = config or ReportEncoderConfig()
        self.features = config.features or _WORD_FEATURES
        self.config = config.with_features(self.features)

    def tokens(self, sentences: Sequence[str]) -> Tensor:
        """Tokens ``T F`` in float32, ``0 F`` where there is no word.

        >>> WordReportEncoder().tokens(["No mass.", "No edema."]).shape
        torch.Size([5, 128])
        """
        words: list[str] = []
        for sentence in filter(None, map(words_of, sentences)):
            words += [MARKER, *sentence] if words else sentence
        if not words:
            return torch.zeros(0, self.features)
        return torch.from_numpy(np.stack([word_vector(word, self.features) for word in words]))


class PrecomputedReports:
    """Stands where a model takes only features that were computed elsewhere."""

    def __init__(self, config: ReportEncoderConfig) -> None:
        self.config = config
        assert config.features is not None  # as the configuration makes sure
        self.features = config.features

    def tokens(self, sentences: Sequence[str]) -> Tensor:
        """Tokens ``0 F`` for no sentences.

        Raises:
            InputError: There are sentences.
        """
        if sentences:
            raise InputError(
                "this model cannot read the text of a report, only features computed before;",
                remedy=f"give a .npy file of {self.features} features a token, or leave the report "
                "out.",
            )
        return torch.zeros(0, self.features)


def make_report_encoder(config: ReportEncoderConfig) -> ReportEncoder:
    """The encoder that a configuration describes.

    Raises:
        ModelError: A transformer cannot be had (E401, E403) or has another width.
    """
    if config.kind == "word":
        return WordReportEncoder(config)
    if config.kind == "features":
        return PrecomputedReports(config)
    from textseg.network.hub_report_encoder import HubReportEncoder

    return HubReportEncoder(config)


def load_report_features(path: str | PathLike[str], *, features: int | None = None) -> Tensor:
    """Tokens ``T F`` in float32 from a ``.npy`` file of shape ``(1, T, F)`` or ``(T, F)``.

    The published files of TextBraTS are of this kind, with 128 tokens of 768 features each and no
    sign of which are padding, so all count.

    Args:
        path: The file; it may hold no Python objects, and nothing in it is run.
        features: Length a token must have; None takes any.

    Raises:
        InputError: There is no such file (E301, E302, E303), or it holds something else (E300).
    """
    path = Path(path)
    check_file(path)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, OverflowError) as error:
        raise _no_features(path, f"is no array of numbers ({error});") from error
    if not np.issubdtype(array.dtype, np.floating):
        raise _no_features(path, f"holds numbers of type {array.dtype}, not floating-point ones;")
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 2 or 0 in array.shape or features not in (None, array.shape[-1]):
        shape = " x ".join(str(size) for size in array.shape)
        wanted = "F" if features is None else str(features)
        raise _no_features(path, f"has the shape {shape}, not 1 x T x {wanted} or T x {wanted};")
    with np.errstate(over="ignore"):
        tokens = torch.from_numpy(np.array(array, dtype=np.float32))
    if not torch.isfinite(tokens).all():
        raise _no_features(path, "holds values that are not finite;")
    return tokens


def _no_features(path: Path, cause: str) -> InputError:
    return InputError(
        cause,
        path=path,
        remedy="give one report as a .npy file of token features, or its text.",
    )
