"""Says what a file is that was taken for a checkpoint."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO

_HARMLESS = ("torch", "collections", "_codecs", "numpy")
"""Packages that checkpoints name as a matter of course."""

_PROTOCOLS = {bytes([number]) for number in range(2, 6)}
"""What follows the first byte of a pickle."""

_NIFTI = {b"n+1\0", b"ni1\0"}


def not_a_checkpoint(head: bytes) -> tuple[str, str] | None:
    """What a file with such a beginning is, and what to do, unless it may be a checkpoint.

    >>> not_a_checkpoint(b"")
    ('is empty.', 'Download the file again.')
    >>> not_a_checkpoint(b"PK") is None
    True
    """
    again = "Download the file again."
    published = "Give the .pth file as its authors publish it."
    if not head:
        return "is empty.", again
    if head.startswith(b"version https://git-lfs"):
        return (
            "is a pointer of git-lfs, not the file it stands for.",
            "Download the real file, for example with `git lfs pull`.",
        )
    if head.startswith(b"PK") or (head[:1] == b"\x80" and head[1:2] in _PROTOCOLS):
        return None
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, not a checkpoint.", "Download the file that the page is about."
    if head.startswith(b"\x1f\x8b"):
        return "is compressed by gzip, as scans and archives are; it is no checkpoint.", published
    if head[344:348] in _NIFTI:
        return "is a NIfTI scan, not a checkpoint.", published
    if head[8:9] == b"{":
        return "is a safetensors file, not a checkpoint of torch.save.", published
    if _is_text(head):
        line = head.decode("utf-8", "ignore").strip().splitlines()[:1]
        return f"is a text file, not a checkpoint: {line[0][:60] if line else ''!r}", published
    return f"is no checkpoint; it begins with the bytes {head[:8].hex(' ')}.", published


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", "ignore")
    return len(text.encode()) > len(head) - 4 and all(c.isprintable() or c.isspace() for c in text)


def asked_for(path: Path) -> list[str]:
    """What a pickle wants to import beyond what checkpoints need, as far as it can be told.

    The pickle is only read, never run.
    """
    names: list[str] = []
    words: list[str] = []
    try:
        with _pickled(path) as file:
            for operation, argument, _ in pickletools.genops(file):
                if isinstance(argument, str):
                    words.append(argument)
                if operation.name in ("GLOBAL", "INST"):
                    names.append(str(argument).replace(" ", "."))
                elif operation.name == "STACK_GLOBAL":
                    names.append(".".join(words[-2:]))
    except (ValueError, OSError, KeyError, zipfile.BadZipFile):
        pass  # what was read until there is all it says
    return [name for name in names if name.partition(".")[0] not in _HARMLESS]


def _pickled(path: Path) -> IO[bytes]:
    """The pickle in a file of ``torch.save``, or the file itself."""
    if not zipfile.is_zipfile(path):
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return io.BytesIO(archive.read(name))
