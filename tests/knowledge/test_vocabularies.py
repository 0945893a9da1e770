"""What users install is read beside the shipped tree, and never changes what that says."""

import pytest

from textseg.datasets import load_registry
from textseg.errors import InputError, ResourceError
from textseg.knowledge import (
    TreeError,
    install_vocabulary,
    installed_vocabularies,
    load_tree,
    load_user_tree,
    normalise,
    remove_vocabulary,
    validate_tree,
)
from textseg.knowledge.tree import extend_tree
from textseg.prompts import resolve
from textseg.resources import vocabularies_folder

PROMPTS = [
    *(
        "kidney",
        "left kidney",
        "kidneys",
        "L kidney",
        "linke Niere",
        "T12",
        "ventricle",
        "appendix",
    ),
    *("left kidny", "liver and spleen", "kidney tumor", "ribs 4 to 7 on the left", "banana"),
]

# everything that could shadow what ships: its names, other spellings and near misses of them
RIVAL = """\
[rival.one]
name: kidneys left
synonyms: kidney; ren; kidney, left; liver and spleen; linke Niere
part_of: liver

[rival.two]
name: left kidnay
synonyms: kidnoy of the left; t12 vertebra; spinal level T12
part_of: kidney
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def umls(tmp_path):
    """Writes a Metathesaurus of names and installs nothing."""

    def write(*names, folder="umls"):
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        rows = [
            f"C{number}|ENG|P|L1|PF|S1|Y|A1||||MSH|PT|D{number}|{name}|0|N||\n"
            for number, name in enumerate(names)
        ]
        (path / "MRCONSO.RRF").write_text("".join(rows))
        return path

    return write


def put(name, text):
    """A vocabulary that somebody has copied into the folder."""
    path = vocabularies_folder() / f"{name}.tree"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def files(home):
    return sorted(path for path in home.rglob("*") if path.is_file() and "cache" not in path.parts)


def test_without_vocabularies_the_tree_is_the_shipped_one():
    assert installed_vocabularies() == {}
    assert load_user_tree() is load_tree()


def test_an_installed_vocabulary_is_read_and_a_removed_one_is_not(umls, home):
    result = install_vocabulary(umls("Renal hilum thing", "Kidney"))
    assert (result.added, result.known) == (1, 1)
    assert files(home) == [result.path] == [*installed_vocabularies().values()]
    assert result.path == home / "vocabularies" / "umls.tree"
    (found,) = load_user_tree().lookup("renal hilum thing")
    assert (found.id, found.curated) == ("umls.renal_hilum_thing", False)
    assert validate_tree(extra=vocabularies_folder()) == ()
    assert remove_vocabulary("umls") == result.path
    assert files(home) == []
    assert load_user_tree() is load_tree()


def test_without_an_own_folder_vocabularies_are_user_data_and_no_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("TEXTSEG_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert vocabularies_folder().is_relative_to(tmp_path / "data")


def test_installing_again_replaces(umls, home):
    install_vocabulary(umls("Renal hilum thing"))
    result = install_vocabulary(umls("Renal hilum thing", "Renal rim thing"))
    assert (result.added, result.known) == (2, 0)
    assert len(files(home)) == 1
    assert len(load_user_tree()) == len(load_tree()) + 2


def test_the_shipped_tree_does_not_know_of_vocabularies(umls):
    install_vocabulary(umls("Renal hilum thing"))
    assert load_tree().lookup("renal hilum thing") == ()
    assert load_tree.__wrapped__().lookup("renal hilum thing") == ()
    assert load_user_tree().core is load_tree()


@pytest.mark.parametrize("supported", [None, frozenset({"kidney.left", "liver", "spleen"})])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_vocabulary_never_changes_what_ships(prompt, supported):
    put("rival", RIVAL)
    tree = load_user_tree()
    assert "rival.two" in tree
    before = resolve(prompt, load_tree(), supported=supported)
    assert resolve(prompt, tree, supported=supported) == before


def test_a_name_that_ships_is_not_shared():
    put("rival", RIVAL)
    tree = load_user_tree()
    assert [concept.id for concept in tree.lookup("ren")] == ["kidney"]
    assert [concept.id for concept in tree.lookup("left kidnay")] == ["rival.two"]
    assert all(tree.names[name] == ids for name, ids in load_tree().names.items())


def test_the_concepts_that_ship_are_the_same_beside_a_vocabulary():
    put("rival", RIVAL)
    tree = load_user_tree()
    assert [tree[i] for i in load_tree().ids] == list(load_tree())
    assert tree.ids[: len(load_tree())] == load_tree().ids
    assert "rival.two" in tree.parts("kidney")
    assert "rival.two" not in load_tree().parts("kidney")


def test_what_was_imported_is_known_but_not_supported():
    put("demo", "[demo.rim]\nname: renal rim thing\nsides: left; right\npart_of: kidney\n")
    tree = load_user_tree()
    assert resolve("renal rim thing", tree).concepts == ("demo.rim",)
    answer = resolve("Left renal rim things", tree, supported=frozenset({"kidney.left", "liver"}))
    assert (answer.status, answer.suggestions) == ("unsupported", ("left kidney",))


def test_a_name_that_was_imported_goes_before_a_correction():
    put("demo", "[demo.one]\nname: kidnay\npart_of: kidney\n")
    assert resolve("kidnay", load_tree()).method == "fuzzy"
    assert resolve("kidnay", load_user_tree()).concepts == ("demo.one",)


def test_a_list_may_name_what_was_imported():
    put("demo", "[demo.rim]\nname: renal rim thing\npart_of: kidney\n")
    answer = resolve("liver and renal rim thing", load_user_tree())
    assert answer.concepts == ("liver", "demo.rim")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[demo.one]\nname: rim\nfoo: bar\n", "line 3: unknown key 'foo'"),
        ("rim\n", "line 1: 'rim' stands before"),
        ("[demo.one]\nkind: organ\n", "line 1: .*has no name"),
        ("\n[liver]\nname: second liver\n", "line 2: a second concept 'liver'"),
        ("[demo.one]\nname: rim\npart_of: gone\n", "line 1: .* names 'gone', which does not exist"),
    ],
)
def test_a_vocabulary_that_cannot_be_read_says_where_and_how_to_remove_it(text, cause):
    path = put("de mo", text)
    with pytest.raises(TreeError, match=cause) as caught:
        load_user_tree()
    assert caught.value.path == path
    assert "textseg concepts vocabularies --remove 'de mo'" in caught.value.line()
    remove_vocabulary("de mo")
    assert load_user_tree() is load_tree()


def test_bytes_that_are_no_text_are_an_error_too():
    put("demo", "").write_bytes(b"[\xff]\n")
    with pytest.raises(TreeError, match=r"demo\.tree: cannot be read.*--remove demo"):
        load_user_tree()


def test_a_folder_in_the_place_of_a_file_is_an_error_too():
    (vocabularies_folder() / "demo.tree").mkdir(parents=True)
    with pytest.raises(TreeError, match="--remove demo"):
        load_user_tree()
    with pytest.raises(ResourceError, match="E503"):
        remove_vocabulary("demo")


def test_nothing_is_left_of_a_source_that_cannot_be_read(umls, home):
    source = umls("Renal hilum thing")
    with (source / "MRREL.RRF").open("w") as file:
        file.write("C1|C2\n")
    with pytest.raises(InputError, match="E303"):
        install_vocabulary(source)
    assert files(home) == []
    assert not vocabularies_folder().exists()


def test_nothing_is_left_of_a_source_that_contradicts_what_is_installed(umls, home):
    other = put("another", "[umls.renal_hilum_thing]\nname: rim\n")
    with pytest.raises(InputError, match=r"umls: contradicts another vocabulary: .*second concept"):
        install_vocabulary(umls("Renal hilum thing"))
    assert files(home) == [other]


def test_a_failed_import_keeps_what_was_there(umls, home):
    path = install_vocabulary(umls("Renal hilum thing")).path
    before = path.read_bytes()
    with pytest.raises(InputError, match="E301"):
        install_vocabulary(umls("Renal rim thing") / "none.RRF" / "MRCONSO.RRF")
    assert (files(home), path.read_bytes()) == ([path], before)


def test_a_folder_that_cannot_be_written_is_an_error(umls, home):
    home.write_text("in the way")
    with pytest.raises(ResourceError, match="E503"):
        install_vocabulary(umls("Renal hilum thing"))


def test_what_is_not_installed_cannot_be_removed():
    put("demo", RIVAL)
    with pytest.raises(InputError, match=r"E301.*'\.\./demo' is installed. Installed: demo"):
        remove_vocabulary("../demo")


def test_an_extended_tree_is_read_from_its_cache(home):
    path = put("demo", "[demo.one]\nname: rim\npart_of: kidney\n")
    first = extend_tree(load_tree.__wrapped__(), [path])
    second = extend_tree(load_tree.__wrapped__(), [path])
    assert len(list(home.glob("cache/*-extended.bin"))) == 1
    assert list(first) == list(second)
    path.write_text("[demo.one]\nname: brim\npart_of: kidney\n")
    third = extend_tree(load_tree.__wrapped__(), [path])
    assert [c.id for c in third.lookup("brim")] == ["demo.one"]
    assert third.lookup(normalise("rim")) != first.lookup("rim")


def test_the_registry_pretraining_and_counts_never_read_what_users_installed(checkout):
    package = checkout / "textseg"
    same_for_everybody = [
        *("cli/train.py", "datasets/detection.py", "datasets/summary.py"),
        *("prompts", "network", "training/tree_texts.py", "training/text_atlas.py"),
        *("training/text_benchmark.py", "training/text_text.py", "knowledge/statistics.py"),
    ]
    paths = [package / name for name in same_for_everybody]
    sources = [s for path in paths for s in (path.rglob("*.py") if path.is_dir() else [path])]
    assert len(sources) > len(paths)
    readers = [s.name for s in sources if "load_user_tree" in s.read_text(encoding="utf-8")]
    assert readers == []


def test_the_registry_is_the_same_beside_a_vocabulary():
    put("demo", "[demo.one]\nname: rim\nfoo: bar\n")
    assert len(load_registry.__wrapped__()) == len(load_registry())
