"""Reports to tokens with a pretrained transformer, however long the report. Needs ``text``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from textseg.errors import ModelError
from textseg.network.report_encoder import ReportEncoderConfig
from textseg.network.transformer_encoder import load_transformer

_LONGEST = 512
_RESERVED_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"}


class HubReportEncoder:
    """The last hidden states of a Hugging Face encoder, one token a word piece.

    A report longer than the model takes is read in windows of whole sentences; a sentence longer
    than that is cut, and nothing is lost. The tokens that mark the ends of a window are left out.

    Args:
        config: Which transformer; ``features``, if it is stated, must be its width.

    Raises:
        ModelError: ``transformers`` is not installed (E403), there is no such model (E401), or it
            has another width or no room for text (E400).
    """

    def __init__(self, config: ReportEncoderConfig) -> None:
        self._tokenizer, self._model = load_transformer(
            str(config.model), role="report encoder", revision=config.revision
        )
        self.features = int(self._model.config.hidden_size)
        if config.features not in (None, self.features):
            raise ModelError(
                f"the report encoder {config.model!r} has {self.features} features, not "
                f"{config.features}.",
                remedy=f"Set features to {self.features}, or leave it out.",
            )
        self.config = config.with_features(self.features)
        self.window = _longest(self._tokenizer, self._model.config)
        if self.window <= self._count(""):
            raise ModelError(
                f"the report encoder {config.model!r} takes only {self.window} tokens.",
                remedy="Take a model with room for a sentence.",
            )

    def tokens(self, sentences: Sequence[str]) -> Tensor:
        """Tokens ``T F`` in float32, ``0 F`` for no sentences."""
        states = [self._states(window) for window in self.windows(sentences)]
        return torch.cat([torch.zeros(0, self.features), *states])

    def windows(self, sentences: Sequence[str]) -> list[str]:
        """The texts read at once: as many whole sentences as fit."""
        windows: list[str] = []
        for piece in (piece for sentence in sentences for piece in self._pieces(sentence)):
            longer = f"{windows[-1]} {piece}" if windows else piece
            if windows and self._count(longer) <= self.window:
                windows[-1] = longer
            else:
                windows.append(piece)
        return windows

    def _pieces(self, sentence: str) -> Iterator[str]:
        """The sentence, or halves of it and so on until each fits; cut between words if it can."""
        text = sentence.strip()
        if not text:
            return
        if self._count(text) <= self.window or len(text) == 1:
            yield text
            return
        middle = len(text) // 2
        gaps = [place for place, character in enumerate(text) if character.isspace()]
        cut = min(gaps, key=lambda place: abs(place - middle), default=middle)
        yield from self._pieces(text[:cut])
        yield from self._pieces(text[cut:])

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, verbose=False)["input_ids"])

    @torch.no_grad()
    def _states(self, text: str) -> Tensor:
        encoded = self._tokenizer(
            text, return_special_tokens_mask=True, return_tensors="pt", verbose=False
        )
        marks = encoded.pop("special_tokens_mask")[0].bool()
        states: Tensor = self._model(**encoded).last_hidden_state[0].float()  # T F
        return states[~marks]


def _longest(tokenizer: Any, shape: Any) -> int:
    """Most tokens of a window; tokenizers without a limit state an absurd one."""
    positions = getattr(shape, "max_position_embeddings", None) or _LONGEST
    if shape.model_type in _RESERVED_POSITIONS:
        positions -= shape.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))
