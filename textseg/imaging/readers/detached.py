"""What NRRD and MetaImage share: a text header, and voxels behind it or in a file of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textseg.errors import InputError
from textseg.imaging import affine as affines
from textseg.imaging import gate
from textseg.imaging.readers.decoded import Decoded, VoxelBlock, read_block, suffix_warning
from textseg.imaging.stream import ByteStream
from textseg.imaging.volume import Source

HEADER_LIMIT = 1 << 22


@dataclass(frozen=True, eq=False)
class TextHeader:
    """A parsed header.

    Attributes:
        sizes: Every array axis, fastest first.
        list_axis: The axis that counts channels or volumes instead of space, if one does.
        colour: Whether that axis holds the primaries of a colour.
        dtype: Stored type with byte order.
        affine: The three space axes to RAS+ world millimetres.
        data_file: As the header names it; None if the voxels follow the header.
        offset: Stored bytes before the voxels (or before their compressed stream).
        compressed: Whether the voxels are a gzip or zlib stream.
        plain_layout: Whether the voxels are one block of binary numbers.
        warnings: What was odd.
    """

    sizes: tuple[int, ...]
    list_axis: int | None
    colour: bool
    dtype: np.dtype[Any]
    affine: npt.NDArray[np.float64]
    data_file: str | None
    offset: int
    compressed: bool
    plain_layout: bool
    warnings: tuple[str, ...] = ()


def read_text_image(
    path: Path,
    request: gate.Request,
    *,
    parse: Callable[[bytes, Path], TextHeader],
    kind: str,
    suffixes: tuple[str, ...],
) -> Decoded:
    """The scan behind a text header.

    Args:
        path: The file with the header.
        request: Which volume, and limits.
        parse: Header bytes to ``TextHeader``.
        kind: The ``Source.format``.
        suffixes: Names the format usually has, for the note about names that lie.
    """
    with ByteStream(path) as stream:
        if stream.compressed:
            raise InputError(
                f"is a {kind} file inside a gzip file;",
                code="E305",
                path=path,
                remedy="unpack it with gunzip first.",
            )
        header = parse(stream.peek(HEADER_LIMIT), path)
    if header.colour:
        raise gate.colour(path)
    gate.check_sizes(_space_first(header), request, path=path)
    warnings = header.warnings + gate.check_affine(header.affine, path=path)
    warnings += suffix_warning(path, compressed=False, suffixes=suffixes)
    if not header.plain_layout:
        return _through_simpleitk(path, request, kind=kind, warnings=warnings)
    data_path = _data_path(path, header)
    data, sha256 = _read_voxels(data_path, header, request, path=path)
    source = Source(path, kind, sha256=sha256 if data_path == path else None)
    return Decoded(data, header.affine, source, warnings=warnings)


def lines_of(raw: bytes) -> list[str]:
    """Header bytes as lines; names in other alphabets survive, whatever their encoding."""
    return raw.decode("utf-8", errors="replace").splitlines()


def numbers(text: str, *, path: Path) -> list[float]:
    """The numbers in one header value."""
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise broken_header(path, f"{text[:60]!r} should be numbers") from None


def whole_numbers(text: str, *, path: Path) -> tuple[int, ...]:
    """The whole numbers in one header value."""
    values = numbers(text, path=path)
    if not all(math.isfinite(value) and value == int(value) for value in values):
        raise broken_header(path, f"{text[:60]!r} should be whole numbers")
    return tuple(int(value) for value in values)


def whole_number(fields: dict[str, str], name: str, default: int, *, path: Path) -> int:
    """The single whole number under a name, if the header has it."""
    values = whole_numbers(fields.get(name, str(default)), path=path)
    if len(values) != 1:
        raise broken_header(path, f"{name!r} should be one number")
    return values[0]


def broken_header(path: Path, cause: str) -> InputError:
    """E305 for a header that contradicts its own format."""
    return InputError(
        f"has a broken header: {cause};",
        code="E305",
        path=path,
        remedy="export the scan again.",
    )


def ras_affine(
    columns: npt.NDArray[np.float64],
    origin: npt.NDArray[np.float64],
    *,
    to_ras: tuple[float, float, float] = affines.LPS_TO_RAS[:3],
) -> npt.NDArray[np.float64]:
    """The affine of three axis vectors (as columns) and an origin in another world frame."""
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = origin
    signs: npt.NDArray[np.float64] = np.diag([*to_ras, 1.0])
    return signs @ affine


def _space_first(header: TextHeader) -> list[int]:
    """Sizes with the counting axis last, as the gate expects them."""
    sizes = list(header.sizes)
    if header.list_axis is not None:
        sizes.append(sizes.pop(header.list_axis))
    return sizes


def _data_path(path: Path, header: TextHeader) -> Path:
    """The file that holds the voxels."""
    if header.data_file is None:
        return path
    data_path = path.parent / header.data_file
    if not data_path.is_file():
        raise InputError(
            f"keeps its voxels in {header.data_file}, which is missing;",
            code="E301",
            path=path,
            remedy="copy that file beside it.",
        )
    return data_path


def _read_voxels(
    data_path: Path, header: TextHeader, request: gate.Request, *, path: Path
) -> tuple[npt.NDArray[np.float32], str]:
    """The chosen volume, ``X Y Z``, and the hash of the file it was in."""
    shape, num_volumes, index = gate.check_sizes(_space_first(header), request, path=path)
    stacked = header.list_axis is None or header.list_axis == len(header.sizes) - 1
    block = VoxelBlock(
        offset=0,
        dtype=header.dtype,
        # channels that lie between the voxels have to be read together
        shape=shape if stacked else (shape[0] * num_volumes, *shape[1:]),
        num_volumes=num_volumes if stacked else 1,
        index=index if stacked else 0,
    )
    with ByteStream(data_path, skip=header.offset, compressed=header.compressed) as stream:
        data, sha256 = read_block(stream, block, path=data_path)
    if not stacked and header.list_axis is not None:
        together = data.reshape(header.sizes, order="F")
        data = np.moveaxis(together, header.list_axis, -1)[..., index].copy(order="F")
    return data, sha256


def _through_simpleitk(
    path: Path, request: gate.Request, *, kind: str, warnings: tuple[str, ...]
) -> Decoded:
    """Rare layouts (text, hex, bzip2, one file per slice), which SimpleITK checks itself."""
    import SimpleITK as sitk

    from textseg.imaging.readers.memory import from_sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"its voxels cannot be decoded ({reason});",
            code="E305",
            path=path,
            remedy="write it again with raw or gzip encoding.",
        ) from error
    decoded = from_sitk(image, request)
    return Decoded(decoded.data, decoded.affine, Source(path, kind), warnings=warnings)
