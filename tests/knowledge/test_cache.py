"""A tree read once is read faster again, and never wrongly."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textseg.knowledge import load_tree
from textseg.knowledge.cache import CacheFile, Unpacked, find_cache, keep, pack
from textseg.knowledge.concept import Concept

BIG = "".join(
    f"[part_{number}]\nname: part number {number}\nsides: left; right\nsynonyms: piece {number}\n\n"
    for number in range(4_000)
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tree"
    path.mkdir()
    (path / "big.tree").write_text(BIG)
    return path


def load(folder):
    return load_tree.__wrapped__(folder)


def kept(home) -> list[Path]:
    return sorted(home.glob("cache/*"))


def test_the_second_reading_gives_the_same_tree(home, folder):
    first = load(folder)
    assert len(kept(home)) == 1
    second = load(folder)
    assert list(second) == list(first)
    assert second.names == first.names
    assert list(second.names) == list(first.names)


def test_what_is_computed_of_a_tree_is_kept_beside_it(home, folder):
    names = load(folder).names
    assert [path.stem.endswith("-names") for path in kept(home)] == [True, False]
    assert load(folder).derived("names", dict) == names


def test_what_is_kept_beside_a_tree_depends_on_its_own_sources_too(home, folder, tmp_path):
    table = tmp_path / "table.tsv"
    for text in ("one", "one", "two"):
        table.write_text(text)
        assert load(folder).derived("table", table.read_text, sources=[table]) == text
    assert load(folder).derived("table", lambda: "anew", sources=[table]) == "two"
    (folder / "big.tree").write_text(BIG.replace("part number 7\n", "seventh part\n"))
    assert load(folder).derived("table", lambda: "anew", sources=[table]) == "anew"


def test_a_changed_tree_is_read_anew_and_leaves_one_file(home, folder):
    load(folder)
    (folder / "big.tree").write_text(BIG.replace("part number 7\n", "seventh part\n"))
    assert load(folder)["part_7"].name == "seventh part"
    assert len(kept(home)) == 1
    assert load(folder).lookup("left seventh part")[0].id == "part_7.left"


def test_a_second_tree_has_a_file_of_its_own(home, folder, tmp_path):
    load(folder)
    other = folder.rename(tmp_path / "elsewhere")
    load(other)
    assert len(kept(home)) == 2


@pytest.mark.parametrize("length", [0, 70, -1])
def test_a_torn_file_is_not_used_and_is_replaced(home, folder, length):
    first = load(folder)
    path = kept(home)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert list(load(folder)) == list(first)
    assert path.read_bytes() == whole


def test_a_flipped_bit_is_noticed(home, folder):
    load(folder)
    path = kept(home)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert CacheFile(path, bytes(data[:32])).read() is None


def test_a_home_that_is_a_file_does_no_harm(home, folder):
    home.write_text("in the way")
    assert len(load(folder)) == 12_000
    assert home.read_text() == "in the way"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden here")
def test_a_home_that_cannot_be_written_does_no_harm(home, folder):
    home.mkdir()
    home.chmod(0o500)
    assert len(load(folder)) == 12_000


def test_a_small_tree_is_not_kept(home, folder):
    (folder / "big.tree").write_text("[spleen]\nname: spleen\n")
    assert len(load(folder)) == 1
    assert find_cache([folder / "big.tree"]) is None
    assert not home.exists()


_WORDS = st.lists(st.text(max_size=8), max_size=3).map(tuple)


@given(
    st.builds(
        Concept,
        id=st.text(min_size=1),
        name=st.text(),
        synonyms=_WORDS,
        made_of=st.lists(_WORDS, max_size=2).map(tuple),
        side=st.sampled_from(["left", "right", None]),
        volume_ml=st.none() | st.floats(allow_nan=False),
        curated=st.booleans(),
    )
)
def test_whatever_is_written_is_read_back(tmp_path_factory, concept):
    file = CacheFile(tmp_path_factory.mktemp("cache") / "new" / "tree.bin", b"k" * 32)
    packed = keep(file, lambda: pack([concept]))
    assert file.read() == packed
    assert dict(Unpacked(packed)) == {concept.id: concept}


def test_a_concept_that_was_unpacked_stays_the_same_object():
    concepts = Unpacked(pack([Concept("spleen", "spleen")]))
    assert concepts["spleen"] is concepts["spleen"]
    assert "liver" not in concepts
    with pytest.raises(KeyError):
        concepts["liver"]
