"""NRRD files, with the voxels attached (.nrrd) or detached (.nhdr)."""

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

_MAGIC = b"NRRD000"
_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong",
        "long long",
        "long long int",
        "signed long long",
        "signed long long int",
        "int64",
        "int64_t",
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TO_RAS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}
_SHORT_NAMES = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}
_COLOURS = ("rgb-color", "rgba-color", "hsv-color", "xyz-color", "3-color", "4-color")


def recognises(head: bytes) -> bool:
    """Whether these first bytes are NRRD's."""
    return head.startswith(_MAGIC)


def read(path: Path, request: gate.Request) -> Decoded:
    """The scan, its header checked before its voxels are touched."""
    return read_text_image(
        path, request, parse=parse_header, kind="nrrd", suffixes=(".nrrd", ".nhdr")
    )


def parse_header(raw: bytes, path: Path) -> TextHeader:
    """The header at the beginning of the file."""
    end = _END_OF_HEADER.search(raw)
    fields = _fields(raw[: end.start()] if end else raw)
    data_file = fields.get("data file")
    if end is None and data_file is None:
        raise broken_header(path, "it does not end")
    sizes = whole_numbers(_required(fields, "sizes", path), path=path)
    columns, list_axis = _space_axes(fields, len(sizes), path=path)
    affine, warnings = _placement(fields, columns, path=path)
    encoding = fields.get("encoding", "raw").lower()
    skip = whole_number(fields, "byte skip", 0, path=path)
    lines_to_skip = whole_number(fields, "line skip", 0, path=path)
    one_file = data_file is None or not ("%" in data_file or data_file.startswith("LIST"))
    return TextHeader(
        sizes=sizes,
        list_axis=list_axis,
        colour=_is_colour(fields, sizes, list_axis),
        dtype=_dtype(fields, encoding, path=path),
        affine=affine,
        data_file=data_file,
        offset=(end.end() if end and data_file is None else 0) + max(0, skip),
        compressed=encoding in ("gzip", "gz"),
        # skipped bytes of a compressed block are inside its stream, which is too rare to handle
        plain_layout=one_file
        and (encoding == "raw" or (encoding in ("gzip", "gz") and skip == 0))
        and lines_to_skip == 0
        and skip >= 0,
        warnings=warnings,
    )


def _fields(raw: bytes) -> dict[str, str]:
    """The standard fields by lower-case name; comments and user key/values are left out."""
    fields: dict[str, str] = {}
    for line in lines_of(raw)[1:]:
        if line.startswith("#") or ":=" in line or ":" not in line:
            continue
        name, value = line.split(":", 1)
        plain = name.strip().lower()
        fields[_SHORT_NAMES.get(plain, plain)] = value.strip()
    return fields


def _required(fields: dict[str, str], name: str, path: Path) -> str:
    if name not in fields:
        raise broken_header(path, f"it has no {name!r}")
    return fields[name]


def _dtype(fields: dict[str, str], encoding: str, *, path: Path) -> np.dtype[Any]:
    name = " ".join(_required(fields, "type", path).lower().split())
    for code, names in _TYPES.items():
        if name in names:
            order = ">" if fields.get("endian", "little").lower() == "big" else "<"
            return np.dtype(order + code)
    raise InputError(
        f"has voxels of type {name!r}, not real numbers;",
        code="E320",
        path=path,
        remedy="convert it to short or float.",
    )


def _space_axes(
    fields: dict[str, str], rank: int, *, path: Path
) -> tuple[npt.NDArray[np.float64], int | None]:
    """The vectors of the three space axes as columns, and the axis that is not one."""
    if rank < 3:
        # the gate refuses flat images by their sizes
        return np.eye(3), None
    if "space directions" in fields:
        words = re.findall(r"none|\([^)]*\)", fields["space directions"])
        vectors = [None if word == "none" else numbers(word[1:-1], path=path) for word in words]
    elif "spacings" in fields:
        steps = numbers(fields["spacings"], path=path)
        vectors = [list(row) for row in np.diag(steps[:3])] + [None] * (len(steps) - 3)
    else:
        vectors = [list(row) for row in np.eye(3)] + [None] * (rank - 3)
    if len(vectors) != rank:
        raise broken_header(path, f"{rank} axes, but {len(vectors)} axis vectors")
    space = [axis for axis, vector in enumerate(vectors) if vector is not None]
    lists = [axis for axis in range(rank) if axis not in space[:3]]
    if len(space) < 3 or len(lists) > 1:
        raise broken_header(path, f"{len(space)} of its {rank} axes are space")
    columns = [(vectors[axis] or [])[:3] for axis in space[:3]]
    if any(len(column) < 3 for column in columns):
        raise broken_header(path, "an axis vector has fewer than three numbers")
    return np.array(columns, dtype=np.float64).T, lists[0] if lists else None


def _placement(
    fields: dict[str, str], columns: npt.NDArray[np.float64], *, path: Path
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """The RAS+ affine, and a warning where the header leaves the world frame open."""
    origin = np.zeros(3)
    if "space origin" in fields:
        stated = numbers(fields["space origin"].strip("() "), path=path)[:3]
        origin[: len(stated)] = stated
    space = fields.get("space", "").lower().removesuffix("-time")
    if space in _TO_RAS:
        return ras_affine(columns, origin, to_ras=_TO_RAS[space]), ()
    warning = (
        "the header states no anatomical space; left-posterior-superior was assumed, "
        "so left and right may be swapped"
    )
    return ras_affine(columns, origin), (warning,)


def _is_colour(fields: dict[str, str], sizes: tuple[int, ...], list_axis: int | None) -> bool:
    """Whether the channel axis says it is colour, or looks like a picture's (3 or 4 bytes)."""
    if list_axis is None:
        return False
    kinds = fields.get("kinds", "").lower().split()
    if len(kinds) > list_axis and kinds[list_axis] in _COLOURS:
        return True
    is_byte = fields.get("type", "").lower() in _TYPES["u1"]
    return is_byte and list_axis == 0 and sizes[0] in (3, 4)
