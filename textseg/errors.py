"""Every exception textseg raises on purpose, and the code each failure carries.

    TextsegError                     exit
    ├── InputError       ValueError     3   a scan that cannot be read or trusted
    ├── PromptError      LookupError    7   a prompt that names nothing (with --strict-prompts)
    │   └── UnknownConcept
    ├── ModelError       ValueError     4   weights or a configuration that cannot be used
    ├── ResourceError    OSError        5   memory, disk or permissions
    └── Cancelled                     130   stopped by the caller

Usage errors exit with 2, a bug with 1, a batch in which some scans failed with 6. A prompt whose
structure is not in the scan is an answer (``not_found``), not an error.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import ClassVar

CODES: dict[str, str] = {
    "E300": "unusable-input",
    "E301": "missing",
    "E302": "directory",
    "E303": "unreadable",
    "E304": "empty",
    "E305": "not-an-image",
    "E306": "truncated",
    "E307": "corrupt-gzip",
    "E308": "not-3d",
    "E309": "several-volumes",
    "E310": "colour",
    "E311": "bad-dimensions",
    "E312": "too-large",
    "E313": "bad-spacing",
    "E314": "bad-affine",
    "E315": "non-finite-voxels",
    "E316": "constant-image",
    "E317": "several-series",
    "E318": "no-series",
    "E319": "broken-series",
    "E320": "complex-or-structured-type",
    "E321": "geometry-mismatch",
    "E322": "not-a-label-map",
    "E400": "unusable-model",
    "E401": "unknown-model",
    "E402": "corrupt-weights",
    "E403": "missing-extra",
    "E404": "bad-case-list",
    "E405": "missing-checkpoint",
    "E406": "bad-data-set",
    "E407": "download-failed",
    "E408": "licence-refused",
    "E409": "mismatched-checkpoints",
    "E410": "unsafe-checkpoint",
    "E411": "not-a-checkpoint",
    "E412": "damaged-checkpoint",
    "E413": "wrong-weights",
    "E500": "out-of-resources",
    "E501": "out-of-memory",
    "E502": "disk-full",
    "E503": "not-writable",
    "E504": "output-exists",
    "E700": "unusable-prompt",
    "E701": "unknown-concept",
    "E702": "bad-knowledge-tree",
    "E130": "cancelled",
}
"""Stable code of each failure and its one-word-per-idea name."""


class TextsegError(Exception):
    """A failure textseg foresaw: what went wrong, in which file, and what to do about it.

    Args:
        cause: What was wrong, with the value that was wrong.
        code: A key of ``CODES``; each subclass has a default.
        path: The file concerned, if one is.
        remedy: What the user can do.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "E300"

    def __init__(
        self,
        cause: str,
        *,
        code: str | None = None,
        path: str | PathLike[str] | None = None,
        remedy: str | None = None,
    ) -> None:
        self.code = code or self.default_code
        self.name = CODES[self.code]
        self.cause = cause
        self.path = Path(path) if path is not None else None
        self.remedy = remedy
        super().__init__(self.line())

    def line(self) -> str:
        """One line for a terminal: code, file, cause, remedy."""
        where = f" {self.path}:" if self.path is not None else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"error[{self.code} {self.name}]{where} {self.cause}{remedy}"


class InputError(TextsegError, ValueError):
    """A scan that cannot be read, or that must not be trusted."""

    exit_code = 3
    default_code = "E300"


class PromptError(TextsegError, LookupError):
    """A prompt that names nothing textseg can segment."""

    exit_code = 7
    default_code = "E700"


class UnknownConcept(PromptError):
    """An id or name that the knowledge tree does not hold."""

    default_code = "E701"


class ModelError(TextsegError, ValueError):
    """Weights, a manifest or a training configuration that cannot be used."""

    exit_code = 4
    default_code = "E400"


class ResourceError(TextsegError, OSError):
    """Not enough memory or disk, or a place that cannot be written."""

    exit_code = 5
    default_code = "E500"


class Cancelled(TextsegError):
    """The caller asked to stop."""

    exit_code = 130
    default_code = "E130"
