"""Other vocabularies become tree files that load beside the tree and leave it sound."""

import json

import pytest

from textseg.errors import InputError, ResourceError
from textseg.knowledge import import_vocabulary, load_tree, to_obo, validate_tree
from textseg.knowledge.importing import Entry, merge, read_umls
from textseg.knowledge.tree import extend_tree

TREE = """\
[*]
region: abdomen
system: urinary

[urinary_system]
name: urinary system
kind: system

[kidney]
name: kidney
sides: left; right
synonyms: ren
part_of: urinary_system
xrefs: FMA:7203

[liver]
name: liver
"""

OBO = """\
format-version: 1.4
ontology: demo

[Term]
id: DEMO:1
name: kidney

[Term]
id: DEMO:2
name: Renal hilum thing
def: "Where vessels enter the kidney." []
synonym: "hilus; renalis" EXACT []
synonym: "ren" EXACT []
synonym: "some place" RELATED []
is_a: DEMO:3 ! hilum
relationship: part_of DEMO:1 ! kidney

[Term]
id: DEMO:3
name: hilum

[Term]
id: DEMO:4
name: left horseshoe part
relationship: part_of DEMO:1

[Term]
id: DEMO:5
name: long gone
is_obsolete: true

[Typedef]
id: part_of
name: part of
"""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tree" / "curated"
    path.mkdir(parents=True)
    (path / "sound.tree").write_text(TREE)
    return tmp_path / "tree"


@pytest.fixture
def umls(tmp_path):
    """A Metathesaurus of six concepts, columns as the manual orders them."""
    folder = tmp_path / "umls"
    folder.mkdir()

    def name(cui, text, *, form="PF", language="ENG", source="MSH", code="D1", suppress="N"):
        columns = (cui, language, "P", "L1", form, "S1", "Y", "A1", "", "", "")
        return "|".join((*columns, source, "PT", code, text, "0", suppress, "", ""))

    (folder / "MRCONSO.RRF").write_text(
        "\n".join(
            [
                name("C1", "Kidney", source="FMA", code="7203"),
                name("C2", "Renal segment", source="FMA", code="FMA:9"),
                name("C2", "Kidney segment", form="VO"),
                name("C2", "Nierensegment", language="GER"),
                name("C2", "Old segment", suppress="O"),
                name("C3", "Upper renal segment"),
                name("C4", "Left renal segment", source="SNOMEDCT_US", code="123"),
                name("C5", "Aspirin"),
                name("C6", "Rénal papilla; minor"),
            ]
        )
        + "\n",
        encoding="utf-8",
    )
    relations = [
        ("C1", "RO", "C2", "part_of"),
        ("C2", "CHD", "C3", "isa"),
        ("C3", "PAR", "C2", ""),
        ("C2", "PAR", "C3", ""),
        ("C6", "RO", "C2", "has_part"),
        ("C2", "RO", "C5", "treats"),
    ]
    (folder / "MRREL.RRF").write_text(
        "".join(
            f"{a}|A|AUI|{rel}|{b}|A|AUI|{label}|R||MSH||||N||\n" for a, rel, b, label in relations
        )
    )
    (folder / "MRDEF.RRF").write_text("C2|A1|AT1||MSH|One of five.|N||\n")
    types = {f"C{number}": "T023" for number in range(1, 7)} | {"C5": "T109"}
    (folder / "MRSTY.RRF").write_text("".join(f"{c}|{t}|A|B|AT||\n" for c, t in types.items()))
    return folder


def test_umls_names_relations_and_definitions_are_read(umls):
    entries = {entry.id: entry for entry in read_umls(umls)}
    assert set(entries) == {"UMLS:C1", "UMLS:C2", "UMLS:C3", "UMLS:C4", "UMLS:C6"}
    assert entries["UMLS:C2"] == Entry(
        "UMLS:C2",
        "Renal segment",
        synonyms=("Renal segment", "Kidney segment"),
        is_a=("UMLS:C3",),
        part_of=("UMLS:C1",),
        xrefs=("FMA:9", "MESH:D1"),
        definition="One of five.",
    )
    assert entries["UMLS:C6"].part_of == ("UMLS:C2",)
    assert entries["UMLS:C3"].is_a == ("UMLS:C2",)
    assert entries["UMLS:C1"].xrefs == ("FMA:7203",)


def test_umls_becomes_a_sound_tree_without_what_is_known(umls, folder, tmp_path):
    result = import_vocabulary(umls, load_tree(folder), tmp_path / "mine")
    assert (result.added, result.known, result.skipped) == (3, 1, 0)
    assert validate_tree(folder, tmp_path / "mine") == ()
    tree = load_tree(folder, tmp_path / "mine")
    segment = tree["umls.renal_segment"]
    assert (segment.region, segment.system) == ("abdomen", "urinary")
    assert segment.part_of[0] == "kidney"
    assert segment.definition == "One of five."
    assert tree["umls.renal_segment.left"].xrefs == ("UMLS:C4", "SCTID:123")
    assert tree.on_side("umls.renal_segment", "right") is None
    assert tree.lookup("renal papilla, minor")[0].xrefs[0] == "UMLS:C6"


def test_a_vocabulary_that_goes_in_circles_is_cut(umls, folder, tmp_path):
    # C2 and C3 are each the other's parent above
    import_vocabulary(umls / "MRCONSO.RRF", load_tree(folder), tmp_path / "mine")
    tree = load_tree(folder, tmp_path / "mine")
    ids = ("umls.renal_segment", "umls.upper_renal_segment")
    assert sum(ids[1 - i] in tree.ancestors(ids[i]) for i in (0, 1)) == 1


