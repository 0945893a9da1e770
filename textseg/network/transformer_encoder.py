"""Text to vectors with a pretrained transformer, and a cache that spares computing them again.

Any Hugging Face text encoder serves: a folder, or a name on the hub (BioLORD, MedCPT, PubMedBERT,
MiniLM). Needs the ``text`` extra.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional

from textseg.errors import ModelError


class TransformerEncoderConfig(BaseModel):
    """Which transformer, and how its tokens become one vector.

    Attributes:
        model: Folder, or name on the Hugging Face hub.
        pooling: Mean over the tokens of a text, or its first token.
        max_tokens: Longer texts are cut.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    pooling: Literal["mean", "first"] = "mean"
    max_tokens: int = 256


class TransformerEncoder:
    """Maps each text to a unit vector; see ``TextEncoder``, which it can stand in for.

    Args:
        config: Which transformer.
        cache: Folder for vectors already computed; None keeps none.
        batch: Texts per pass.

    Raises:
        ModelError: ``transformers`` is not installed (E403), or there is no such model (E401).
    """

    def __init__(
        self, config: TransformerEncoderConfig, *, cache: Path | None = None, batch: int = 64
    ) -> None:
        self.config = config
        self.batch = batch
        self._tokenizer, self._model = load_transformer(config.model, role="text encoder")
        self.features = int(self._model.config.hidden_size)
        self.fingerprint = _fingerprint(config, self._model)
        self._cache = None if cache is None else VectorCache(cache / self.fingerprint)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``K E`` in float32, without gradient; ``0 E`` for no text."""
        known = {} if self._cache is None else self._cache.read(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        for start in range(0, len(missing), self.batch):
            part = missing[start : start + self.batch]
            fresh = dict(zip(part, self._computed(part), strict=True))
            known |= fresh
            if self._cache is not None:
                self._cache.write(fresh)
        if not texts:
            return torch.zeros(0, self.features)
        return torch.stack([known[text] for text in texts])

    @torch.no_grad()
    def _computed(self, texts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.config.max_tokens,
            return_tensors="pt",
        )
        states: Tensor = self._model(**tokens).last_hidden_state.float()  # K T E
        if self.config.pooling == "first":
            pooled = states[:, 0]
        else:
            weight = tokens["attention_mask"][..., None].float()
            pooled = (states * weight).sum(1) / weight.sum(1).clamp(min=1)
        return functional.normalize(pooled, dim=-1)


class VectorCache:
    """Vectors on disk, one small file per text, so that any number of processes may share them.

    A file is written aside and renamed; one that cannot be read counts as missing, and a folder
    that cannot be written to is no cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The vectors that are here, by text."""
        found = {}
        for text in dict.fromkeys(texts):
            try:
                stored = torch.load(self._path(text), weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError):
                continue
            if isinstance(stored, torch.Tensor):
                found[text] = stored
        return found

    def write(self, vectors: dict[str, Tensor]) -> None:
        """Keeps vectors for the next time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for text, vector in vectors.items():
                path = self._path(text)
                partial = path.with_suffix(f".{os.getpid()}.partial")
                torch.save(vector.clone(), partial)
                partial.replace(path)
        except OSError:
            return

    def _path(self, text: str) -> Path:
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pt"


def load_transformer(name: str, *, role: str, revision: str | None = None) -> tuple[Any, Any]:
    """Tokenizer and model of a folder or a name on the Hugging Face hub, in evaluation mode.

    Args:
        name: Of the model.
        role: What it is to be, for messages: "text encoder".
        revision: Of the hub's model; None for its newest.

    Raises:
        ModelError: ``transformers`` is not installed (E403), or there is no such model (E401).
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ModelError(
            f"a {role} made of a transformer needs transformers.",
            code="E403",
            remedy='Run: pip install "textseg[text]"',
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        return tokenizer, AutoModel.from_pretrained(name, revision=revision).eval()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no {role} {name!r}: {str(error).splitlines()[0]}",
            code="E401",
            remedy="Give a folder with a Hugging Face model, or a name on the hub.",
        ) from error


def _fingerprint(config: TransformerEncoderConfig, model: Any) -> str:
    """Changes whenever a vector could: with the weights and with how they are used."""
    digest = hashlib.sha256(config.model_dump_json(exclude={"model"}).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
