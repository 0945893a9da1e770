"""Sizes that a sentence states, in millimetres."""

from __future__ import annotations

import re
from dataclasses import dataclass

Span = tuple[int, int]

_NUMBER = r"\d+(?:[.,]\d+)?"
_UNIT = r"(?:mm|cm|millimet(?:er|re)s?|centimet(?:er|re)s?)"
_SIZE = re.compile(
    rf"(?<![\w.,])({_NUMBER}(?:\s*{_UNIT}?\s*(?:x|×|by)\s*{_NUMBER})*)\s*-?\s*({_UNIT})(?!\w)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Size:
    """One size and where the sentence states it.

    Attributes:
        mm: One to three lengths, as written.
        span: First and past-last character.
    """

    mm: tuple[float, ...]
    span: Span


def read_sizes(sentence: str) -> tuple[Size, ...]:
    """Every length that carries a unit, in the order of the sentence.

    >>> read_sizes("A 2.1 x 3 cm mass and a 9-mm cyst.")
    (Size(mm=(21.0, 30.0), span=(2, 12)), Size(mm=(9.0,), span=(24, 28)))
    """
    return tuple(
        Size(_lengths_mm(match[1], match[2]), match.span()) for match in _SIZE.finditer(sentence)
    )


def _lengths_mm(numbers: str, unit: str) -> tuple[float, ...]:
    scale = 10.0 if unit.lower().startswith("c") else 1.0
    found = re.findall(_NUMBER, numbers)
    return tuple(round(scale * float(number.replace(",", ".")), 3) for number in found)
