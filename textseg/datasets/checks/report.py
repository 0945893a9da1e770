"""What checks found, one finding at a time and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_MOST_LISTED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, or what may be one.

    Attributes:
        severity: ``error`` for what must not be trained on, ``warning`` for what to look at.
        kind: Stable name of this kind of fault.
        case: Id of the case; None for what concerns a whole data set.
        file: The file concerned, if it is one.
        message: What is wrong with which value, and what to do; its subject is the file.
    """

    severity: Literal["error", "warning"]
    kind: str
    case: str | None
    file: Path | None
    message: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Everything that was found in a list of cases.

    Attributes:
        num_cases: How many cases were checked.
        findings: In the order of the cases, then what concerns several of them.
    """

    num_cases: int
    findings: tuple[Finding, ...]

    @property
    def num_errors(self) -> int:
        """How many findings are errors; the others are warnings."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind."""
        return dict(Counter(finding.kind for finding in self.findings))

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "num_cases": self.num_cases,
            "num_errors": self.num_errors,
            "num_warnings": len(self.findings) - self.num_errors,
            "counts": self.counts,
            "findings": [
                {
                    "severity": finding.severity,
                    "kind": finding.kind,
                    "case": finding.case,
                    "file": finding.file and str(finding.file),
                    "message": finding.message,
                }
                for finding in self.findings
            ],
        }


def listed(names: Iterable[object]) -> str:
    """Names on one line, the first few of many.

    >>> listed("abc"), listed(range(7))
    ('a, b, c', '0, 1, 2, 3, 4 and 2 more')
    """
    texts = [str(name) for name in names]
    more = len(texts) - _MOST_LISTED
    return ", ".join(texts[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
