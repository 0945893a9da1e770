"""Radiology reports as texts: sentences, sections, and what can be changed about them."""

from __future__ import annotations

from textseg.reports.changes import negate, shuffle_sentences, swap_sides
from textseg.reports.sections import SECTIONS, Sections, read_sections
from textseg.reports.sentences import join_sentences, split_heading, split_sentences
from textseg.reports.text import read_report

__all__ = [
    "SECTIONS",
    "Sections",
    "join_sentences",
    "negate",
    "read_report",
    "read_sections",
    "shuffle_sentences",
    "split_heading",
    "split_sentences",
    "swap_sides",
]
