"""Scans made worse, or laid out otherwise, in ways that happen: what a model's masks take from it.

Each corruption takes a scan and its reference on one grid and gives a new pair on a new grid; every
voxel that is kept has the label and the place in the world that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textseg.imaging import Geometry, Volume

NOISE = 0.08
"""Standard deviation, as a part of a channel's range between the 1st and the 99th percentile."""
KEPT = 0.7
"""Part of each axis that a smaller field of view keeps."""
_PROFILE = (0.25, 0.5, 0.25)
_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))


class ScanPair(NamedTuple):
    """A scan and its reference.

    Attributes:
        scan: The scan, ``C X Y Z``.
        labels: Its label values, ``X Y Z``.
    """

    scan: Volume
    labels: NDArray[np.integer[Any]]


Corruption: TypeAlias = Callable[[ScanPair], ScanPair]


def thick_slices(pair: ScanPair) -> ScanPair:
    """Slices of twice the thickness, along the axis nearest to head and feet.

    A slice is a weighted mean of three and lies where the middle one did.
    """
    scan, labels = pair
    axis = next(i for i, code in enumerate(scan.geometry.orientation) if code in "SI")
    data = np.moveaxis(scan.data, axis + 1, -1)
    padded = np.pad(data, [(0, 0)] * 3 + [(1, 1)], mode="edge")
    count = data.shape[-1]
    near = [weight * padded[..., k : k + count : 2] for k, weight in enumerate(_PROFILE)]
    affine = scan.geometry.affine.copy()
    affine[:3, axis] *= 2
    thick = np.ascontiguousarray(
        np.moveaxis(sum(near[1:], near[0]), -1, axis + 1), dtype=np.float32
    )
    middle = np.take(labels, range(0, count, 2), axis=axis)
    return _pair(pair, thick, middle, affine)


def small_field(pair: ScanPair) -> ScanPair:
    """The middle of the scan."""
    scan, labels = pair
    shape = np.array(labels.shape)
    size = np.maximum(1, np.round(KEPT * shape).astype(int))
    start = (shape - size) // 2
    x, y, z = (slice(a, a + n) for a, n in zip(start, size, strict=True))
    affine = scan.geometry.affine.copy()
    affine[:3, 3] = affine[:3, :3] @ start + affine[:3, 3]
    return _pair(pair, scan.data[:, x, y, z], labels[x, y, z], affine)


def noise(pair: ScanPair) -> ScanPair:
    """Gaussian noise, the same for the same scan."""
    scan, labels = pair
    low, high = np.percentile(scan.data, (1, 99), axis=(1, 2, 3), keepdims=True)  # C 1 1 1
    drawn = np.random.default_rng(0).standard_normal(scan.data.shape, dtype=np.float32)
    data = scan.data + np.float32(NOISE) * (high - low).astype(np.float32) * drawn
    return _pair(pair, data, labels, scan.geometry.affine)


def oriented(codes: str) -> Corruption:
    """The same scan stored along other axes, such as ``LPS``."""

    def turned(pair: ScanPair) -> ScanPair:
        scan, labels = pair
        own = scan.geometry.orientation
        order = [next(i for i in range(3) if own[i] in (code, _OPPOSITE[code])) for code in codes]
        data = scan.data.transpose(0, *(axis + 1 for axis in order))
        labels = labels.transpose(order)
        affine = scan.geometry.affine[:, [*order, 3]].copy()
        for axis, code in enumerate(codes):
            if own[order[axis]] != code:
                data, labels = np.flip(data, axis + 1), np.flip(labels, axis)
                affine[:3, 3] += affine[:3, axis] * (labels.shape[axis] - 1)
                affine[:3, axis] *= -1
        return _pair(pair, data, labels, affine)

    return turned


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "slices twice as thick": thick_slices,
        "smaller field of view": small_field,
        "noise": noise,
        "stored as LPS": oriented("LPS"),
        "stored as SAL": oriented("SAL"),
        "stored as PIR": oriented("PIR"),
    }
)


def _pair(
    pair: ScanPair,
    data: NDArray[np.float32],
    labels: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
) -> ScanPair:
    x, y, z = labels.shape
    scan = replace(
        pair.scan,
        data=np.ascontiguousarray(data),
        geometry=Geometry((x, y, z), affine),
    )
    return ScanPair(scan, np.ascontiguousarray(labels))
