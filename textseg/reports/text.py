"""The text of a report, and what is refused in place of one."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from textseg.errors import InputError
from textseg.files import check_path, unreadable
from textseg.reports.sentences import split_sentences

__all__ = ["LARGEST_BYTES", "check_file", "read_report", "split_sentences"]

LARGEST_BYTES = 1_000_000

_LONGEST_PATH = 4096
_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,4}$")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def read_report(text_or_path: str | PathLike[str]) -> str:
    """The text of a report, from a file or as it is given, with plain line ends.

    A string names a file if there is one of that name, or if it can be nothing else: it ends in
    ``.txt``, or is a single word with a suffix.

    Raises:
        InputError: There is no such file (E301), it cannot be opened (E302, E303), it says nothing
            (E304), or it is no text in UTF-8 or too long to be a report (E300).
    """
    if isinstance(text_or_path, str) and not _names_file(text_or_path):
        data, path = text_or_path.encode("utf-8", "surrogatepass"), None
    else:
        path = Path(text_or_path)
        data = _read_bytes(path)
    return _text_of(data, path)


def check_file(path: Path) -> None:
    """Refuses a path that leads to no file.

    Raises:
        InputError: It is missing (E301), a folder (E302), or cannot be read as a file (E303).
    """
    remedy = "check the path, or give the text of the report itself."
    check_path(path, what="report", remedy=remedy)
    if path.is_dir():
        raise InputError(
            "is a folder;", code="E302", path=path, remedy="give the file of one report."
        )


def _read_bytes(path: Path) -> bytes:
    """The content of a file, at most one byte more than a report may have."""
    check_file(path)
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from error


def _names_file(text: str) -> bool:
    if len(text) > _LONGEST_PATH or "\n" in text:
        return False
    one_word = len(text.split()) == 1
    if text.casefold().endswith(".txt") or (one_word and ("/" in text or _SUFFIX.search(text))):
        return True
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        # a part of it is too long for a name, or it has a null byte
        return False


def _text_of(data: bytes, path: Path | None) -> str:
    if len(data) > LARGEST_BYTES:
        raise InputError(
            f"the report has more than {LARGEST_BYTES:,} bytes;",
            path=path,
            remedy="give the report of one scan only.",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the report is not UTF-8 text (byte 0x{data[error.start]:02x} at {error.start:,});",
            path=path,
            remedy="save it as plain text in UTF-8.",
        ) from None
    if (control := _CONTROL.search(text)) is not None:
        raise InputError(
            f"the report is no plain text (it holds the character {control[0]!r});",
            path=path,
            remedy="give a .txt file in UTF-8, not a document, scan or array.",
        )
    if not text.strip():
        raise InputError(
            "the report is empty;", code="E304", path=path, remedy="write it, or leave it out."
        )
    return "\n".join(text.strip().splitlines())
