"""Measures in label maps which structures touch: ``python -m knowledge_tree.build.adjacency LIST``.

LIST is a case list such as ``textseg.datasets.load_cases`` reads. Two structures touch where their
voxels share a face, or face each other across a few millimetres that nothing labels, as fat is.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from textseg.datasets import Case, load_cases
from textseg.knowledge import KnowledgeTree, load_tree

FOLDER = Path(__file__).resolve().parent.parent
_HEADER = "concept\tneighbour\tcontact_mm2\tmaps"
_MAPS_PER_DATASET = 6
_LEAST_MM2 = 20.0
_WIDEST_GAP_MM = 5.0
_LEAST_SHARE = 0.5
_TENTATIVE = frozenset({"torchio-gif"})

Pair = tuple[str, str]


def contacts(labels: np.ndarray, spacing_mm: Iterable[float]) -> dict[tuple[int, int], float]:
    """Area of contact in mm2 between every two values of a label map, 0 being nothing.

    >>> row = np.array([1, 1, 0, 2, 3, 0, 0, 0, 4]).reshape(9, 1, 1)
    >>> contacts(row, (2.0, 2.0, 3.0))
    {(1, 2): 6.0, (2, 3): 6.0}
    """
    spacing = np.asarray(tuple(spacing_mm))
    found: Counter[tuple[int, int]] = Counter()
    for axis in range(3):
        area = float(np.prod(np.delete(spacing, axis)))
        along = np.moveaxis(labels, axis, 0)
        for step in range(1, 2 + int(_WIDEST_GAP_MM / spacing[axis])):
            for pair, count in _facing(along, step).items():
                found[pair] += count * area
    return dict(sorted(found.items()))


def _facing(along: np.ndarray, step: int) -> dict[tuple[int, int], int]:
    """How many voxels of two values are ``step`` apart on the first axis, nothing between them."""
    one, other = along[:-step], along[step:]
    met = (one != other) & (one != 0) & (other != 0)
    for between in range(1, step):
        met &= along[between : between - step] == 0
    low, high = np.minimum(one[met], other[met]), np.maximum(one[met], other[met])
    pairs, counts = np.unique(np.stack([low, high]), axis=1, return_counts=True)
    return {(a, b): n for (a, b), n in zip(pairs.T.tolist(), counts.tolist(), strict=True)}


def measure(cases: Iterable[Case], tree: KnowledgeTree) -> Iterator[tuple[Pair, float, int]]:
    """Every pair that touches in most maps that hold both: ids, mean area, number of maps."""
    areas: dict[Pair, list[float]] = defaultdict(list)
    together: Counter[Pair] = Counter()
    for case in cases:
        labels = np.asarray(nib.load(case.label).dataobj).astype(np.int32)
        found = _by_concept(contacts(labels, case.spacing_mm), case.labels, tree)
        present = sorted(i for i in case.concepts if _is_anatomy(i, tree))
        together.update((a, b) for a in present for b in present if a < b)
        for pair, area in found.items():
            if area >= _LEAST_MM2:
                areas[pair].append(area)
    for pair in sorted(areas):
        if len(areas[pair]) >= _LEAST_SHARE * together[pair]:
            yield pair, float(np.mean(areas[pair])), len(areas[pair])


def _by_concept(
    found: Mapping[tuple[int, int], float], labels: Mapping[int, str], tree: KnowledgeTree
) -> dict[Pair, float]:
    """Contacts of values as contacts of concepts; a structure and what it holds do not touch."""
    result: Counter[Pair] = Counter()
    for values, area in found.items():
        ids = sorted({labels[value] for value in values if value in labels})
        if len(ids) == 2 and all(_is_anatomy(i, tree) for i in ids) and not _nested(ids, tree):
            result[ids[0], ids[1]] += area
    return result


def _is_anatomy(concept_id: str, tree: KnowledgeTree) -> bool:
    return not tree[concept_id].kind.startswith("lesion")


def _nested(ids: Iterable[str], tree: KnowledgeTree) -> bool:
    one, other = ids
    return one in tree.ancestors(other) or other in tree.ancestors(one)


def choose(cases: Iterable[Case]) -> list[Case]:
    """A few label maps of each data set that name several structures."""
    taken: Counter[str] = Counter()
    chosen = []
    for case in cases:
        fits = case.split == "train" and case.label is not None and len(case.concepts) > 1
        if fits and case.dataset not in _TENTATIVE and taken[case.dataset] < _MAPS_PER_DATASET:
            taken[case.dataset] += 1
            chosen.append(case)
    return chosen


def main(case_list: Path) -> None:
    """Writes ``knowledge_tree/adjacent.tsv``."""
    rows = measure(choose(load_cases(case_list)), load_tree())
    lines = [f"{a}\t{b}\t{area:.0f}\t{maps}" for (a, b), area, maps in rows]
    path = FOLDER / "adjacent.tsv"
    path.write_text("\n".join([_HEADER, *lines]) + "\n", encoding="utf-8")
    print(path, len(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
