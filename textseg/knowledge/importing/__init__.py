"""Makes tree files of other vocabularies, so that users can extend the tree with their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from textseg.errors import InputError, ResourceError
from textseg.knowledge.cache import replacing
from textseg.knowledge.importing.entry import Entry
from textseg.knowledge.importing.merging import merge, slug
from textseg.knowledge.importing.ontology import read_ontology
from textseg.knowledge.importing.stanzas import read_own_stanzas
from textseg.knowledge.importing.umls import read_umls
from textseg.knowledge.tree import KnowledgeTree

__all__ = ["Entry", "ImportResult", "import_vocabulary", "merge", "read_ontology", "read_umls"]


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of a vocabulary.

    Attributes:
        path: The tree file that was written.
        added: Concepts in it, not counting those of one side.
        known: Entries the tree has already, by name or identifier.
        skipped: Entries that could not be taken over, such as one side of a structure that is
            there without sides.
    """

    path: Path
    added: int
    known: int
    skipped: int


def import_vocabulary(source: Path, tree: KnowledgeTree, folder: Path) -> ImportResult:
    """Writes what ``source`` knows beyond ``tree`` as a tree file in ``folder``.

    The folder is for ``load_tree(extra=folder)``. The vocabulary is called like the file. Ids begin
    with its name, so that those of two vocabularies never meet; a tree file is copied as it is.

    Args:
        source: A tree file, an OBO, OWL or OBO-graph JSON file, or a folder with MRCONSO.RRF or
            that file.
        tree: The tree that is to be extended.
        folder: Made if it is not there; a file of the same name is replaced.

    Raises:
        InputError: There is no such file (E301), it is not what its name says, or it is a tree
            file that contradicts the tree (E303).
        ModelError: Reading ontologies needs an extra that is not installed (E403).
        ResourceError: The folder cannot be written (E503).
    """
    if not source.exists():
        raise InputError("does not exist.", code="E301", path=source)
    is_umls = source.is_dir() or source.suffix.lower() == ".rrf"
    name = "umls" if is_umls else slug(source.name.split(".")[0]) or "vocabulary"
    path = folder / f"{name}.tree"
    if not is_umls and source.suffix.lower() == ".tree":
        stanzas = read_own_stanzas(source, tree)
        write_tree_file(path, source.read_text(encoding="utf-8-sig"))
        return ImportResult(path, len(stanzas), known=0, skipped=0)
    entries = read_umls(source) if is_umls else read_ontology(source)
    merged = merge(entries, tree, vocabulary=name)
    write_tree_file(path, f"# Made from {source.name}.\n\n{merged.text()}")
    return ImportResult(path, len(merged.stanzas), merged.num_known, merged.num_skipped)


def write_tree_file(path: Path, text: str) -> None:
    """Writes a tree file, which appears under its name only when it is complete.

    Raises:
        ResourceError: Its folder cannot be made, or not be written (E503).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        cause = f"cannot be written ({error.strerror})."
        raise ResourceError(cause, code="E503", path=path) from error
