"""MetaImage files, with the voxels attached (.mha) or detached (.mhd)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textseg.errors import InputError
from textseg.imaging import gate
from textseg.imaging.readers.decoded import Decoded
from textseg.imaging.readers.detached import (
    TextHeader,
    broken_header,
    lines_of,
    numbers,
    ras_affine,
    read_text_image,
    whole_number,
    whole_numbers,
)

_FIRST_LINE = re.compile(rb"\s*(ObjectType|Comment|ObjectSubType|NDims)\s*=")
_END_OF_HEADER = re.compile(rb"^ElementDataFile\s*=\s*([^\r\n]*)(\r?\n|$)", re.MULTILINE)
_TYPES = {
    "CHAR": "i1",
    "UCHAR": "u1",
    "SHORT": "i2",
    "USHORT": "u2",
    "INT": "i4",
    "UINT": "u4",
    # the format defines its "long" as 32 bits, whatever the platform's is
    "LONG": "i4",
    "ULONG": "u4",
    "LONG_LONG": "i8",
    "ULONG_LONG": "u8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}


def recognises(head: bytes) -> bool:
    """Whether these first bytes are a MetaImage header."""
    return _FIRST_LINE.match(head) is not None and b"NDims" in head


def read(path: Path, request: gate.Request) -> Decoded:
    """The scan, its header checked before its voxels are touched."""
    return read_text_image(
        path, request, parse=parse_header, kind="metaimage", suffixes=(".mha", ".mhd")
    )


def parse_header(raw: bytes, path: Path) -> TextHeader:
    """The header at the beginning of the file."""
    end = _END_OF_HEADER.search(raw)
    if end is None:
        raise broken_header(path, "it has no 'ElementDataFile'")
    fields = _fields(raw[: end.start()])
    data_file = end.group(1).decode("utf-8", errors="replace").strip()
    attached = data_file.upper() == "LOCAL"
    spatial = whole_numbers(_required(fields, "DimSize", path), path=path)
    if len(spatial) != whole_number(fields, "NDims", 0, path=path):
        raise broken_header(path, f"NDims is {fields.get('NDims')}, DimSize has {len(spatial)}")
    channels = whole_number(fields, "ElementNumberOfChannels", 1, path=path)
    header_size = whole_number(fields, "HeaderSize", 0, path=path)
    is_list = data_file.upper().startswith("LIST") or "%" in data_file
    return TextHeader(
        sizes=spatial if channels == 1 else (channels, *spatial),
        list_axis=0 if channels != 1 else None,
        colour=channels in (3, 4) and fields.get("ElementType") == "MET_UCHAR",
        dtype=_dtype(fields, path=path),
        affine=_affine(fields, len(spatial), path=path),
        data_file=None if attached else data_file,
        offset=end.end() if attached else max(0, header_size),
        compressed=_is_true(fields, "CompressedData"),
        plain_layout=not is_list and _is_true(fields, "BinaryData") and header_size >= 0,
    )


def _fields(raw: bytes) -> dict[str, str]:
    """Header values by name."""
    pairs = (line.split("=", 1) for line in lines_of(raw) if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _required(fields: dict[str, str], name: str, path: Path) -> str:
    if name not in fields:
        raise broken_header(path, f"it has no {name!r}")
    return fields[name]


def _is_true(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "False").lower() in ("true", "1")


def _dtype(fields: dict[str, str], *, path: Path) -> np.dtype[Any]:
    name = _required(fields, "ElementType", path).removeprefix("MET_")
    if name not in _TYPES:
        raise InputError(
            f"has voxels of type MET_{name}, not real numbers;",
            code="E320",
            path=path,
            remedy="convert it to MET_SHORT or MET_FLOAT.",
        )
    big = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    return np.dtype((">" if big else "<") + _TYPES[name])


def _affine(fields: dict[str, str], rank: int, *, path: Path) -> npt.NDArray[np.float64]:
    """The RAS+ affine; the world frame of the format is LPS+."""
    spacing = _vector(fields, ("ElementSpacing", "ElementSize"), [1.0] * rank, path=path)
    origin = _vector(fields, ("Offset", "Position", "Origin"), [0.0] * rank, path=path)
    flat = _vector(
        fields,
        ("TransformMatrix", "Orientation", "Rotation"),
        list(np.eye(rank).ravel()),
        path=path,
    )
    if len(flat) != rank * rank or len(spacing) != rank or len(origin) != rank:
        raise broken_header(path, "its spacing, offset or matrix does not fit NDims")
    if rank < 3:
        return np.eye(4)
    # one row of the text is the direction of one axis
    columns = np.array(flat).reshape(rank, rank)[:3, :3].T * np.array(spacing[:3])
    gate.check_spacing(spacing[:3], path=path)
    return ras_affine(columns, np.array(origin[:3]))


def _vector(
    fields: dict[str, str], names: tuple[str, ...], default: list[float], *, path: Path
) -> list[float]:
    """The numbers under the first of several names the format allows."""
    for name in names:
        if name in fields:
            return numbers(fields[name], path=path)
    return default
