"""The development set and the imagined model it is judged against."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One prompt with the answer it must have; status "refused" is unsupported or reject."""

    prompt: str
    status: str
    concepts: frozenset[str]
    category: str
    modality: str | None


def lines(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("# ")]


def read_rows():
    for row in csv.DictReader(lines("development_set.tsv"), delimiter="\t"):
        prompt = row["prompt"]
        if "\\" in prompt:
            prompt = prompt.encode().decode("unicode_escape")
        concepts = frozenset(filter(None, row["concepts"].split("|")))
        yield Row(prompt, row["status"], concepts, row["category"], row["modality"] or None)


@pytest.fixture(scope="session")
def rows():
    return tuple(read_rows())


@pytest.fixture(scope="session")
def supported():
    return frozenset(lines("supported.txt"))
