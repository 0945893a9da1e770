"""How well a text encoder finds structures by texts it was never trained on.

Every method gets the same question: which structure does this text mean, among all structures of
the tree, each known by its name and the synonyms that were not kept from training.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from rapidfuzz import fuzz, process
from torch import Tensor

from textseg.knowledge import KnowledgeTree
from textseg.network.queries import SIDES, TextVectors
from textseg.network.transformer_encoder import TransformerEncoder, TransformerEncoderConfig
from textseg.network.weights import load_encoder
from textseg.resources import home
from textseg.training.encoders import UNTRAINED, untrained_encoder
from textseg.training.tree_texts import SIDE_TEMPLATES, Entry, split_texts, tree_entries

Scores = npt.NDArray[np.float32]
Question = tuple[str, int]

NEAR_DUPLICATE = 85.0
"""Token similarity, 0..100, from which a test text is called a near duplicate of a known one."""
_TOP = 5
_NUMBER = re.compile(r"\d+")


class TextMatcher(Protocol):
    """Says how alike texts are."""

    def similarity(self, texts: Sequence[str], others: Sequence[str], /) -> Scores:
        """How alike, ``T O``; only the order within a row counts."""


class VectorMatcher:
    """Cosine of an encoder's vectors."""

    def __init__(self, encoder: TextVectors) -> None:
        self._encoder = encoder
        self._known: tuple[Sequence[str], Tensor] = ((), torch.zeros(0, encoder.features))

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> Scores:
        """Cosines ``T O``."""
        if others is not self._known[0]:  # the same thousands of names are asked about again
            self._known = (others, self._encoder.encode(others))
        product = self._encoder.encode(texts) @ self._known[1].T
        return np.asarray(product.numpy(), dtype=np.float32)


class SpellingMatcher:
    """Similarity of letters, without any learning (rapidfuzz)."""

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> Scores:
        """Token-set similarities 0..100, ``T O``."""
        return process.cdist(texts, others, scorer=fuzz.token_sort_ratio, dtype=np.float32)


def matchers_of(
    models: Sequence[str], transformers: Sequence[str]
) -> Iterator[tuple[str, TextMatcher]]:
    """Named matchers: spelling, an untrained encoder, encoders of models, transformers.

    Raises:
        ModelError: There is no such model, or ``transformers`` is not installed.
    """
    yield "spelling", SpellingMatcher()
    yield UNTRAINED, VectorMatcher(untrained_encoder())
    for name in models:
        yield name, VectorMatcher(load_encoder(name))
    for name in transformers:
        config = TransformerEncoderConfig(model=name)
        encoder = TransformerEncoder(config, cache=home() / "cache" / "text")
        yield Path(name).name, VectorMatcher(encoder)


class Accuracy(BaseModel):
    """How often the right structure comes first, and among the first five."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    questions: int
    top1: float
    top5: float


class TextScores(BaseModel):
    """One method's results.

    Attributes:
        synonyms: Held-out synonyms of structures that were trained on.
        far: Those of them that are spelled like no known text.
        unseen: Synonyms of structures none of whose texts was trained on.
        definitions: Definitions of those structures.
        latin: The Latin ones among ``synonyms`` and ``unseen``.
        side_errors: Share of sided phrases nearer to the other side.
        number_errors: Share of numbered names nearer to another number.
        lesion_errors: Share of names of lesions nearer to the organ than to the lesion.
        lesion_margin: Mean similarity to the lesion less that to the organ.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    synonyms: Accuracy
    far: Accuracy
    unseen: Accuracy
    definitions: Accuracy
    latin: Accuracy
    side_errors: float
    number_errors: float
    lesion_errors: float
    lesion_margin: float


