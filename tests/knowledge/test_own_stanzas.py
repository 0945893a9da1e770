"""A structure that the tree lacks is a few lines of a file, which takes nothing from the tree."""

import pytest

from textseg.errors import InputError, ModelError
from textseg.knowledge import (
    import_vocabulary,
    install_vocabulary,
    installed_vocabularies,
    load_model_tree,
    load_tree,
    load_user_tree,
    model_vocabulary,
    validate_tree,
)
from textseg.knowledge.loading import TreeError, read_stanzas, tree_files
from textseg.knowledge.vocabularies import MODEL_VOCABULARY
from textseg.prompts import resolve
from textseg.resources import data_folder, vocabularies_folder

ELECTRODE = """\
# drawn in our clinic
[*]
region: head_neck

[lab.implant]
name: cochlear implant
kind: implant

[lab.electrode]
name: cochlear implant electrode
kind: implant
sides: left; right
synonyms: CI electrode; electrode array of the ear
synonyms.left: CI-L
part_of: lab.implant; inner_ear
volume_ml: 0.05
definition: An array of contacts in the scala tympani.
"""
OTHERS = """\
[lab.phantom]
name: phantom of the lab
made_of: lab.rod; lab.shell

[lab.rod]
name: rod of the phantom

[lab.shell]
name: shell of the phantom

[lab.bed]
name: bed of the lab
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def write(tmp_path):
    """Writes a tree file of one's own and installs nothing."""

    def _write(text, name="mine.tree"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.fixture
def carry(tmp_path):
    """The folder of a model with this vocabulary."""

    def _carry(text):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / MODEL_VOCABULARY).write_text(text, encoding="utf-8")
        return folder

    return _carry


def test_a_stanza_of_ones_own_becomes_a_structure_with_its_names_and_sides(write):
    result = install_vocabulary(write(ELECTRODE))
    assert (result.added, result.known, result.skipped) == (2, 0, 0)
    assert result.path == installed_vocabularies()["mine"]
    tree = load_user_tree()
    assert tree["lab.electrode"].region == "head_neck"
    assert tree["lab.electrode.left"].part_of == ("lab.implant", "inner_ear.left")
    assert tree.definition("lab.electrode") == "An array of contacts in the scala tympani."
    for prompt in ("left CI electrode", "electrode array of the ear, left", "CI-L"):
        assert resolve(prompt, tree).concepts == ("lab.electrode.left",), prompt
    assert validate_tree(extra=vocabularies_folder()) == ()


def test_a_tree_file_is_copied_as_it_is(write, tmp_path):
    path = import_vocabulary(write(ELECTRODE, "My Lab.tree"), load_tree(), tmp_path / "o").path
    assert (path.name, path.read_text()) == ("my_lab.tree", ELECTRODE)
    assert installed_vocabularies() == {}


def test_an_editor_may_leave_its_mark_and_blanks_in_the_file(write):
    text = "\ufeff" + ELECTRODE.replace("\n\n", "\n  \n").replace("\n", "\r\n")
    assert install_vocabulary(write(text)).added == 2
    assert "lab.electrode.right" in load_user_tree()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[lab.a]\nname: rod\nmade off: b\n", "line 3: unknown key 'made off'"),
        ("[lab.a]\nname rod\n", "line 2: 'name rod' is not 'key: value'"),
        ("[Lab A]\nname: rod\n", r"line 1: '\[Lab A\]' is not \[concept_id\]"),
        ("name: rod\n", "line 1: 'name: rod' stands before the first"),
        ("\n[lab.a]\nkind: organ\n", r"line 2: \[lab.a\] has no name"),
        ("[liver]\nname: my liver\n", "line 1: 'liver' is the id of liver already.*lab.electrode"),
        (
            "[a]\nname: rod\n\n[kidney.left]\nname: mine\n",
            "line 4: 'kidney.left' is the id of left",
        ),
        ("[lab.a]\nname: Liver\n", "line 1: 'Liver' is a name of liver already"),
        ("[a]\nname: rod\n\n[b]\nname: pin\nsynonyms: ren\n", "line 4: 'ren' is a name of kidney"),
        ("[lab.a]\nname: rod\npart_of: gone\n", "line 1: lab.a: part_of names 'gone', which does"),
        ("[a]\nname: rod\n\n[a]\nname: pin\n", "line 4: a second concept 'a'"),
        ("[a]\nname: rod\n\n[b]\nname: Rod\nsynonyms: rod\n", "'rod' is shared by a, b but not"),
        ("[a]\nname: rod\npart_of: b\n\n[b]\nname: pin\npart_of: a\n", "is above itself"),
        ("[a]\nname: rod\nmade_of: a; liver\n", "line 1: a is made of itself"),
        ("[a]\nname: left rod\n", "line 1: a is called 'left rod' but has no side"),
        ("# nothing yet\n", "has no stanza"),
    ],
)
def test_a_file_that_would_harm_the_tree_is_refused_with_its_line(write, home, text, cause):
    path = write(text)
    with pytest.raises(InputError, match=cause) as caught:
        install_vocabulary(path)
    assert (caught.value.code, caught.value.path) == ("E303", path)
    assert not (home / "vocabularies").exists()


