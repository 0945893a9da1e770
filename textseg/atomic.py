"""Files that are either absent, old or complete: written beside their place, then renamed into it.

A kill in mid-write leaves a temporary file, which the next run into that folder sweeps away. Its
name carries the machine and the process that wrote it, so that no live writer loses its file.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import os
import platform
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from textseg.errors import ResourceError

__all__ = ["file_sha256", "make_folder", "sweep", "write_atomically", "write_json"]

_log = logging.getLogger(__name__)

PREFIX = ".textseg-tmp-"
FOREIGN_AGE_S = 24 * 3600.0
"""A temporary file of another machine counts as abandoned when unmodified for this long."""

_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


def write_atomically(
    path: Path, write: Callable[[Path], None], *, suffix: str = "", overwrite: bool = False
) -> str:
    """SHA-256 of the finished file, which appears under its name only when it is complete.

    Args:
        path: Final name; its folder exists.
        write: Writes the whole content to the temporary path it is given.
        suffix: Ending of the temporary name, for writers that choose a format by it.
        overwrite: Replace a file that is there already.

    Raises:
        ResourceError: The file exists (E504), the disk is full (E502) or refuses (E503).
    """
    if path.exists() and not overwrite:
        raise exists_error(path)
    temporary = path.parent / f"{PREFIX}{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"
    try:
        write(temporary)
        digest = _sync_and_hash(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        # our own coded errors are OSErrors too, and say more than a translation would
        if isinstance(error, ResourceError):
            raise
        raise storage_error(error, path) from error
    finally:
        # also after a cancel or a bug: the renamed file is gone from this name already
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return digest


def write_json(path: Path, content: Any, *, overwrite: bool = False) -> str:
    """SHA-256 of a JSON file (UTF-8, two-space indent); NaN and infinity are refused."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_bytes(text.encode())

    return write_atomically(path, write, overwrite=overwrite)


def make_folder(folder: Path) -> None:
    """Creates the folder with its parents, and sweeps what a killed run left in it.

    Raises:
        ResourceError: The folder cannot be made, or is a file (E503), or the disk is full (E502).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        cause = "is a file, so no results can be written into it."
        raise ResourceError(cause, code="E503", path=folder, remedy="Choose another -o.") from error
    except OSError as error:
        raise storage_error(error, folder) from error
    sweep(folder)


def sweep(folder: Path, *, now: float | None = None) -> list[Path]:
    """Temporary files that a dead writer left in the folder, now deleted.

    A file of this machine goes when its process is gone; one of another machine (a shared disk)
    when nothing has written to it for a day. A file of a live process always stays.
    """
    moment = time.time() if now is None else now
    swept = []
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError, PermissionError):
            if _is_abandoned(path, moment):
                path.unlink()
                swept.append(path)
    if swept:
        _log.info("Swept %d unfinished files of an earlier run from %s.", len(swept), folder)
    return swept


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exists_error(path: Path) -> ResourceError:
    """The error for a result that is there already."""
    cause = "exists already."
    return ResourceError(cause, code="E504", path=path, remedy="Use --overwrite to replace it.")


def storage_error(error: OSError, path: Path) -> ResourceError:
    """The coded error for a failure of the disk, with the system's own words in it."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        cause, remedy = f"The disk is full ({reason}).", "Free some space or choose another -o."
        return ResourceError(cause, code="E502", path=path, remedy=remedy)
    if error.errno in _REFUSED:
        cause, remedy = f"Cannot be written ({reason}).", "Choose another -o or mend the rights."
        return ResourceError(cause, code="E503", path=path, remedy=remedy)
    return ResourceError(f"Writing failed ({reason}).", path=path)


def _is_abandoned(path: Path, now: float) -> bool:
    machine, _, rest = path.name.removeprefix(PREFIX).partition("-")
    process = rest.partition("-")[0]
    if machine == _machine() and process.isdigit():
        return not psutil.pid_exists(int(process))
    return now - path.stat().st_mtime > FOREIGN_AGE_S


@functools.cache
def _machine() -> str:
    """Eight hex digits for the kernel and process-id namespace in which our process id holds.

    Containers may share a host name and a disk and yet number their processes separately.
    """
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.blake2s("\n".join(parts).encode(), digest_size=4).hexdigest()


def _sync_and_hash(path: Path) -> str:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    # Windows has no way to open a folder for this, and orders the rename itself
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
