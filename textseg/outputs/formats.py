"""The table of mask formats: to add one, write its module and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from textseg.errors import InputError
from textseg.imaging.volume import Volume
from textseg.outputs import nifti, nrrd

__all__ = ["FORMATS", "MaskFormat", "format_named", "format_of"]


class WriteMask(Protocol):
    """Writes a mask of the volume's own grid to a path, whole or not at all."""

    def __call__(
        self, path: Path, mask: NDArray[np.bool_], volume: Volume, *, label: str
    ) -> None: ...


class MaskFormat(NamedTuple):
    """One way to store a mask: the file's suffix and the function that writes it."""

    suffix: str
    write: WriteMask


FORMATS: Mapping[str, MaskFormat] = MappingProxyType(
    {
        "nifti": MaskFormat(".nii.gz", nifti.write_compressed),
        "nii": MaskFormat(".nii", nifti.write_plain),
        "nrrd": MaskFormat(".nrrd", nrrd.write),
        "mha": MaskFormat(".mha", nrrd.write),
    }
)
"""Format name -> suffix and writer."""


def format_named(name: str) -> MaskFormat:
    """The format of that name.

    Raises:
        InputError: There is none; the message lists those there are.
    """
    try:
        return FORMATS[name]
    except KeyError:
        known = ", ".join(FORMATS)
        raise InputError(f"No mask format is called {name!r}.", remedy=f"Use {known}.") from None


def format_of(path: Path) -> MaskFormat | None:
    """The format a file name asks for by its suffix, None for a folder's name.

    >>> format_of(Path("liver.nii.gz")).suffix, format_of(Path("results"))
    ('.nii.gz', None)
    """
    name = path.name.lower()
    return next((entry for entry in FORMATS.values() if name.endswith(entry.suffix)), None)
