"""What a lesion holds by the tree."""

from __future__ import annotations

import pytest

from textseg.inference.nesting import parts_within, with_parts
from textseg.knowledge import load_tree
from textseg.knowledge.tree import extend_tree

STANZAS = """
[nest_tumor]
name: nest tumor
kind: lesion
region: whole_body
system: multi
is_a: tumor
site: kidney

[nest_tumor.core]
name: core of the nest tumor
kind: lesion part
region: whole_body
system: multi
part_of: nest_tumor

[nest_tumor.ring]
name: ring of the nest tumor
kind: lesion part
region: whole_body
system: multi
part_of: nest_tumor.core
"""
WHOLE, CORE, RING = "nest_tumor", "nest_tumor.core", "nest_tumor.ring"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    file = tmp_path_factory.mktemp("tree") / "nest.tree"
    file.write_text(STANZAS.strip() + "\n", encoding="utf-8")
    return extend_tree(load_tree(), [file])


def test_parts_of_parts_are_inside_too(tree):
    assert parts_within(WHOLE, tree, tree.ids) == (CORE, RING)
    assert parts_within(CORE, tree, tree.ids) == (RING,)
    assert parts_within(RING, tree, tree.ids) == ()


def test_only_what_is_offered_can_be_asked(tree):
    assert parts_within(WHOLE, tree, {RING, "liver"}) == (RING,)


def test_the_enhancing_part_is_inside_a_brain_tumor():
    found = parts_within("brain_tumor", load_tree(), load_tree().ids)
    assert {"brain_tumor.enhancing", "brain_tumor.necrotic_core"} <= set(found)


@pytest.mark.parametrize("organ", ["brain", "liver", "kidney.left"])
def test_an_organ_is_not_made_to_hold_its_tumor(organ):
    assert parts_within(organ, load_tree(), load_tree().ids) == ()


def test_a_kind_of_lesion_does_not_widen_lesions_at_large():
    assert parts_within("tumor", load_tree(), load_tree().ids) == ()


def test_what_masks_must_hold_is_asked_after_what_was_asked(tree):
    assert with_parts(["liver", CORE], tree, tree.ids) == ("liver", CORE, RING)
    assert with_parts([RING, WHOLE], tree, tree.ids) == (RING, WHOLE, CORE)
