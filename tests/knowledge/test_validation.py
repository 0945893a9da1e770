"""Every fault the validator can find, each with its file and line."""

import pytest

from textseg.errors import ModelError
from textseg.knowledge import TreeError, load_tree, validate_tree

SOUND = """\
# Two paired organs and their system.

[*]
region: abdomen
system: urinary

[urinary_system]
name: urinary system
kind: system

[kidney]
name: kidney
sides: left; right
synonyms: ren; Niere
abbreviations.left: LK
part_of: urinary_system
volume_ml: 300
xrefs: UBERON:0002113
xrefs.left: UBERON:0004538

[renal_cortex]
name: renal cortex
kind: organ part
sides: left; right
part_of: kidney
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "curated").mkdir()
    (tmp_path / "curated" / "sound.tree").write_text(SOUND)
    return tmp_path


def write(folder, text):
    path = folder / "curated" / "wrong.tree"
    path.write_text(text)
    return path


def test_a_sound_tree_has_no_fault(folder):
    assert validate_tree(folder) == ()


def test_sides_are_spelt_out(folder):
    tree = load_tree(folder)
    left = tree["kidney.left"]
    assert left.name == "left kidney"
    assert left.synonyms == ("LK", "left ren", "left Niere")
    assert left.abbreviations == ("LK",)
    assert left.volume_ml == 150.0
    assert left.is_a == ("kidney",)
    assert left.xrefs == ("UBERON:0004538",)
    assert (left.region, left.system, left.kind) == ("abdomen", "urinary", "organ")
    assert tree["kidney.right"].xrefs == ()
    assert tree["renal_cortex.right"].part_of == ("kidney.right",)
    assert tree["kidney"].made_of == (("kidney.left", "kidney.right"),)
    assert len(tree) == 7


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("\n[spleen]\n", 2, "no name"),
        ("name: spleen\n", 1, "before the first"),
        ("[Spleen]\nname: spleen\n", 1, "lower case"),
        ("[spleen\nname: spleen\n", 1, "is not [concept_id]"),
        ("[]\nname: spleen\n", 1, "no id"),
        ("[spleen]\nname spleen\n", 2, "not 'key: value'"),
        ("[spleen]\nname: \n", 2, "not 'key: value'"),
        ("[spleen]\nname: spleen\ncolour: red\n", 3, "unknown key 'colour'"),
        ("[spleen]\nname: spleen\nkind.left: organ\n", 3, "unknown key 'kind.left'"),
        ("[spleen]\nname: spleen\nxrefs.top: A:1\n", 3, "unknown key 'xrefs.top'"),
        ("[spleen]\nname: spleen\nsynonyms: lien;\n", 3, "empty item"),
        ("[spleen]\nname: spleen\nlay: a\nlay: b\n", 4, "given twice"),
        ("[spleen]\nname: spleen\nsides: left; top\n", 3, "left and right"),
        ("[*]\nname: spleen\n", 2, "[*] cannot set"),
        ("\n[kidney]\nname: other kidney\n", 2, "already at sound.tree:11"),
        ("[kidney.left]\nname: one kidney\n", 1, "already at sound.tree:11"),
        ("[spleen]\nname: spleen\npart_of: belly\n", 1, "part_of names 'belly'"),
        ("[spleen]\nname: spleen\ncontains: belly\n", 1, "contains names 'belly'"),
        ("[spleen]\nname: spleen\nmade_of: kidney; belly\n", 1, "made_of names 'belly'"),
        ("[spleen]\nname: spleen\nsite: belly\n", 1, "site names 'belly'"),
        ("[spleen]\nname: spleen\nbranch_of: belly\n", 1, "branch_of names 'belly'"),
        ("[spleen]\nname: spleen\nsupplies: belly\n", 1, "supplies names 'belly'"),
        ("[spleen]\nname: spleen\ndrains: belly\n", 1, "drains names 'belly'"),
        ("[spleen]\nname: spleen\nvolume_ml: big\n", 3, "no volume"),
        ("[spleen]\nname: spleen\nvolume_ml: -3\n", 3, "no volume"),
        ("[a]\nname: a\nbranch_of: b\n[b]\nname: b\nbranch_of: a\n", 1, "branches off itself"),
        ("[a]\nname: a\nis_a: b\n[b]\nname: b\npart_of: a\n", 1, "above itself: a -> b -> a"),
        ("[a]\nname: a\nmade_of: b\n[b]\nname: b\ncontains: a\n", 1, "made of itself"),
        ("[spleen]\nname: spleen\nsynonyms: REN\n", 1, "'ren' is shared by kidney, spleen"),
        ("[spleen]\nname: Kidney\n", 1, "'kidney' is shared by"),
        ("[spleen]\nname: spleen\nambiguous: milt\n", 1, "only spleen has it"),
        ("[spleen.left]\nname: spleen half\n", 1, "names a side"),
        ("[spleen]\nname: left spleen\n", 1, "but has no side"),
    ],
)
def test_each_fault_names_its_file_and_line(folder, text, line, cause):
    path = write(folder, text)
    mine = [fault for fault in validate_tree(folder) if fault.path == path]
    assert [(fault.line, cause in fault.cause) for fault in mine] == [(line, True)], mine
    assert str(mine[0]).startswith(f"{path}:{line}: ")


def test_a_silently_shared_name_is_reported_at_both_concepts(folder):
    write(folder, "[spleen]\nname: spleen\nsynonyms: ren\n")
    assert {fault.path.name for fault in validate_tree(folder)} == {"sound.tree", "wrong.tree"}


def test_a_name_that_all_its_concepts_call_ambiguous_is_no_fault(folder):
    write(
        folder,
        "[spleen]\nname: spleen\nambiguous: bean\n\n[fabella]\nname: fabella\nambiguous: Bean\n",
    )
    assert validate_tree(folder) == ()
    assert len(load_tree(folder).lookup("bean")) == 2


def test_the_owner_of_a_name_need_not_call_it_ambiguous(folder):
    write(
        folder, "[pelvis]\nname: pelvis\n\n[renal_pelvis]\nname: renal pelvis\nambiguous: pelvis\n"
    )
    assert validate_tree(folder) == ()


def test_reading_stops_at_the_first_bad_line_with_a_coded_error(folder):
    path = write(folder, "[spleen]\nname: spleen\n\ncolour: red\n")
    with pytest.raises(TreeError, match=r"E702.*wrong\.tree: line 4: unknown key 'colour'"):
        load_tree(folder)
    assert issubclass(TreeError, ModelError)
    assert path.exists()


def test_a_folder_without_trees_is_refused(tmp_path):
    with pytest.raises(TreeError, match=r"no \*\.tree file"):
        load_tree(tmp_path)


def test_a_file_that_is_not_text_is_refused(folder):
    write(folder, "").write_bytes(b"\xff\xfe[spleen]")
    with pytest.raises(TreeError, match=r"wrong\.tree: cannot be read"):
        load_tree(folder)


def test_files_under_imported_are_marked_as_not_curated(folder):
    (folder / "imported").mkdir()
    (folder / "imported" / "x.tree").write_text("[spleen]\nname: spleen\n")
    tree = load_tree(folder)
    assert not tree["spleen"].curated
    assert tree["kidney.left"].curated


CONTACTS = "concept\tneighbour\tcontact_mm2\tmaps\n"


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("a\tb\n", 1, "the header is"),
        (CONTACTS + "kidney\tspleen\t3\t1\n", 2, "'spleen' does not exist"),
        (CONTACTS + "kidney\turinary_system\t3\n", 2, "two ids and two numbers"),
        (CONTACTS + "kidney\turinary_system\tmuch\t1\n", 2, "two ids and two numbers"),
    ],
)
def test_a_fault_in_the_table_of_contacts_names_its_line(folder, text, line, cause):
    (folder / "adjacent.tsv").write_text(text)
    faults = validate_tree(folder)
    assert [(fault.path.name, fault.line) for fault in faults] == [("adjacent.tsv", line)]
    assert cause in faults[0].cause
    with pytest.raises(TreeError, match=rf"adjacent\.tsv: line {line}: "):
        load_tree.__wrapped__(folder)


def test_contacts_are_read_in_both_directions_largest_first(folder):
    rows = "kidney\tkidney.left\t3\t1\nkidney\turinary_system\t30\t1\n"
    (folder / "adjacent.tsv").write_text(CONTACTS + rows)
    tree = load_tree(folder)
    assert tree["kidney"].adjacent_to == ("urinary_system", "kidney.left")
    assert tree["kidney.left"].adjacent_to == ("kidney",)


def test_a_class_of_no_concept_is_reported_with_its_line(folder):
    header = "class\tconcepts\tmatch\tmodalities\tnote\n"
    (folder / "classes.tsv").write_text(header + "kidney\tkidney; spleen\texact\tCT\t\n")
    faults = validate_tree(folder)
    assert [(f.path.name, f.line) for f in faults] == [("classes.tsv", 2)]
    assert "'spleen'" in faults[0].cause


def test_a_second_folder_may_refer_to_the_first(folder, tmp_path_factory):
    extra = tmp_path_factory.mktemp("extra")
    (extra / "more.tree").write_text("[capsule]\nname: capsule\npart_of: kidney\n")
    assert validate_tree(folder, extra) == ()
    assert load_tree(folder, extra)["capsule"].part_of == ("kidney",)
    assert "capsule" not in load_tree(folder)
