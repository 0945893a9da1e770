"""Counting a tree, and writing it for other programs."""

import json
import re

from textseg.knowledge import load_tree, to_json, to_obo, tree_statistics

TREE = load_tree()


def test_the_shipped_tree_has_the_size_it_is_said_to_have():
    counts = tree_statistics(TREE)
    assert counts.concepts == len(TREE) >= 10_000
    assert counts.adult_gross >= 6_502
    assert counts.classes_mapped == 451
    assert counts.synonyms > counts.concepts
    assert counts.relations > counts.concepts


def test_a_small_tree_is_counted_by_hand(tmp_path):
    (tmp_path / "a.tree").write_text(
        "[organ]\nname: organ\n\n"
        "[kidney]\nname: kidney\nsides: left; right\nis_a: organ\nsynonyms: ren\n\n"
        "[tumor]\nname: kidney tumor\nkind: lesion\npart_of: kidney\n\n"
        "[tubule]\nname: tubule\nkind: microanatomy\npart_of: kidney\n"
    )
    counts = tree_statistics(load_tree(tmp_path))
    assert (counts.concepts, counts.adult_gross) == (6, 4)
    # ren, left ren, right ren
    assert counts.synonyms == 3
    # kidney, its two sides, the pair they are, the tumor's site, the tubule's whole
    assert counts.relations == 1 + 2 + 1 + 1 + 1


def test_no_lesion_fetus_or_microscope_counts_as_gross_anatomy():
    for text in ("liver tumor", "fetal brain", "renal glomerulus"):
        (concept,) = TREE.lookup(text)
        assert not concept.is_adult_gross, text


def test_json_holds_every_concept_with_a_definition():
    written = json.loads(json.dumps(to_json(TREE)))
    assert [concept["id"] for concept in written] == list(TREE.ids)
    assert all(concept["definition"] for concept in written)


def test_obo_names_every_concept_once_and_refers_to_nothing_else():
    text = to_obo(TREE, version="1.2")
    ids = re.findall(r"^id: TEXTSEG:(\S+)$", text, re.MULTILINE)
    assert ids == list(TREE.ids)
    links = re.findall(r"^(?:is_a|relationship):.* ?TEXTSEG:(\S+) ! ", text, re.MULTILINE)
    assert set(links) <= set(ids)
    assert "data-version: 1.2" in text


def test_obo_escapes_quotes(tmp_path):
    (tmp_path / "a.tree").write_text('[a]\nname: a\nsynonyms: the "a"\ndefinition: Called "a".\n')
    text = to_obo(load_tree(tmp_path), version="1")
    assert r'def: "Called \"a\"." []' in text
    assert r'synonym: "the \"a\"" EXACT []' in text
