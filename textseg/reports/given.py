"""A report as somebody gives it: as text, as a file of text, or as features made of it before."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path

from textseg.atomic import file_sha256
from textseg.files import unreadable
from textseg.reports.text import check_file, read_report

FEATURES_SUFFIX = ".npy"
_FILE_SUFFIXES = (".txt", FEATURES_SUFFIX)


@dataclass(frozen=True)
class GivenReport:
    """A report, and the hash by which it is told from others without a word of it being kept.

    Attributes:
        text: What it says; nothing where only its features are given.
        features: The file of features computed from a report; None for a text.
        sha256: Of the text, or of that file.
    """

    text: str = field(repr=False)
    features: Path | None
    sha256: str

    @classmethod
    def of(cls, report: str | PathLike[str]) -> GivenReport:
        """The report behind a text, a text file, or a ``.npy`` file of features.

        Raises:
            InputError: A file is missing (E301) or unreadable, or there is no text in it; see
                ``read_report``.
        """
        path = fspath(report)
        if _ends_as(path, FEATURES_SUFFIX):
            return cls("", Path(path), _hash_of_features(Path(path)))
        text = read_report(report)
        encoded = text.encode("utf-8", "surrogatepass")
        return cls(text, None, hashlib.sha256(encoded).hexdigest())


def placed_report(report: str, root: Path) -> str:
    """A report, or the path of its file, which starts at ``root`` if it is relative."""
    try:
        names_file = _ends_as(report, *_FILE_SUFFIXES) or (root / report).is_file()
    except (OSError, ValueError):
        # too long for a name, or with a null byte
        names_file = False
    return str(root / report) if names_file else report


def _ends_as(text: str, *suffixes: str) -> bool:
    return text.lower().endswith(suffixes) and "\n" not in text


def _hash_of_features(path: Path) -> str:
    try:
        check_file(path)
        return file_sha256(path)
    except OSError as error:
        raise unreadable(path, error) from error