def test_bytes_that_are_no_text_are_refused(write):
    path = write("")
    path.write_bytes(b"[\xff]\n")
    with pytest.raises(InputError, match=r"E303.*mine\.tree: cannot be read"):
        install_vocabulary(path)


def test_two_files_may_not_define_one_id(write):
    install_vocabulary(write(ELECTRODE))
    with pytest.raises(InputError, match=r"E303.*contradicts another .*second concept 'lab"):
        install_vocabulary(write("[lab.electrode]\nname: needle\n", "other.tree"))
    assert [*installed_vocabularies()] == ["mine"]


def test_every_stanza_of_the_tree_is_written_as_it_is_read(tmp_path):
    for path in tree_files(data_folder("knowledge_tree")):
        copy = tmp_path / path.name
        stanzas = read_stanzas(path)
        copy.write_text("\n".join(stanza.text() for stanza in stanzas), encoding="utf-8")
        assert [facts(stanza) for stanza in read_stanzas(copy)] == [facts(s) for s in stanzas]


def facts(stanza):
    return (stanza.id, stanza.texts, stanza.lists, stanza.partitions, stanza.volumes_ml)


def test_a_model_of_what_ships_brings_nothing_along(write):
    assert model_vocabulary(["liver", "kidney.left"]) == ""
    install_vocabulary(write(ELECTRODE))
    assert model_vocabulary(["liver", "kidney.left"]) == ""


def test_a_model_brings_along_what_it_segments_and_what_that_needs(write, carry, monkeypatch):
    install_vocabulary(write(ELECTRODE + "\n" + OTHERS))
    tree = load_user_tree()
    text = model_vocabulary(["lab.electrode.left", "lab.rod", "lab.shell", "liver"])
    monkeypatch.setenv("TEXTSEG_HOME", str(carry("") / "elsewhere"))
    assert installed_vocabularies() == {}
    there = load_model_tree(carry(text))
    # the implant is above the electrode, and the phantom is made of what the model segments
    brought = [
        *("lab.implant", "lab.electrode", "lab.electrode.left", "lab.electrode.right"),
        *("lab.phantom", "lab.rod", "lab.shell"),
    ]
    assert [concept.id for concept in there if concept.id not in load_tree()] == brought
    assert [there[i] for i in brought] == [tree[i] for i in brought]
    assert there.core is load_tree()


def test_a_concept_of_no_vocabulary_cannot_be_brought_along():
    with pytest.raises(ModelError, match=r"E404.*lab\.electrode.*concepts import"):
        model_vocabulary(["liver", "lab.electrode"])


def test_a_model_without_a_vocabulary_has_the_tree_of_the_user(tmp_path):
    assert load_model_tree(tmp_path) is load_tree()


def test_what_the_user_has_as_well_is_no_conflict(write, carry):
    install_vocabulary(write(ELECTRODE))
    tree = load_model_tree(carry(ELECTRODE))
    assert list(tree) == list(load_user_tree())
    # the rest of the model's vocabulary is added to what the user has
    assert resolve("bed of the lab", load_model_tree(carry(ELECTRODE + "\n" + OTHERS))).concepts


def test_a_name_that_the_user_adds_later_is_understood_with_an_older_model(write, carry):
    install_vocabulary(write(ELECTRODE.replace("synonyms:", "synonyms: eel;")))
    assert resolve("left eel", load_model_tree(carry(ELECTRODE))).concepts == (
        "lab.electrode.left",
    )


@pytest.mark.parametrize(
    "change", [("implant electrode", "implant needle"), ("sides: left; right", "sides: right")]
)
def test_one_id_for_two_structures_is_an_error(write, carry, change):
    text = ELECTRODE.replace("synonyms.left: CI-L\n", "")
    install_vocabulary(write(text.replace(*change)))
    folder = carry(text)
    with pytest.raises(
        TreeError, match=r"line 9: \[lab.electrode\] is another .*vocabulary of yours"
    ) as caught:
        load_model_tree(folder)
    assert caught.value.path == folder / MODEL_VOCABULARY


def test_a_damaged_vocabulary_of_a_model_says_where(carry):
    with pytest.raises(TreeError, match=r"E702.*vocabulary\.tree: line 2: unknown key"):
        load_model_tree(carry("[lab.a]\nfoo: bar\n"))


def test_what_ships_keeps_its_meaning_beside_the_vocabulary_of_a_model(carry):
    tree = load_model_tree(carry("[lab.a]\nname: ren\nsynonyms: kidnoy\n"))
    assert resolve("ren", tree) == resolve("ren", load_tree())
    assert [tree[i] for i in load_tree().ids] == list(load_tree())
