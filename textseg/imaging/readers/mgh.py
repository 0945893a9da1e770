"""FreeSurfer MGH and MGZ files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from textseg.errors import InputError
from textseg.imaging import gate
from textseg.imaging.readers.decoded import Decoded, VoxelBlock, read_block, suffix_warning
from textseg.imaging.stream import ByteStream, truncated
from textseg.imaging.volume import Source

_HEADER_BYTES = 284
_KNOWN_TYPES = range(12)


def recognises(head: bytes) -> bool:
    """Whether these first bytes are an MGH header: version 1, big endian, a known voxel type."""
    if len(head) < 30:
        return False
    version, *sizes, voxel_type, _ = struct.unpack(">7i", head[:28])
    return version == 1 and voxel_type in _KNOWN_TYPES and all(abs(n) < 1 << 24 for n in sizes)


def read(path: Path, request: gate.Request) -> Decoded:
    """The scan, its header checked before its voxels are touched."""
    from nibabel.freesurfer.mghformat import MGHHeader
    from nibabel.spatialimages import HeaderDataError

    with ByteStream(path) as stream:
        raw = stream.peek(_HEADER_BYTES)
        if len(raw) < _HEADER_BYTES:
            raise truncated(path, f"ends within its header ({len(raw)} of {_HEADER_BYTES} bytes)")
        header: Any = MGHHeader(raw, check=False)  # type: ignore[no-untyped-call]
        sizes = [int(size) for size in header["dims"]]
        shape, num_volumes, index = gate.check_sizes(sizes, request, path=path)
        gate.check_spacing([float(step) for step in header["delta"]], path=path)
        try:
            dtype = header.get_data_dtype()
        except (HeaderDataError, KeyError) as error:
            raise InputError(
                f"uses the voxel type code {int(header['type'])}, which MGH does not define;",
                code="E320",
                path=path,
                remedy="convert it with mri_convert.",
            ) from error
        with np.errstate(all="ignore"):
            affine = np.asarray(header.get_affine(), dtype=np.float64)
        notes = gate.check_affine(affine, path=path)
        block = VoxelBlock(_HEADER_BYTES, dtype, shape, num_volumes, index)
        notes += suffix_warning(
            path, compressed=stream.compressed, suffixes=(".mgh", ".mgz", ".mgh.gz")
        )
        data, sha256 = read_block(stream, block, path=path)
    return Decoded(data, affine, Source(path, "mgh", sha256=sha256), warnings=notes)
