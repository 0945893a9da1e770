"""What a reader hands over, and the one way from stored numbers to float32 voxels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from textseg.imaging import gate
from textseg.imaging.stream import ByteStream, truncated
from textseg.imaging.volume import Modality, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHUNK_VOXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class Decoded:
    """A scan whose header passed the gate and whose voxels have yet to.

    Attributes:
        data: float32 ``X Y Z``, owned by this object.
        affine: Voxel indices to RAS+ world millimetres.
        source: Where it came from.
        modality: If the file says; None otherwise.
        warnings: What was odd about the header.
    """

    data: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    source: Source
    modality: Modality | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class VoxelBlock:
    """How voxels lie in a file: first axis fastest, volumes one after the other.

    Attributes:
        offset: Bytes before the first voxel.
        dtype: Stored type, byte order included.
        shape: Of one volume.
        num_volumes: How many follow one another.
        index: The one to read.
        slope: Multiplies stored values.
        intercept: Is added after.
    """

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, int, int]
    num_volumes: int = 1
    index: int = 0
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def num_voxels(self) -> int:
        """Of one volume."""
        x, y, z = self.shape
        return x * y * z


def read_block(
    stream: ByteStream, block: VoxelBlock, *, path: Path
) -> tuple[npt.NDArray[np.float32], str]:
    """One volume as float32 ``X Y Z`` (Fortran order), and the sha256 of the whole file.

    Raises:
        InputError: E306 if bytes are missing, E307 if the checksum is wrong, E312 if too many
            bytes follow. ResourceError E501 if the volume does not fit in memory.
    """
    size = block.num_voxels * block.dtype.itemsize
    expected = block.offset + size * block.num_volumes
    if not stream.could_hold(expected):
        raise _cut_off(path, expected, stream.size, stored=True)
    gate.check_memory(block.shape, path=path)
    position = stream.skip(block.offset + size * block.index)
    data = np.empty(block.num_voxels, dtype=np.float32)
    start = 0
    while start < data.size:
        stop = min(start + _CHUNK_VOXELS, data.size)
        raw = stream.read((stop - start) * block.dtype.itemsize)
        position += len(raw)
        if len(raw) < (stop - start) * block.dtype.itemsize:
            raise _cut_off(path, expected, position, stored=False)
        data[start:stop] = scaled(np.frombuffer(raw, block.dtype), block.slope, block.intercept)
        start = stop
    position += stream.skip(expected - position)
    if position < expected:
        raise _cut_off(path, expected, position, stored=False)
    return data.reshape(block.shape, order="F"), stream.finish()


def scaled(stored: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[np.float32]:
    """Stored numbers times slope plus intercept, as float32; too large becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if slope == 1.0 and intercept == 0.0:
            return stored.astype(np.float32)
        # in float64, so that 16-bit values keep every digit of the scaling
        return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def choose_volume(
    array: npt.NDArray[Any], request: gate.Request, *, path: Path | None
) -> npt.NDArray[np.float32]:
    """One volume of an ``X Y Z ...`` array that is already in memory, as an owned float32 copy."""
    shape, num_volumes, index = gate.check_sizes(array.shape, request, path=path)
    gate.check_dtype(array.dtype, path=path)
    volumes = array.reshape((*shape, num_volumes), order="F") if array.ndim != 3 else array
    chosen = volumes[..., index] if array.ndim != 3 else volumes
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(chosen, dtype=np.float32, order="K")


def suffix_warning(path: Path, *, compressed: bool, suffixes: Sequence[str]) -> tuple[str, ...]:
    """A note if the file's name promises another format or compression than its bytes hold."""
    name = path.name.lower()
    if not name.endswith(tuple(suffixes)):
        return (f"the name {path.name} does not say what the file holds ({suffixes[0]})",)
    if compressed != name.endswith(("gz", "mgz")):
        held = "compressed" if compressed else "not compressed"
        return (f"the data are {held}, unlike the name {path.name} says",)
    return ()


def _cut_off(path: Path, expected: int, found: int, *, stored: bool) -> Exception:
    held = "bytes as stored" if stored else "bytes"
    return truncated(path, f"ends early: {expected:,} bytes announced, {found:,} {held}")
