"""Refuses paths that lead to no file that can be read, whatever the file is to hold."""

from __future__ import annotations

import os
from pathlib import Path

from textseg.errors import InputError

__all__ = ["check_path", "unreadable"]


def check_path(path: Path, *, what: str, remedy: str = "check the path.") -> os.stat_result:
    """What the system tells of a regular file or a folder.

    Args:
        path: Where it should be.
        what: What it should hold, such as ``scan``.
        remedy: What to do if there is nothing at the path.

    Raises:
        InputError: It is missing (E301), cannot be looked up, or is a pipe or device (E303).
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(
            "is a link to a file that is gone;" if _is_link(path) else "does not exist;",
            code="E301",
            path=path,
            remedy=remedy,
        ) from None
    except OSError as error:
        raise InputError(
            f"cannot be looked up ({error.strerror});",
            code="E303",
            path=path,
            remedy="check the path and its permissions.",
        ) from error
    if not (path.is_dir() or path.is_file()):
        raise InputError(
            "is a pipe or device, not a regular file;",
            code="E303",
            path=path,
            remedy=f"save the {what} to a file first.",
        )
    return status


def unreadable(path: Path, error: OSError) -> InputError:
    """E303 for a file the operating system will not hand over."""
    return InputError(
        f"cannot be read ({error.strerror or error});",
        code="E303",
        path=path,
        remedy="check its permissions and that its disk is mounted.",
    )


def _is_link(path: Path) -> bool:
    # a name with a null byte is no path at all
    return "\0" not in str(path) and path.is_symlink()
