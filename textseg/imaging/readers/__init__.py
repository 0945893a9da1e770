"""Scans of every supported format as one kind of ``Volume``; damaged ones are refused.

A format is a module with two functions, ``recognises(head)`` and ``read(path, request)``, and one
line in ``READERS``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from textseg.errors import InputError
from textseg.imaging import gate
from textseg.imaging.channels import read_channels
from textseg.imaging.gate import Request
from textseg.imaging.intensity import guess_modality, looks_like_hounsfield
from textseg.imaging.readers import dicom, memory, metaimage, mgh, nifti, nrrd
from textseg.imaging.readers.decoded import Decoded
from textseg.imaging.stream import ByteStream
from textseg.imaging.volume import Geometry, Modality, Source, Volume

AnyModality: TypeAlias = Modality | Literal["auto"]

_HEAD_BYTES = 1024


@dataclass(frozen=True)
class Reader:
    """One format: how its first (decompressed) bytes are told, and how a file is read."""

    name: str
    recognises: Callable[[bytes], bool]
    read: Callable[[Path, Request], Decoded]


READERS: tuple[Reader, ...] = (
    Reader("NIfTI", nifti.recognises, nifti.read),
    Reader("NRRD", nrrd.recognises, nrrd.read),
    Reader("MetaImage", metaimage.recognises, metaimage.read),
    Reader("MGH", mgh.recognises, mgh.read),
    Reader("DICOM", dicom.recognises, dicom.read_file),
)


def read_volume(
    path: str | os.PathLike[str],
    *,
    volume_index: int | None = None,
    series: str | None = None,
    modality: AnyModality = "auto",
    max_voxels: int = 1_500_000_000,
) -> Volume:
    """The scan in a file or DICOM folder.

    Args:
        path: NIfTI, NRRD, MetaImage, MGH/MGZ file (told by its bytes), or a DICOM folder.
        volume_index: Which volume of a file that holds several.
        series: Which DICOM series of a folder that holds several.
        modality: What the intensities are; ``auto`` takes the file's word or guesses.
        max_voxels: Larger volumes are refused before their data are read.

    Raises:
        InputError: The scan is missing, damaged or cannot be trusted; ``code`` says why.
        ModelError: E403, DICOM needs an extra that is not installed.
        ResourceError: E501, the voxels do not fit in memory.
    """
    request = Request(volume_index=volume_index, series=series, max_voxels=max_voxels)
    scan = Path(path)
    gate.check_path(scan)
    decoded = dicom.read_folder(scan, request) if scan.is_dir() else _read_file(scan, request)
    return _accepted(decoded, modality)


def as_volume(
    scan: Any,
    *,
    volume_index: int | None = None,
    series: str | None = None,
    modality: AnyModality = "auto",
    max_voxels: int = 1_500_000_000,
) -> Volume:
    """Anything that is a scan as a ``Volume``.

    Args:
        scan: A path, a nibabel image, a SimpleITK image, ``(array X Y Z, affine 4x4 RAS+)``, a
            mapping from the names of channels to any of these (see ``read_channels``), or a
            ``Volume``, which is returned as it is.
        volume_index: As in ``read_volume``, as are the rest.
        series: See there.
        modality: See there.
        max_voxels: See there.
    """
    if isinstance(scan, Volume):
        return scan
    if isinstance(scan, Mapping):
        if volume_index is not None or series is not None:
            raise InputError(
                "a volume or series is chosen, but the scan is given as channels.",
                remedy="Give each channel a file or folder of its own.",
            )
        return read_channels(scan, modality=modality, max_voxels=max_voxels)
    if isinstance(scan, str | os.PathLike):
        return read_volume(
            scan,
            volume_index=volume_index,
            series=series,
            modality=modality,
            max_voxels=max_voxels,
        )
    request = Request(volume_index=volume_index, series=series, max_voxels=max_voxels)
    return _accepted(memory.decode(scan, request), modality)


def _read_file(path: Path, request: Request) -> Decoded:
    """The file through the first reader that recognises its bytes."""
    with ByteStream(path) as stream:
        head = stream.peek(_HEAD_BYTES)
    if not head:
        raise gate.empty(path)
    for reader in READERS:
        if reader.recognises(head):
            return reader.read(path, request)
    known = ", ".join(reader.name for reader in READERS)
    raise InputError(
        "is not a scan in a format textseg reads;",
        code="E305",
        path=path,
        remedy=f"supported are {known}.",
    )


def _accepted(decoded: Decoded, modality: AnyModality) -> Volume:
    """The decoded scan after its voxels passed the gate, with its modality settled."""
    source = decoded.source
    gate.check_extent(decoded.affine, decoded.data.shape, path=source.path)
    data, notes = gate.check_voxels(decoded.data, path=source.path)
    chosen, reason = _settle_modality(decoded, modality)
    if chosen == "ct" and not looks_like_hounsfield(data):
        notes += (
            f"values from {data.min():g} to {data.max():g} do not look like Hounsfield units, "
            "which CT models expect; masks may be empty",
        )
    x, y, z = data.shape
    metadata = {**source.metadata, "modality": chosen, "modality_reason": reason}
    return Volume(
        data=data[None],  # C X Y Z
        geometry=Geometry((x, y, z), decoded.affine),
        modality=chosen,
        source=Source(source.path, source.format, source.header, metadata, source.sha256),
        warnings=(*decoded.warnings, *notes),
    )


def _settle_modality(decoded: Decoded, asked: AnyModality) -> tuple[Modality, str]:
    """The caller's word, else the file's, else a guess; and which of them it was."""
    if asked != "auto":
        return asked, "given by the caller"
    if decoded.modality is not None:
        return decoded.modality, "stated by the file"
    guess, reason = guess_modality(decoded.data)
    return guess, f"guessed: {reason}"