def test_a_short_line_is_refused_with_its_number(umls):
    with (umls / "MRREL.RRF").open("a") as file:
        file.write("C1|C2\n")
    with pytest.raises(InputError, match=r"E303.*MRREL\.RRF: line 7 has 2 columns"):
        read_umls(umls)


def test_a_folder_without_names_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"E301.*MRCONSO\.RRF"):
        read_umls(tmp_path)


def test_a_vocabulary_that_is_not_there_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="E301"):
        import_vocabulary(tmp_path / "none.obo", load_tree(folder), tmp_path / "mine")


def test_a_folder_that_cannot_be_written_is_an_error(umls, folder, tmp_path):
    (tmp_path / "mine").write_text("a file is in the way")
    with pytest.raises(ResourceError, match="E503"):
        import_vocabulary(umls, load_tree(folder), tmp_path / "mine")


def test_an_obo_file_extends_the_tree(folder, tmp_path):
    pytest.importorskip("pronto")
    (tmp_path / "Demo.obo").write_text(OBO)
    result = import_vocabulary(tmp_path / "Demo.obo", load_tree(folder), tmp_path / "mine")
    assert (result.path.name, result.added, result.known, result.skipped) == ("demo.tree", 3, 1, 0)
    assert validate_tree(folder, tmp_path / "mine") == ()
    tree = load_tree(folder, tmp_path / "mine")
    thing = tree["demo.renal_hilum_thing"]
    assert (thing.is_a, thing.part_of) == (("demo.hilum",), ("kidney",))
    assert thing.synonyms == ("hilus, renalis",)
    assert thing.definition == "Where vessels enter the kidney."
    assert thing.xrefs == ("DEMO:2",)
    assert tree["demo.horseshoe_part.left"].part_of == ("kidney.left",)


def test_an_obo_graph_extends_the_tree(folder, tmp_path):
    pytest.importorskip("pronto")
    base = "http://purl.obolibrary.org/obo/"
    synonyms = [
        {"pred": "hasExactSynonym", "val": "porta", "xrefs": []},
        {"pred": "hasBroadSynonym", "val": "gate", "xrefs": []},
    ]
    nodes = [
        {"id": f"{base}FMA_7203", "type": "CLASS", "lbl": "ren"},
        {
            "id": f"{base}DEMO_2",
            "type": "CLASS",
            "lbl": "hilum",
            "meta": {"synonyms": synonyms, "definition": {"val": "A gate.", "xrefs": []}},
        },
        {"id": f"{base}BFO_0000050", "type": "PROPERTY", "lbl": "part of"},
    ]
    edge = {"sub": f"{base}DEMO_2", "pred": f"{base}BFO_0000050", "obj": f"{base}FMA_7203"}
    graph = {"id": f"{base}demo.owl", "nodes": nodes, "edges": [edge]}
    (tmp_path / "demo.json").write_text(json.dumps({"graphs": [graph]}))
    result = import_vocabulary(tmp_path / "demo.json", load_tree(folder), tmp_path / "mine")
    assert (result.added, result.known) == (1, 1)
    hilum = load_tree(folder, tmp_path / "mine")["demo.hilum"]
    assert (hilum.synonyms, hilum.part_of) == (("porta",), ("kidney",))
    assert (hilum.xrefs, hilum.definition) == (("DEMO:2",), "A gate.")


def test_what_is_exported_as_obo_is_known_when_it_comes_back(folder, tmp_path):
    pytest.importorskip("pronto")
    tree = load_tree(folder)
    (tmp_path / "own.obo").write_text(to_obo(tree, version="1"))
    result = import_vocabulary(tmp_path / "own.obo", tree, tmp_path / "mine")
    assert (result.added, result.known) == (0, len(tree))


def test_a_file_that_is_no_ontology_is_refused(folder, tmp_path):
    pytest.importorskip("pronto")
    (tmp_path / "scan.obo").write_bytes(b"\x00\x01\x02 not an ontology")
    with pytest.raises(InputError, match="E303"):
        import_vocabulary(tmp_path / "scan.obo", load_tree(folder), tmp_path / "mine")


def test_entries_of_one_name_become_one_concept(folder):
    entries = [Entry("X:1", "hilum"), Entry("X:2", "Hilum"), Entry("X:3", "Porta", ("hilum",))]
    merged = merge(entries, load_tree(folder), vocabulary="x")
    assert (list(merged.stanzas), merged.num_skipped) == (["x.hilum", "x.porta"], 1)
    assert merged.stanzas["x.porta"].names == []


def test_a_side_of_what_the_tree_holds_without_sides_is_skipped(folder):
    merged = merge([Entry("X:1", "left liver")], load_tree(folder), vocabulary="x")
    assert (merged.stanzas, merged.num_skipped) == ({}, 1)


def test_what_speaks_of_a_side_but_is_none_is_skipped(folder):
    merged = merge([Entry("X:1", "right-sided arch")], load_tree(folder), vocabulary="x")
    assert (merged.stanzas, merged.num_skipped) == ({}, 1)


def test_two_vocabularies_may_hold_the_same_structure(folder, tmp_path):
    tree = load_tree(folder)
    for name in ("one", "two"):
        text = merge([Entry("X:1", "hilum")], tree, vocabulary=name).text()
        (tmp_path / f"{name}.tree").write_text(text)
    both = extend_tree(tree, [tmp_path / "one.tree", tmp_path / "two.tree"])
    assert [concept.id for concept in both.lookup("hilum")] == ["one.hilum", "two.hilum"]


def test_an_import_leaves_the_shipped_tree_sound(umls, tmp_path):
    result = import_vocabulary(umls, load_tree(), tmp_path / "mine")
    assert result.known >= 1
    assert validate_tree(None, tmp_path / "mine") == ()
