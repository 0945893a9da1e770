"""What people mean by a name that the tree gives to something else, or to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from textseg.knowledge import KnowledgeTree
from textseg.prompts.name import exact_or_sided
from textseg.prompts.prompt import Reading, Scope
from textseg.prompts.table import read_table
from textseg.prompts.wording import Phrase, normalise, parse

COLLOQUIAL = 0.95


def read(text: str, scope: Scope) -> Reading | None:
    """The structure people mean, on the side the prompt names."""
    phrase = parse(text)
    meanings = _meanings(scope.tree)
    whole = meanings.get(phrase)
    concept_id = whole or meanings.get(Phrase(phrase.words, None))
    if concept_id is None or phrase.side == "conflict":
        return None
    if scope.supported is None and scope.lexicon.find(Phrase(phrase.words, None)):
        # with no model to suit, the textbook's meaning stands
        return None
    concept = scope.tree[concept_id]
    if whole is not None:
        reading = Reading("ok", (concept_id,), "colloquial", COLLOQUIAL)
    else:
        named = parse(normalise(concept.name))
        if named.side not in (None, phrase.side):
            return None
        sided = exact_or_sided(Phrase(named.words, phrase.side), scope)
        if sided is None or sided.status != "ok":
            return sided
        reading = Reading("ok", sided.concepts, "colloquial", COLLOQUIAL)
    names = ", ".join(scope.tree[found].name for found in reading.concepts)
    return Reading(
        "ok",
        reading.concepts,
        reading.method,
        reading.confidence,
        warnings=(f"'{text}' is interpreted as {names}.",),
    )


@lru_cache(maxsize=4)
def _meanings(tree: KnowledgeTree) -> Mapping[Phrase, str]:
    """Concepts by their everyday names."""
    return {
        parse(normalise(name)): concept_id
        for concept_id, names in read_table("en")
        for name in names
        if concept_id in tree
    }
