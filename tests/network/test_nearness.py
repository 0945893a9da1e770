"""Names near in meaning: a few, only if they are near, and no encoder before it is needed."""

from __future__ import annotations

import torch
from torch.nn import functional

from textseg.knowledge import Concept, KnowledgeTree
from textseg.network.nearness import NearNames
from textseg.prompts import resolve

TREE = KnowledgeTree(
    {
        c.id: c
        for c in (
            Concept("heart", "heart", synonyms=("cor",)),
            Concept("heart_valve", "heart valve"),
            Concept("liver", "liver"),
        )
    }
)
WORDS = ("heart", "cor", "valve", "liver", "replacement")


class WordCounts:
    """Texts with common words are alike."""

    features = len(WORDS)

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked.append(tuple(texts))
        counts = [[text.split().count(word) for word in WORDS] for text in texts]
        return functional.normalize(torch.tensor(counts, dtype=torch.float32), dim=1)


def near_names():
    encoder = WordCounts()
    return NearNames(TREE, lambda: encoder), encoder


def test_the_nearest_names_come_first_and_each_concept_once():
    near, _ = near_names()
    assert near("heart valve replacement") == ("heart valve",)
    assert near("heart") == ("heart",)
    assert near("replacement") == ()


def test_the_names_are_encoded_once_and_not_before_they_are_needed():
    near, encoder = near_names()
    assert encoder.asked == []
    near("liver")
    near("valve")
    assert encoder.asked == [tuple(TREE.names), ("liver",), ("valve",)]


def test_what_is_near_is_suggested_only_where_nothing_else_is_known():
    near, encoder = near_names()
    answer = resolve("heart valve replacement", TREE, near=near)
    assert (answer.status, answer.concepts) == ("reject", ())
    assert answer.suggestions == ("heart valve",)
    assert "Did you mean 'heart valve'?" in answer.warnings
    before = len(encoder.asked)
    for prompt in ("liver", "", "<b>heart</b>"):
        assert resolve(prompt, TREE, near=near).suggestions == ()
    assert len(encoder.asked) == before


def test_nothing_is_suggested_that_the_model_cannot_segment():
    near, _ = near_names()
    only = resolve("heart valve replacement", TREE, supported={"liver"}, near=near)
    assert (only.status, only.suggestions) == ("reject", ())
