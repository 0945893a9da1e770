"""The development set, the imagined models it is judged against, and what counts as right."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from textseg.knowledge import load_tree
from textseg.knowledge.classes import class_names
from textseg.prompts import resolve

FOLDER = Path(__file__).parent
REFUSED = ("unsupported", "reject")
HALVES = ("development", "check")


@dataclass(frozen=True)
class Row:
    """One prompt with the answer it must have; status "refused" is unsupported or reject."""

    prompt: str
    status: str
    concepts: frozenset[str]
    category: str
    modality: str | None
    model: str

    @property
    def half(self):
        """Which half of the set the prompt belongs to: rules are made on one, checked on both."""
        even = hashlib.sha256(self.prompt.encode()).digest()[0] % 2 == 0
        return HALVES[0] if even else HALVES[1]


def lines(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("# ")]


def read_rows():
    for row in csv.DictReader(lines("development_set.tsv"), delimiter="\t"):
        prompt = row["prompt"]
        if "\\" in prompt:
            prompt = prompt.encode("latin-1", "backslashreplace").decode("unicode_escape")
        concepts = frozenset(filter(None, row["concepts"].split("|")))
        modality = row["modality"] or None
        yield Row(prompt, row["status"], concepts, row["category"], modality, row["model"])


def read_models():
    """Ids that each imagined model supports, by its name in the set."""
    every_class = frozenset(class_names(load_tree()))
    return {"torso": frozenset(lines("supported.txt")), "classes": every_class}


def answer(row, models):
    supported = models[row.model]
    return resolve(row.prompt, load_tree(), supported=supported, modality=row.modality)


def is_right(row, given):
    statuses = REFUSED if row.status == "refused" else (row.status,)
    return given.status in statuses and frozenset(given.concepts) == row.concepts
