"""Lesions that hold their parts: no voxel of an enhancing tumor lies outside the whole tumor."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from textseg.knowledge import KnowledgeTree

_LESION_KINDS = frozenset({"lesion", "lesion part"})


def parts_within(concept: str, tree: KnowledgeTree, offered: Collection[str]) -> tuple[str, ...]:
    """The offered lesions and lesion parts that the tree puts inside a lesion, nearest first.

    Those are its parts, what it contains, and what is inside of these. Anything but a lesion holds
    none: an organ's mask is what the model says of it.

    Args:
        concept: Id of the lesion.
        tree: The knowledge tree.
        offered: Ids that can be asked for.
    """
    if tree[concept].kind not in _LESION_KINDS:
        return ()
    inside: dict[str, None] = {}
    waiting = [concept]
    while waiting:
        whole = waiting.pop(0)
        for part in (*tree.parts(whole), *tree[whole].contains):
            is_new = part != concept and part not in inside
            if is_new and part in tree and tree[part].kind in _LESION_KINDS:
                inside[part] = None
                waiting.append(part)
    return tuple(part for part in inside if part in offered)


def with_parts(
    concepts: Sequence[str], tree: KnowledgeTree, offered: Collection[str]
) -> tuple[str, ...]:
    """The concepts, each once, and after them the offered ones that their masks must hold."""
    inside = (part for concept in concepts for part in parts_within(concept, tree, offered))
    return tuple(dict.fromkeys((*concepts, *inside)))
