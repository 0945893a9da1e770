"""The imported part of the tree is what ``knowledge_tree.build`` makes of its tables."""

import csv

import numpy as np
import pytest

from textseg.knowledge import load_tree, validate_tree

names = pytest.importorskip("knowledge_tree.build.names", reason="only in a checkout")
sources = pytest.importorskip("knowledge_tree.build.sources")
writing = pytest.importorskip("knowledge_tree.build.writing")
adjacency = pytest.importorskip("knowledge_tree.build.adjacency")

CURATED = "[kidney]\nname: kidney\nsides: left; right\nsynonyms: ren\n"


def make_row(concept_id, *, sides=(), exact=(), source="", **lists):
    """A row of a table with the columns that matter here."""
    keys = ("is_a", "part_of", "branch_of", "supplies", "drains", "xrefs", "xrefs_left")
    keys += ("xrefs_right", "latin", "plurals", "abbreviations", "left_names", "right_names")
    empty = dict.fromkeys((*keys, "synonyms"), ())
    name = concept_id.replace("_", " ")
    texts = {"id": concept_id, "name": name, "source": source}
    texts |= {"kind": "organ part", "region": "abdomen", "system": "urinary"}
    return sources.Row(texts, {**empty, **lists, "sides": sides}, exact)


@pytest.fixture
def build(tmp_path):
    def run(*rows):
        (tmp_path / "curated").mkdir(exist_ok=True)
        (tmp_path / "curated" / "a.tree").write_text(CURATED)
        curated = load_tree.__wrapped__(tmp_path / "curated")
        chosen = names.choose_names(rows, curated)
        writing.write_trees(rows, chosen, tmp_path / "imported")
        assert validate_tree(tmp_path) == ()
        return load_tree.__wrapped__(tmp_path)

    return run


def test_a_row_becomes_a_concept_with_its_sides(build):
    row = make_row(
        "renal_hilum",
        sides=("left", "right"),
        source="UBERON:1",
        part_of=("kidney",),
        xrefs=("FMA:2",),
        xrefs_left=("FMA:3",),
        exact=("hilum of kidney", "oesophageal thing", "musculus quidam"),
        left_names=("hilum of left kidney",),
    )
    tree = build(row)
    hilum, left = tree["renal_hilum"], tree["renal_hilum.left"]
    assert not hilum.curated
    assert hilum.xrefs == ("UBERON:1", "FMA:2")
    assert (hilum.latin, hilum.british) == (("musculus quidam",), ("oesophageal thing",))
    assert (left.part_of, left.xrefs) == (("kidney.left",), ("FMA:3",))
    assert tree.lookup("hilum of left kidney") == (left,)


def test_a_name_that_a_curated_concept_has_is_left_out(build):
    tree = build(make_row("bean", exact=("ren", "Kidney", "left ren", "faba")))
    assert tree["bean"].synonyms == ("faba",)


def test_a_name_that_two_rows_claim_is_ambiguous_in_both(build):
    tree = build(make_row("bean", exact=("seed",)), make_row("pea", exact=("seed",)))
    assert tree["bean"].ambiguous == tree["pea"].ambiguous == ("seed",)


def test_a_name_that_many_rows_claim_is_left_out(build):
    tree = build(*(make_row(f"bean_{letter}", exact=("seed",)) for letter in "abcd"))
    assert tree.lookup("seed") == ()


@pytest.mark.parametrize(
    "name",
    [
        "hilum (sensu Vertebrata)",
        "mesonephric thing",
        "portion of tissue",
        "x" * 61,
        "a; b",
        "hindlimb zeugopod",
        "future hilum",
    ],
)
def test_names_that_no_report_uses_are_left_out(build, name):
    assert build(make_row("hilum", exact=(name,)))["hilum"].synonyms == ()


def test_contacts_are_areas_of_facing_voxels():
    labels = np.zeros((5, 4, 3), dtype=np.int32)
    labels[:2] = 1
    labels[2:, :2] = 2
    assert adjacency.contacts(labels, (9.0, 2.0, 3.0)) == {(1, 2): 2 * 3 * 6.0}


def test_the_shipped_files_hold_what_the_tables_say():
    tree = load_tree()
    rows = {}
    for table in ("uberon.tsv", "bodyparts3d.tsv"):
        with (sources.FOLDER / table).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                assert row["id"] not in rows
                rows[row["id"]] = row
    assert set(rows) == {concept.id for concept in tree if not concept.curated and not concept.side}
    for concept_id, row in rows.items():
        concept = tree[concept_id]
        assert (concept.kind, concept.region, concept.system) == (
            row["kind"],
            row["region"],
            row["system"],
        )
        assert "; ".join(concept.is_a) == row["is_a"]
        assert "; ".join(concept.part_of) == row["part_of"]
        assert concept.name == row["name"] or not row["name"]


def test_the_shipped_files_are_what_the_package_gives(tmp_path):
    pytest.importorskip("cellxgene_ontology_guide", reason="the ontology package is not installed")
    rows = sources.read_rows(sources.read_uberon())
    folder = sources.FOLDER.parent
    chosen = names.choose_names(rows, load_tree(folder / "curated"))
    for path in writing.write_trees(rows, chosen, tmp_path):
        assert path.read_text() == (folder / "imported" / path.name).read_text(), path.name