class TextBenchmark:
    """The questions, from a tree; ``score`` puts them to a method.

    Args:
        tree: The knowledge tree.
    """

    def __init__(self, tree: KnowledgeTree) -> None:
        self.entries = tree_entries(tree)
        trained, test = split_texts(self.entries)
        self.test = test
        known = [
            (name, number)
            for number, (entry, own) in enumerate(zip(self.entries, trained, strict=True))
            for name in (entry.names[:1] if own is None else own.names)
        ]
        self.known = [name for name, _ in known]
        self.owner = np.array([number for _, number in known])
        self.far = _far_from(test.synonyms, self.known)
        self.latin = [
            question
            for question in (*test.synonyms, *test.unseen)
            if question[0] in self.entries[question[1]].concept.latin
        ]
        self.sided = [
            entry.names[0]
            for number, entry in enumerate(self.entries)
            if entry.paired and trained[number] is None
        ]
        self.families = _numbered(self.entries)
        self.lesions = _lesions(self.entries, tree)

    def score(self, matcher: TextMatcher) -> TextScores:
        """A method's answers to every question."""
        errors, margin = self._lesion_answers(matcher)
        return TextScores(
            synonyms=self._accuracy(matcher, self.test.synonyms),
            far=self._accuracy(matcher, self.far),
            unseen=self._accuracy(matcher, self.test.unseen),
            definitions=self._accuracy(matcher, self.test.definitions),
            latin=self._accuracy(matcher, self.latin),
            side_errors=_share(self._side_answers(matcher)),
            number_errors=_share(self._number_answers(matcher)),
            lesion_errors=errors,
            lesion_margin=margin,
        )

    def _accuracy(
        self, matcher: TextMatcher, questions: Sequence[Question], *, rows: int = 256
    ) -> Accuracy:
        hits = np.zeros(2)
        for start in range(0, len(questions), rows):
            part = questions[start : start + rows]
            table = matcher.similarity([text for text, _ in part], self.known)
            best = np.full((len(part), len(self.entries)), -np.inf, dtype=np.float32)
            np.maximum.at(best.T, self.owner, table.T)
            right = best[np.arange(len(part)), [number for _, number in part]]
            # a tie with a wrong answer is no hit
            rank = (best >= right[:, None]).sum(1)
            hits += [(rank <= 1).sum(), (rank <= _TOP).sum()]
        count = max(1, len(questions))
        return Accuracy(
            questions=len(questions), top1=float(hits[0] / count), top5=float(hits[1] / count)
        )

    def _side_answers(self, matcher: TextMatcher) -> Iterable[bool]:
        """Whether each sided phrase is nearer to the other side."""
        for name in self.sided:
            both = [f"{side} {name}" for side in SIDES[1:]]
            for own, side in enumerate(SIDES[1:]):
                phrases = [t.format(side=side, text=name) for t in SIDE_TEMPLATES[1:]]
                table = matcher.similarity(phrases, both)
                yield from (table[:, own] <= table[:, 1 - own]).tolist()

    def _number_answers(self, matcher: TextMatcher) -> Iterable[bool]:
        """Whether each numbered phrase is nearer to another number."""
        for family in self.families:
            phrases = [f"the {name}, whole" for name in family]
            table = matcher.similarity(phrases, family)
            own = table.diagonal()
            yield from ((table >= own[:, None]).sum(1) > 1).tolist()

    def _lesion_answers(self, matcher: TextMatcher) -> tuple[float, float]:
        """Share of lesion names nearer to the organ, and the mean margin."""
        margins = []
        for texts, lesion, site in self.lesions:
            table = matcher.similarity(texts, [lesion, site])
            margins += (table[:, 0] - table[:, 1]).tolist()
        if not margins:
            return 0.0, 0.0
        return float(np.mean(np.array(margins) <= 0)), float(np.mean(margins))


def _far_from(questions: Sequence[Question], known: Sequence[str]) -> list[Question]:
    """The questions spelled like no known text."""
    texts = [text.casefold() for text, _ in questions]
    table = process.cdist(
        texts,
        [name.casefold() for name in known],
        scorer=fuzz.token_sort_ratio,
        score_cutoff=NEAR_DUPLICATE,
        dtype=np.uint8,
    )
    near = set(np.flatnonzero(table.max(axis=1) > 0).tolist())
    return [question for number, question in enumerate(questions) if number not in near]


def _numbered(entries: Sequence[Entry]) -> list[list[str]]:
    """Names that differ in their number alone, three or more together."""
    families: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        name = entry.names[0]
        if _NUMBER.search(name):
            families[_NUMBER.sub("#", name)].append(name)
    return [names for names in families.values() if len(names) > 2]


def _lesions(entries: Sequence[Entry], tree: KnowledgeTree) -> list[tuple[list[str], str, str]]:
    """Names that each lesion has for itself, its first name, and the name of its site."""
    found = []
    for entry in entries:
        site = next(iter(entry.concept.site), None)
        own = [name for name in entry.names[1:] if name not in entry.concept.ambiguous]
        if entry.concept.kind.startswith("lesion") and site is not None and own:
            found.append((own, entry.names[0], tree[site].name))
    return found


def _share(answers: Iterable[bool]) -> float:
    listed = list(answers)
    return sum(listed) / max(1, len(listed))


def render_scores(scores: dict[str, TextScores]) -> str:
    """A Markdown table, one row per method; accuracies as top-1 / top-5 and errors in per cent."""
    parts = ("synonyms", "far", "unseen", "definitions", "latin")
    first = next(iter(scores.values()))
    counts = [getattr(first, part).questions for part in parts]
    heads = [f"{part} ({count})" for part, count in zip(parts, counts, strict=True)]
    lines = [
        f"| encoder | {' | '.join(heads)} "
        "| wrong side | wrong number | organ for lesion | lesion margin |",
        f"|{'---|' * (len(parts) + 5)}",
    ]
    for name, score in scores.items():
        cells = [
            f"{_percent(getattr(score, part).top1)} / {_percent(getattr(score, part).top5)}"
            for part in parts
        ]
        wrong = [_percent(s) for s in (score.side_errors, score.number_errors, score.lesion_errors)]
        margin = f"{score.lesion_margin:.2f}"
        lines.append(f"| {' | '.join([name, *cells, *wrong, margin])} |")
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
