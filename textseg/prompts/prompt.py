"""What resolving a prompt gives back, and what one kind of prompt says on the way there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from textseg.knowledge import KnowledgeTree
    from textseg.prompts.lexicon import Lexicon

Status = Literal["ok", "ambiguous", "unsupported", "reject"]
Modality = Literal["ct", "mr", "pet"]


@dataclass(frozen=True)
class Resolution:
    """What a prompt means, or why it means nothing that can be segmented.

    Args:
        prompt: The text as the user wrote it.
        status: ``ok``; ``ambiguous`` (several meanings, see ``candidates``); ``unsupported`` (real
            anatomy, but not something the model was trained on); ``reject`` (not anatomy).
        concepts: Ids whose union is to be segmented; empty unless ``ok``.
        method: The kind of prompt that answered ("name", "side", "list", "number", ...).
        confidence: 0 to 1; 0.0 unless ``ok``.
        warnings: Sentences for the user: what was assumed, or why there is no answer.
        suggestions: Prompts that would be accepted instead, best first.
        candidates: Ids of the meanings of an ambiguous prompt.
    """

    prompt: str
    status: Status
    concepts: tuple[str, ...] = ()
    method: str = "none"
    confidence: float = 0.0
    warnings: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One kind's answer for a phrase, in concepts of the tree, before support is considered."""

    status: Status
    concepts: tuple[str, ...] = ()
    method: str = "none"
    confidence: float = 0.0
    warnings: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    decidable: bool = True
    """Whether knowing what the model supports may single out one of the candidates."""


@dataclass(frozen=True)
class Scope:
    """Everything a kind may consult: the tree, its index, what is supported, and the whole table.

    ``read`` applies every kind to a phrase; a kind uses it for the parts of a longer phrase.
    """

    tree: KnowledgeTree
    lexicon: Lexicon
    supported: frozenset[str] | None
    modality: Modality | None
    read: Callable[[str], Reading]


def refuse(status: Status, why: str, *, method: str, suggestions: tuple[str, ...] = ()) -> Reading:
    """A reading that names no concept, with its reason."""
    return Reading(status, method=method, warnings=(why,), suggestions=suggestions)
