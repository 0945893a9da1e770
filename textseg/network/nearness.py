"""Names whose meaning is near that of a text which nothing else understood, to be suggested.

A suggestion is all this is good for: "heart valve replacement" is near "heart valve".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from textseg.knowledge import KnowledgeTree

if TYPE_CHECKING:
    from torch import Tensor

    from textseg.network.queries import TextVectors

# chosen by eye on the development set of prompts; a suggestion too many does little harm
_LEAST = 0.8
_MOST = 3
_CONSIDERED = 20


class NearNames:
    """Finds names of the tree by what a text encoder makes of them.

    Args:
        tree: Where the names are from.
        encoder: Gives the text encoder; not called before the first text.
    """

    def __init__(self, tree: KnowledgeTree, encoder: Callable[[], TextVectors]) -> None:
        self._tree = tree
        self._load = encoder

    def __call__(self, text: str) -> tuple[str, ...]:
        """The names of the concepts nearest in meaning, at most three; often none."""
        names, vectors = self._index
        likeness = (self._encoder.encode([text]) @ vectors.T)[0]
        scores, places = likeness.topk(min(_CONSIDERED, len(names)))
        near = [
            names[i] for s, i in zip(scores.tolist(), places.tolist(), strict=True) if s > _LEAST
        ]
        found = dict.fromkeys(self._tree[i].name for name in near for i in self._tree.names[name])
        return tuple(found)[:_MOST]

    @cached_property
    def _encoder(self) -> TextVectors:
        return self._load()

    @cached_property
    def _index(self) -> tuple[tuple[str, ...], Tensor]:
        names = tuple(self._tree.names)
        return names, self._encoder.encode(names)
