"""Ranks the concepts whose names resemble a text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textseg.knowledge.concept import Concept

if TYPE_CHECKING:
    from textseg.knowledge.tree import KnowledgeTree


@dataclass(frozen=True, slots=True)
class Match:
    """One concept found for a text.

    Attributes:
        concept: The concept.
        score: Likeness of the text to ``name``, 0 to 1; 1 is the same name.
        name: The name or synonym that was closest, normalised.
    """

    concept: Concept
    score: float
    name: str


def search(tree: KnowledgeTree, text: str, *, limit: int = 10) -> list[Match]:
    """The concepts whose names or synonyms are most like ``text``, best first.

    A concept appears once, with its closest name. Ties keep the order of the tree, so that the
    answer never depends on chance.
    """
    from rapidfuzz import fuzz, process

    from textseg.knowledge.tree import normalise

    query = normalise(text)
    if not query or limit < 1:
        return []
    # Several names can belong to one concept, so more candidates are taken than are returned.
    found = process.extract(query, list(tree.names), scorer=fuzz.WRatio, limit=limit * 5)
    best: dict[str, Match] = {}
    for name, score, _ in found:
        # WRatio alone scores a part of the text as highly as the whole; the plain ratio decides.
        score = (0.7 * score + 0.3 * fuzz.ratio(query, name)) / 100
        for concept_id in tree.names[name]:
            if concept_id not in best or best[concept_id].score < score:
                best[concept_id] = Match(tree[concept_id], score, name)
    return sorted(best.values(), key=lambda match: -match.score)[:limit]


def closest(text: str, candidates: Iterable[str], *, limit: int = 3) -> tuple[str, ...]:
    """The candidate strings most like ``text``, best first, for messages that suggest."""
    from rapidfuzz import fuzz, process

    found = process.extract(text, list(candidates), scorer=fuzz.ratio, limit=limit, score_cutoff=50)
    return tuple(name for name, _, _ in found)
