"""Batches for the text encoder: what belongs together, what must be told apart, what is kept."""

from __future__ import annotations

import random

import pytest
import torch

from textseg.knowledge import load_tree, normalise
from textseg.training.tree_texts import TreeTexts, split_texts, tree_entries


@pytest.fixture(scope="module", name="data")
def _data():
    return TreeTexts(batch=96, steps=20, seed=2)


@pytest.fixture(scope="module", name="entries")
def _entries():
    return tree_entries(load_tree())


def place(data, concept):
    return data.place[concept]


def test_left_and_right_are_one_entry(entries):
    named = {entry.names[0]: entry for entry in entries}
    assert named["kidney"].paired
    assert "left kidney" not in named
    assert not named["liver"].paired
    assert len(entries) < len(load_tree())


def test_phrases_say_where_a_structure_lies_without_naming_it(entries):
    entry = next(e for e in entries if e.concept.id == "splenic_artery")
    assert any("branch of the celiac trunk" in phrase for phrase in entry.phrases)
    assert not any("splenic artery" in phrase for phrase in entry.phrases[1:])


def test_a_batch_is_full_and_follows_from_its_seed(data):
    batch = data.draw(random.Random(0))
    assert len(batch.anchors) == len(batch.partners) == 96
    assert batch.related.shape == (96, 96)
    assert torch.equal(batch.related, batch.related.T)
    assert batch.related.diagonal().all()
    again = data.draw(random.Random(0))
    assert (again.anchors, again.partners) == (batch.anchors, batch.partners)
    assert data.draw(random.Random(1)).anchors != batch.anchors


def test_other_sides_are_negatives_and_the_pair_is_not(data):
    kidney = place(data, "kidney")
    related = data._related([(kidney, None), (kidney, "left"), (kidney, "right")])
    assert related[0].all()
    assert not related[1, 2]


def test_wholes_and_kinds_are_no_negatives_but_siblings_are(data):
    rows = [(place(data, i), None) for i in ("rib.3", "rib.4", "rib", "liver", "liver_tumor")]
    related = data._related(rows)
    assert not related[0, 1]
    assert related[0, 2]
    assert not related[3, 4]


def test_siblings_sides_and_lesions_come_together(data):
    families = data._families
    assert place(data, "rib.4") in families[place(data, "rib.3")]
    assert place(data, "liver_tumor") in families[place(data, "liver")]
    sided = sum(
        anchor.startswith(("left", "right")) or anchor.endswith(("left", "right"))
        for seed in range(5)
        for anchor in data.draw(random.Random(seed)).anchors
    )
    assert sided > 30


def test_kept_texts_are_nobodys_training_texts(entries):
    trained, test = split_texts(entries)
    known = {normalise(n) for e in trained if e is not None for n in e.names}
    phrases = {p for e in trained if e is not None for p in e.phrases}
    assert len(test.synonyms) > 500
    assert len(test.unseen) > 200
    assert not known & {normalise(text) for text, _ in (*test.synonyms, *test.unseen)}
    assert not phrases & {text for text, _ in test.definitions}
    for text, number in test.synonyms:
        assert text in entries[number].names
        assert trained[number] is not None
    assert all(trained[number] is None for _, number in test.unseen)


def test_held_out_structures_never_show_up_in_a_batch():
    data = TreeTexts(batch=64, steps=1, hold_out=True)
    held = {n for n, entry in enumerate(data.entries) if entry is None}
    assert held
    assert not held & set(data.numbers)
    _, test = split_texts(tree_entries(load_tree()))
    kept = {text for text, _ in (*test.synonyms, *test.unseen, *test.definitions)}
    for seed in range(20):
        batch = data.draw(random.Random(seed))
        assert not kept & {*batch.anchors, *batch.partners}
