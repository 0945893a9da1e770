"""Keeps of a lesion what lies where a report puts it: in a structure, or on one side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from textseg.knowledge import KnowledgeTree
from textseg.knowledge.concept import Side

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

NEAR_MM = 5.0
"""How far from a structure a lesion that is said to lie in it may end: masks are not exact."""

_MIDLINE_MM = 3.0
"""How far beyond the midline a lesion may have its center.

The plane is told from masks on voxels of up to this size, and it is straight, while the midline of
a brain with a lesion bends away from it.
"""

_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
_MOST_PAIRS = 3
_LEAST_APART_MM = 5.0
# kinds of which left and right run differently
_UNEVEN = frozenset({"vessel", "artery", "vein", "nerve"})
# what holds nearly everything narrows nothing
_WIDE = frozenset({"region", "system", "cavity"})


class Narrowed(NamedTuple):
    """A lesion without the pieces that lie elsewhere, and how many stayed and went."""

    mask: Mask
    kept: int
    dropped: int


class Midline(NamedTuple):
    """The plane between two sides: a point on it and the way to the left, in mm along the axes."""

    point_mm: NDArray[np.float64]
    leftward: NDArray[np.float64]


@dataclass(frozen=True)
class SitePlan:
    """By which structures a lesion is narrowed.

    Attributes:
        concepts: The lesion must touch one of them; none narrows by the side alone.
        side: By which it is narrowed where the structures do not tell.
        pairs: Structures whose left and right give the midline for that.
        account: What is done and why, as a sentence.
    """

    concepts: tuple[str, ...]
    side: Side | None
    pairs: tuple[str, ...]
    account: str

    @property
    def narrows(self) -> bool:
        """Whether there is anything to narrow by."""
        return bool(self.concepts or self.side)

    def asked(self, tree: KnowledgeTree) -> tuple[str, ...]:
        """All structures whose masks are needed, the pairs on both sides."""
        sided = (tree.on_side(pair, side) for pair in self.pairs for side in ("left", "right"))
        return (*self.concepts, *(concept for concept in sided if concept is not None))


def narrowed(lesion: Mask, site: Mask, *, spacing_mm: Spacing, reach_mm: float = 0.0) -> Narrowed:
    """The connected pieces of a lesion that touch a structure or come as near to it.

    Pieces hang together, and touch, by faces, edges and corners; a piece stays or goes as a whole.

    Args:
        lesion: X Y Z.
        site: X Y Z, of the same grid.
        spacing_mm: Of its voxels.
        reach_mm: Largest distance between voxel centers of a piece and the structure.
    """
    box = _box(lesion, margin=[int(reach_mm / step) + 1 for step in spacing_mm])
    if box is None:
        return Narrowed(lesion.copy(), 0, 0)
    near = _near(site[box], spacing_mm, reach_mm)
    pieces, count = ndimage.label(lesion[box], structure=_NEIGHBOURS)
    return _with_pieces(lesion, box, pieces, np.unique(pieces[near & lesion[box]]), count)


def on_side(lesion: Mask, midline: Midline, side: Side, *, spacing_mm: Spacing) -> Narrowed:
    """The connected pieces of a lesion whose center lies on one side of the midline, or nearly so.

    One within a few mm of the midline counts as on both sides.
    """
    box = _box(lesion, margin=[0, 0, 0])
    if box is None:
        return Narrowed(lesion.copy(), 0, 0)
    pieces, count = ndimage.label(lesion[box], structure=_NEIGHBOURS)
    numbers = np.arange(1, count + 1)
    centers = np.array(ndimage.center_of_mass(lesion[box], pieces, numbers))
    centers += [part.start for part in box]
    leftness = (centers * spacing_mm - midline.point_mm) @ midline.leftward
    stays = (leftness if side == "left" else -leftness) > -_MIDLINE_MM
    return _with_pieces(lesion, box, pieces, numbers[stays], count)


def find_midline(left: Mask, right: Mask, *, spacing_mm: Spacing) -> Midline | None:
    """The plane halfway between structures of the left and their counterparts on the right.

    None where one of them is missing, or where they are not apart.
    """
    if not left.any() or not right.any():
        return None
    centers = [np.array(ndimage.center_of_mass(mask)) * spacing_mm for mask in (left, right)]
    leftward = centers[0] - centers[1]
    if np.linalg.norm(leftward) < _LEAST_APART_MM:
        return None
    return Midline((centers[0] + centers[1]) / 2, leftward / np.linalg.norm(leftward))


def plan_site(
    site: Sequence[str],
    lesion: Sequence[str],
    tree: KnowledgeTree,
    *,
    supported: Collection[str],
    side: str | None = None,
) -> SitePlan:
    """How a lesion is narrowed to a site with the structures that a model segments.

    To the site itself; else to the nearest whole that holds it on the same side; else to what of
    such a whole can have the lesion; else to the side; else not at all.

    Args:
        site: Ids of the structures that the lesion is said to lie in, any of them.
        lesion: Ids of what it is.
        tree: The knowledge tree.
        supported: Ids that the model segments.
        side: ``left`` or ``right`` where no site says it.
    """
    if not site and side is None:
        return SitePlan((), None, (), "Not narrowed: no place is given.")
    homes = {home for concept in lesion for home in tree[concept].site}
    known = frozenset(supported)
    found = [_expressed(concept, homes, tree, known) for concept in site]
    if found and all(found):
        concepts = dict.fromkeys(c for each in found if each for c in each[0])
        words = dict.fromkeys(each[1] for each in found if each)
        return SitePlan(tuple(concepts), None, (), f"Narrowed to {_listed(words)}.")
    sides = {tree[concept].side or side for concept in site} or {side}
    one = _one_side(sides)
    unknown = _listed(tree[concept].name for concept in site) or "one place for both sides"
    pairs = _pairs(site or tuple(homes), tree, known)
    if one is None:
        return SitePlan((), None, (), f"Not narrowed: the model does not know {unknown}.")
    if not pairs:
        what = f"neither {unknown} nor" if site else "not"
        account = f"Not narrowed: the model knows {what} where the midline is."
        return SitePlan((), None, (), account)
    names = _listed(tree[pair].name for pair in pairs)
    account = f"Narrowed to the {one} side of the midline between left and right {names}"
    reason = f"; the model does not know {unknown}." if site else "."
    return SitePlan((), one, pairs, account + reason)


def _one_side(sides: Collection[str | None]) -> Side | None:
    if sides == {"left"}:
        return "left"
    return "right" if sides == {"right"} else None


def _expressed(
    concept: str, homes: Collection[str], tree: KnowledgeTree, known: frozenset[str]
) -> tuple[tuple[str, ...], str] | None:
    """Supported structures in which a lesion of a site lies, and what they are in words."""
    name, side = tree[concept].name, tree[concept].side
    if exact := tree.leaves(concept, known):
        return exact, name
    # a lesion of the liver is in the liver anyway
    around = {i for home in homes for i in (home, *tree.ancestors(home))}
    for whole in tree.ancestors(concept):
        entry = tree[whole]
        if entry.side != side or entry.kind in _WIDE or whole in around:
            continue
        if leaves := tree.leaves(whole, known):
            return leaves, f"{entry.name}, which holds {name}"
        if shared := _shared(whole, homes, tree, known):
            parts = _listed(tree[part].name for part in shared)
            return shared, f"{parts}, where it can lie in {entry.name}, which holds {name}"
    return None


def _shared(
    whole: str, homes: Collection[str], tree: KnowledgeTree, known: frozenset[str]
) -> tuple[str, ...]:
    """Supported parts of a whole that are parts of where a lesion occurs, too."""
    return tuple(
        part
        for part in sorted(known)
        if whole in (above := tree.ancestors(part))
        and tree[part].side == tree[whole].side
        and not set(homes).isdisjoint((part, *above))
    )


def _pairs(site: Sequence[str], tree: KnowledgeTree, known: frozenset[str]) -> tuple[str, ...]:
    """Structures near a site of which the model segments both sides, the largest first."""
    regions = {tree[concept].region for concept in site}
    bases = {
        tree[concept].base
        for concept in known
        if tree[concept].side == "left"
        and tree.counterpart(concept) in known
        and tree[concept].region in regions
        and tree[concept].kind not in _UNEVEN
    }
    ranked = sorted(bases, key=lambda base: (-(tree[base].volume_ml or 0.0), base))
    return tuple(ranked[:_MOST_PAIRS])


def _near(site: Mask, spacing_mm: Spacing, reach_mm: float) -> Mask:
    """Voxels that touch a structure or lie within reach of it."""
    near: Mask = ndimage.binary_dilation(site, _NEIGHBOURS)
    if reach_mm > 0 and site.any():
        near |= ndimage.distance_transform_edt(~site, sampling=spacing_mm) <= reach_mm
    return near


def _with_pieces(
    lesion: Mask,
    box: tuple[slice, ...],
    pieces: NDArray[np.int32],
    numbers: NDArray[np.integer],
    count: int,
) -> Narrowed:
    stays = np.zeros(count + 1, dtype=bool)
    stays[numbers] = True
    stays[0] = False
    mask = np.zeros_like(lesion)
    mask[box] = stays[pieces]
    kept = int(stays.sum())
    return Narrowed(mask, kept, count - kept)


def _box(mask: Mask, *, margin: Sequence[int]) -> tuple[slice, ...] | None:
    """The box around a mask, larger by a margin as far as the grid goes."""
    found = ndimage.find_objects(mask.astype(np.int8))
    if not found:
        return None
    return tuple(
        slice(max(0, part.start - more), min(size, part.stop + more))
        for part, more, size in zip(found[0], margin, mask.shape, strict=True)
    )


def _listed(names: Iterator[str] | Collection[str]) -> str:
    """Names in a sentence.

    >>> _listed(["liver", "spleen", "pancreas"])
    'liver, spleen and pancreas'
    """
    *most, last = [*names] or [""]
    return f"{', '.join(most)} and {last}" if most else last
