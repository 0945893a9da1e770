"""The development set: what radiologists type, and what must come back."""

from __future__ import annotations

from collections import Counter

import pytest

from textseg.knowledge import load_tree
from textseg.prompts import resolve

REFUSED = ("unsupported", "reject")


@pytest.fixture(scope="module")
def answers(rows, supported):
    tree = load_tree()
    return [
        (row, resolve(row.prompt, tree, supported=supported, modality=row.modality)) for row in rows
    ]


def is_right(row, given):
    statuses = REFUSED if row.status == "refused" else (row.status,)
    return given.status in statuses and frozenset(given.concepts) == row.concepts


def describe(row, given):
    wanted = f"{row.status} {sorted(row.concepts)}"
    return f"{row.prompt!r} [{row.category}]: wanted {wanted}, got {given}"


def test_the_set_covers_every_category_and_refuses_enough(rows):
    assert len(rows) >= 150
    assert sum(row.status in (*REFUSED, "refused") for row in rows) >= 40
    assert min(Counter(row.category for row in rows).values()) >= 5


def test_every_expected_concept_is_supported_and_in_the_tree(rows, supported):
    tree = load_tree()
    assert [i for i in supported if i not in tree] == []
    assert {i for row in rows for i in row.concepts} <= supported


def test_at_least_95_percent_of_the_prompts_are_answered_exactly(answers):
    wrong = [describe(row, given) for row, given in answers if not is_right(row, given)]
    assert len(wrong) <= 0.05 * len(answers), "\n".join([f"{len(wrong)} wrong:", *wrong])


def test_nothing_that_must_be_refused_or_asked_back_is_segmented(answers):
    accepted = [
        describe(row, given)
        for row, given in answers
        if row.status != "ok" and (given.status == "ok" or given.concepts)
    ]
    assert not accepted, "\n".join(accepted)


def test_no_side_is_ever_exchanged(answers):
    tree = load_tree()
    swapped = [
        describe(row, given)
        for row, given in answers
        for concept in set(given.concepts) - row.concepts
        if tree.counterpart(concept) in row.concepts
    ]
    assert not swapped, "\n".join(swapped)


def test_every_refusal_says_why(answers):
    assert [
        row.prompt for row, given in answers if given.status != "ok" and not given.warnings
    ] == []
