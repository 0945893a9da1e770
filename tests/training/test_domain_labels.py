"""Labels that join data sets which name the same voxels at different levels."""

import dataclasses

import pytest
import torch
from fakes import apart, bare_case

from textseg.datasets import LabelSpace
from textseg.knowledge import load_tree
from textseg.training.domain_labels import IGNORE, DomainLabels, union_concepts

TREE = load_tree()


def case(dataset, labels, *, complete=None, **about):
    """A case of a data set whose masks hold these values."""
    labels = {v: (c,) if isinstance(c, str) else c for v, c in labels.items()}
    concepts = tuple(dict.fromkeys(i for ids in labels.values() for i in ids))
    annotated = about.pop("annotated", concepts)
    return bare_case(
        dataset=dataset,
        labels=labels,
        annotated=annotated,
        complete=frozenset(annotated if complete is None else complete),
        **about,
    )


SIDES = case("sides", {1: "kidney.left", 2: "kidney.right", 3: "liver"})
WHOLE = case("whole", {1: "kidney", 2: "kidney_tumor", 5: "spleen"})
OVERLAP = case("overlap", {1: ("brain", "temporal_lobe.left"), 2: "brain"})


def joined(*cases):
    space = LabelSpace.of(cases, tree=TREE)
    return DomainLabels.of(cases, space)


def concepts_of(labels, label):
    return {labels.prompts[k] for k in labels.labels[label - 1]}


def mask(labels, prompt, case, *, values):
    """Which of the values belong to a prompt, by way of labels."""
    table, known = labels.translate(case, values=values)
    row = labels.prompts.index(prompt)
    assert known[row]
    held = labels.membership[row]
    return [value for value in values if table[value] > 0 and held[table[value]]]


def test_a_whole_is_the_union_of_its_parts_where_a_mask_names_only_those():
    labels = joined(SIDES, WHOLE)
    assert mask(labels, "kidney", SIDES, values=[1, 2, 3]) == [1, 2]
    assert mask(labels, "kidney.left", SIDES, values=[1, 2, 3]) == [1]
    assert mask(labels, "kidney", WHOLE, values=[1, 2, 5]) == [1, 2]
    assert mask(labels, "kidney_tumor", WHOLE, values=[1, 2, 5]) == [2]


def test_what_a_data_set_does_not_annotate_is_unknown():
    labels = joined(SIDES, WHOLE)
    known = {
        name: dict(zip(labels.prompts, labels.translate(one, values=[1])[1].tolist(), strict=True))
        for name, one in (("sides", SIDES), ("whole", WHOLE))
    }
    assert known["sides"]["kidney"]
    assert not known["sides"]["spleen"]
    assert not known["whole"]["kidney.left"]
    assert not known["whole"]["liver"]


def test_the_own_concept_of_a_label_is_the_most_specific_one():
    labels = joined(SIDES, WHOLE, OVERLAP)
    own = {
        frozenset(concepts_of(labels, k)): concept
        for k, concept in enumerate(labels.label_concepts, start=1)
    }
    assert own[frozenset({"kidney", "kidney_tumor"})] == "kidney_tumor"
    assert own[frozenset({"kidney", "kidney.left"})] == "kidney.left"
    assert own[frozenset({"kidney"})] == "kidney"
    assert own[frozenset({"brain", "temporal_lobe.left"})] == "temporal_lobe.left"


def test_what_holds_a_label_as_well_does_not_compete_for_it():
    labels = joined(SIDES, WHOLE)
    for label, concept in enumerate(labels.label_concepts, start=1):
        rivals = {labels.space.concepts[i] for i in labels.also[label].nonzero()[:, 0]}
        assert rivals == (concepts_of(labels, label) & set(labels.space.concepts)) - {concept}
        assert labels.columns[label] == labels.space.index[concept] + 1
    assert not labels.also[0].any()


def test_sides_swap_and_come_back():
    labels = joined(SIDES, WHOLE, OVERLAP)
    paired = labels.swap != IGNORE
    assert torch.equal(labels.swap[labels.swap[paired]], torch.arange(len(labels.swap))[paired])
    left = next(k for k, c in enumerate(labels.label_concepts, start=1) if c == "kidney.left")
    assert concepts_of(labels, int(labels.swap[left])) == {"kidney", "kidney.right"}
    # the other temporal lobe is not in the space: its voxels in a mirrored image mean nothing
    lobe = next(k for k, c in enumerate(labels.label_concepts, 1) if c == "temporal_lobe.left")
    assert labels.swap[lobe] == IGNORE
    assert labels.prompt_swap[labels.prompts.index("temporal_lobe.left")] == -1
    assert labels.prompt_swap[labels.prompts.index("brain")] == labels.prompts.index("brain")


def test_a_mirror_image_that_no_mask_shows_has_a_label_nevertheless():
    one_side = case("one", {1: "kidney.left"}, annotated=("kidney.left", "kidney.right"))
    other = case("other", {1: "kidney.right"}, annotated=("kidney.left", "kidney.right"))
    labels = joined(one_side, other, case("liver", {1: "liver"}))
    assert (labels.swap >= 0).all()


def test_values_of_concepts_outside_the_space_are_ignored_and_unnamed_ones_are_tissues():
    space = LabelSpace(("liver",), TREE)
    labels = DomainLabels.of([SIDES], space)
    table, _ = labels.translate(SIDES, values=[1, 3, 9, 12])
    assert table[[1, 3, 9, 12]].tolist() == [IGNORE, 1, 2, 3]
    assert table[0] == 0


def test_a_structure_that_is_not_there_but_would_be_labelled_is_known_to_be_absent():
    empty = dataclasses.replace(SIDES, labels={3: ("liver",)})
    labels = joined(SIDES, WHOLE)
    _, known = labels.translate(empty, values=[3])
    assert known[labels.prompts.index("kidney")]
    incomplete = dataclasses.replace(empty, complete=frozenset({"liver"}))
    _, known = labels.translate(incomplete, values=[3])
    assert not known[labels.prompts.index("kidney")]
    assert known[labels.prompts.index("liver")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kidney.left", "kidney.right"),
        ("kidney", "kidney_tumor"),
        ("vertebra.l1", "vertebra.l2"),
    ],
)
def test_easily_confused_prompts_are_twins(one, other):
    spine = case("spine", {k: f"vertebra.l{k}" for k in range(1, 6)})
    labels = joined(SIDES, WHOLE, spine)
    table = labels.twins
    assert table[labels.prompts.index(one), labels.prompts.index(other)]
    assert torch.equal(table, table.T)
    assert not table[labels.prompts.index("vertebra.l1"), labels.prompts.index("vertebra.l4")]
    assert not table.diagonal().any()


def test_masks_that_name_everything_apart_have_one_label_per_concept():
    names = ("spleen", "kidney.right", "kidney.left", "liver")
    labels = apart(names)
    assert labels.label_concepts == names
    assert labels.prompts == (*names, "kidney")
    assert union_concepts(labels.space) == ("kidney",)
    assert labels.swap.tolist() == [0, 1, 3, 2, 4]
