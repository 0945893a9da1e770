"""The text encoder of SAT: a name as the public data sets write it, and a modality, to a query.

BioLORD (an MPNet), mean over the tokens, a perceptron, plus one row per modality (Zhao et al. 2023,
"One model to rule them all"). Needs the ``text`` extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from textseg.errors import ModelError
from textseg.imaging.volume import Modality
from textseg.network.layers import Perceptron

MODALITY_ROWS: tuple[Modality | None, ...] = ("ct", "mr", None, "pet")
"""Modality of each row of the table; the third is ultrasound, which no data set shows."""

_FIRST, _LAST, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
_BATCH = 64


class SatTextEncoderConfig(BaseModel):
    """Size of the transformer.

    Attributes:
        kind: Tells it from the other text encoders in a manifest.
        vocabulary: Word pieces.
        features: Width of the transformer, and length of a query.
        layers: Transformer layers.
        heads: Attention heads.
        hidden: Width of the feed-forward part.
        positions: Rows of the position table.
        max_tokens: Longer texts are cut.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["sat"] = "sat"
    vocabulary: int = 30527
    features: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    positions: int = 514
    max_tokens: int = 256


class SatTextEncoder(nn.Module):
    """Maps a name and a modality to a query.

    Args:
        config: Its size.
        pieces: The word pieces, in the order of their ids (the lines of ``vocab.txt``).

    Raises:
        ModelError: ``transformers`` is not installed (E403), or the word pieces are not those of
            this encoder (E402).
    """

    def __init__(self, config: SatTextEncoderConfig, pieces: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.pieces = tuple(pieces)
        self._ids = {piece: number for number, piece in enumerate(self.pieces)}
        missing = [piece for piece in (_FIRST, _LAST, _UNKNOWN) if piece not in self._ids]
        if len(self.pieces) != config.vocabulary or missing:
            raise ModelError(
                f"the vocabulary has {len(self.pieces):,} word pieces"
                f"{f' and lacks {missing[0]}' if missing else ''}; the text encoder was trained "
                f"with {config.vocabulary:,}.",
                code="E402",
                remedy="Use the vocab.txt of FremyCompany/BioLORD-2023-C.",
            )
        self._tokenizer = _tokenizer(self._ids)
        self.transformer = _transformer(config)
        self.projection = Perceptron(config.features, config.features, config.features)
        self.modality = nn.Embedding(len(MODALITY_ROWS), config.features)

    @property
    def features(self) -> int:
        """Length of the vector a text becomes."""
        return self.config.features

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``K E`` in float32 without a modality; ``0 E`` for no text."""
        return functional.normalize(self._projected(texts), dim=-1)

    @torch.no_grad()
    def queries(self, texts: Sequence[str], modality: Modality | None) -> Tensor:
        """Queries ``K E`` in float32 for names in a modality; without one, none is added."""
        projected = self._projected(texts)
        if modality is None:
            return projected
        row: Tensor = self.modality.weight[MODALITY_ROWS.index(modality)]
        return projected + row.float()

    def project(self, tokens: Tensor) -> Tensor:
        """Vectors ``K E`` of token ids ``K T`` padded with 0, before a modality is added."""
        mask = (tokens > 0).long()
        states: Tensor = self.transformer(input_ids=tokens, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(states.dtype)
        pooled = (states * weight).sum(1) / weight.sum(1)
        projected: Tensor = self.projection(pooled)
        return projected.float()

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids ``K T`` as SAT makes them: between ``[CLS]`` and ``[SEP]``, padded with 0.

        MPNet's own marks are ``<s>`` and ``</s>``, and its padding is 1; but these are the ids
        that SAT was trained with.
        """
        rows = []
        for text in texts:
            inner = self._tokenizer.encode(text.lower(), add_special_tokens=False).ids
            kept = inner[: self.config.max_tokens - 2]
            rows.append([self._ids[_FIRST], *kept, self._ids[_LAST]])
        length = max(map(len, rows), default=0)
        return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.long)

    def _projected(self, texts: Sequence[str]) -> Tensor:
        if not texts:
            return torch.zeros(0, self.features)
        device = self.modality.weight.device
        parts = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        return torch.cat([self.project(self.tokens(part).to(device)) for part in parts])


def _tokenizer(ids: dict[str, int]) -> Any:
    """Word pieces as BERT makes them, in lower case."""
    tokenizers = _imported("tokenizers")
    from tokenizers import models, normalizers, pre_tokenizers

    made = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=_UNKNOWN))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def _transformer(config: SatTextEncoderConfig) -> nn.Module:
    """An MPNet without weights of its own, in evaluation mode."""
    transformers = _imported("transformers")
    shape = transformers.MPNetConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.features,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.hidden,
        max_position_embeddings=config.positions,
        relative_attention_num_buckets=32,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    made: nn.Module = transformers.MPNetModel(shape, add_pooling_layer=False)
    return made


def _imported(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(
            "the text encoder of SAT needs transformers.",
            code="E403",
            remedy='Run: pip install "textseg[text]"',
        ) from error
