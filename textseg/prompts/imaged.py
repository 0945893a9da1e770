"""On which kinds of scan the public data sets label a structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from textseg.knowledge import KnowledgeTree
from textseg.knowledge.classes import load_classes
from textseg.prompts.prompt import Modality, Resolution

_MODALITIES: Mapping[str, Modality] = {"CT": "ct", "MRI": "mr", "PET": "pet"}


def labelled_on(concept_id: str, tree: KnowledgeTree) -> frozenset[Modality]:
    """Modalities on which the structure or each half of it is labelled; empty if it is on none."""
    found = _labelled().get(concept_id)
    if found is None:
        halves = [half for half in tree.children(concept_id) if tree[half].base == concept_id]
        known = [_labelled().get(half, frozenset()) for half in halves]
        found = frozenset.intersection(*known) if known else frozenset()
    return found


@cache
def _labelled() -> Mapping[str, frozenset[Modality]]:
    """Modalities by the concept of each class."""
    labelled: dict[str, frozenset[Modality]] = {}
    for label in load_classes().values():
        seen = frozenset(_MODALITIES[name] for name in label.modalities if name in _MODALITIES)
        for concept in label.concepts:
            labelled[concept] = labelled.get(concept, frozenset()) | seen
    return labelled


def warn_of_modality(
    answer: Resolution, tree: KnowledgeTree, *, modality: Modality | None
) -> Resolution:
    """The answer with a warning where none of the public data sets label it on this modality."""
    if modality is None:
        return answer
    elsewhere: dict[str, list[str]] = {}
    for concept in answer.concepts:
        known = labelled_on(concept, tree)
        if known and modality not in known:
            places = " and ".join(sorted(name.upper() for name in known))
            elsewhere.setdefault(places, []).append(tree[concept].name)
    warnings = [
        f"On {modality.upper()} no public data set labels {', '.join(names)}; on {places} some do."
        for places, names in elsewhere.items()
    ]
    return replace(answer, warnings=(*answer.warnings, *warnings))
