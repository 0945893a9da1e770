"""Prepared scans and masks on disk, compressed in blocks: a crop is read without the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textseg.errors import InputError, ModelError
from textseg.imaging.volume import Geometry, Modality, Source, Volume

SUFFIX = ".b2nd"
_CHUNK, _BLOCK = 96, 32
_KEPT_BITS = 12
"""Bits of a float's fraction that are kept: finer than a four-thousandth of any value."""


class StoredArray:
    """An array ``X Y Z`` in a file, opened when it is first needed and again in each process.

    Args:
        path: A file that ``write_array`` wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, part: tuple[slice, slice, slice]) -> NDArray[Any]:
        """Voxels of a part, read from disk."""
        try:
            voxels: NDArray[Any] = self._array[part]
        except RuntimeError as error:
            raise self._unreadable(error) from error
        return voxels

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X Y Z."""
        x, y, z = self._array.shape
        return x, y, z

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """What was written with the array."""
        return dict(self._array.schunk.vlmeta[:])

    @property
    def geometry(self) -> Geometry:
        """Placement of the voxels."""
        return Geometry(self.shape, np.asarray(self.about["affine"], dtype=np.float64))

    @cached_property
    def _array(self) -> Any:
        blosc2 = _blosc2()
        try:
            return blosc2.open(str(self.path), mode="r")
        except (OSError, RuntimeError, ValueError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(
            f"is no prepared array that can be read ({error}).",
            code="E303",
            path=self.path,
            remedy="Run `textseg data prepare` again; it makes what is missing or damaged.",
        )


def read_stored(
    paths: Sequence[Path], *, modality: Modality, channels: tuple[str, ...] = ()
) -> Volume:
    """A prepared scan as a whole.

    Args:
        paths: A file of each channel.
        modality: Of the scan.
        channels: Names of the channels, if they have any.

    Raises:
        InputError: A file is missing or damaged, or two do not share a grid (E321).
    """
    stored = [StoredArray(path) for path in paths]
    geometry = stored[0].geometry
    for other in stored[1:]:
        if not other.geometry.matches(geometry):
            raise InputError(
                f"does not lie on the grid of {paths[0].name}.", code="E321", path=other.path
            )
    sources = tuple(Source(path, "prepared") for path in paths)
    return Volume(
        np.stack([one[:, :, :].astype(np.float32) for one in stored]),
        geometry,
        modality,
        sources[0],
        channels=channels,
        sources=sources if channels else (),
    )


def write_array(path: Path, values: NDArray[Any], geometry: Geometry, **about: Any) -> None:
    """Writes voxels ``X Y Z``; fractions are kept to 12 bits.

    Args:
        path: Ends with ``SUFFIX``.
        values: Whole numbers, or float32.
        geometry: Placement of the voxels.
        about: What else to say about them; numbers, texts, lists and dicts of them.
    """
    blosc2 = _blosc2()
    filters, meta = [blosc2.Filter.BITSHUFFLE], [0]
    if values.dtype.kind == "f":
        filters, meta = [blosc2.Filter.TRUNC_PREC, *filters], [_KEPT_BITS, *meta]
    array = blosc2.asarray(
        np.ascontiguousarray(values),
        urlpath=str(path),
        mode="w",
        chunks=tuple(min(_CHUNK, size) for size in values.shape),
        blocks=tuple(min(_BLOCK, size) for size in values.shape),
        cparams=blosc2.CParams(
            codec=blosc2.Codec.ZSTD, clevel=5, filters=filters, filters_meta=meta, nthreads=1
        ),
    )
    array.schunk.vlmeta["affine"] = geometry.affine.tolist()
    for name, value in about.items():
        array.schunk.vlmeta[name] = value


def _blosc2() -> Any:
    try:
        import blosc2
    except ImportError as error:
        raise ModelError(
            "prepared data need the package blosc2, which is not installed;",
            code="E403",
            remedy='install it with: pip install "textseg[train]"',
        ) from error
    return blosc2
