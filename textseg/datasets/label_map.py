"""The mask of a case as one integer map, whatever files it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textseg.datasets.cases import Case
from textseg.datasets.masks import needs_scan, on_grid, read_mask, read_mask_volumes
from textseg.datasets.segments import read_segments
from textseg.datasets.spec import Key
from textseg.errors import InputError
from textseg.imaging.labels import Labels
from textseg.imaging.volume import Geometry, Volume

MAX_SHIFT_MM = 0.5
"""How far apart the corners of two grids may lie that are meant to be one."""


_SPOTS = 400


class LabelledCase(NamedTuple):
    """A case with its mask.

    Attributes:
        case: Its labels are those that its mask holds, all of them values.
        labels: The mask, ``X Y Z``; 0 is background.
    """

    case: Case
    labels: Labels


def read_label_map(case: Case, *, scan: Geometry | None = None) -> LabelledCase:
    """A case and its mask.

    A mask of several files or volumes becomes one map with a value for each combination of
    structures that some voxel belongs to.

    Args:
        case: A case with masks.
        scan: Where its scan lies, if that is known; else it is read where the mask does not say.

    Raises:
        InputError: A file is missing, damaged, holds no labels, or lies elsewhere than the others.
        ModelError: E403, DICOM needs an extra that is not installed.
    """
    apart = case.holds == "segments" or any(needs_scan(path) for path in case.masks.values())
    if scan is None and (apart or case.own_grid):
        scan = case.read_image().geometry
    if case.holds == "values":
        labels = read_mask(case.masks[""], scan, head_first=case.head_first)
        if case.own_grid and scan is not None:
            labels = on_grid(labels, scan)
        return LabelledCase(_holding(case, {v: (v,) for v in labels.present()}), labels)
    structures, geometry = _structures(case, scan)
    values, meanings = _combined(structures, geometry)
    path = next(iter(case.masks.values()))
    return LabelledCase(_holding(case, meanings), Labels(path, values, geometry))


def read_pair(case: Case) -> tuple[Volume | None, LabelledCase]:
    """The scan of a case, if it has one, and its mask on the same grid.

    Raises:
        InputError: A file is damaged, or the mask does not lie on the scan (E321).
        ModelError: E403, DICOM needs an extra that is not installed.
    """
    if not case.has_scan:
        return None, read_label_map(case)
    scan = case.read_image()
    seen = read_label_map(case, scan=scan.geometry)
    if not seen.labels.geometry.matches(scan.geometry, tolerance_mm=MAX_SHIFT_MM):
        raise InputError(
            "does not lie on the grid of its scan.", code="E321", path=seen.labels.path
        )
    return scan, seen


def sample_voxels(values: NDArray[np.integer[Any]]) -> dict[int, NDArray[np.int64]]:
    """Up to 400 voxels of each value of ``X Y Z``, evenly drawn, ``n 3``."""
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    found, starts = np.unique(flat[order], return_index=True)
    spots = {}
    for value, places in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
        chosen = places[:: max(1, len(places) // _SPOTS)][:_SPOTS]
        spots[value] = np.stack(np.unravel_index(chosen, values.shape), axis=-1)
    return spots


def _structures(
    case: Case, scan: Geometry | None
) -> tuple[Mapping[Key, NDArray[np.bool_]], Geometry]:
    """The voxels of each structure, by the key of its label, and where they lie."""
    path = next(iter(case.masks.values()))
    if case.holds == "segments":
        assert scan is not None
        return read_segments(path, scan), scan
    if case.holds == "channels":
        volumes, geometry = read_mask_volumes(path)
        return {number: volume > 0 for number, volume in enumerate(volumes, start=1)}, geometry
    masks = {structure: read_mask(file, scan) for structure, file in case.masks.items()}
    first, *others = masks.values()
    for other in others:
        if not other.geometry.matches(first.geometry, tolerance_mm=MAX_SHIFT_MM):
            raise InputError(
                f"lies elsewhere than {first.path.name}, another structure of the same scan.",
                code="E321",
                path=other.path,
            )
    return {structure: mask.values > 0 for structure, mask in masks.items()}, first.geometry


def _combined(
    structures: Mapping[Key, NDArray[np.bool_]], geometry: Geometry
) -> tuple[NDArray[np.int32], dict[int, tuple[Key, ...]]]:
    """One map with a value for each combination of structures, and what the values mean."""
    values = np.zeros(geometry.shape, dtype=np.int32)
    combinations: list[tuple[Key, ...]] = [()]
    for key, mask in structures.items():
        met, inverse = np.unique(values[mask], return_inverse=True)
        values[mask] = len(combinations) + inverse
        combinations += [(*combinations[value], key) for value in met]
    held = np.unique(values)
    return values, {int(value): combinations[value] for value in held if value}


def _holding(case: Case, meanings: Mapping[int, tuple[Key, ...]]) -> Case:
    """The case with the values of its map as labels, each of which joins some keys."""
    labels = {
        value: tuple(dict.fromkeys(i for key in keys for i in case.labels.get(key, ())))
        for value, keys in meanings.items()
    }
    return replace(
        case,
        holds="values",
        labels={value: concepts for value, concepts in labels.items() if concepts},
        unnamed=tuple(value for value, concepts in labels.items() if not concepts),
    )
