"""The vocabularies a user has installed: tree files that are read in addition to the shipped tree.

What reads the user's own words, scans and data sets reads them by ``load_user_tree``: commands,
training and ``Segmenter``. ``load_tree`` never does, so that the registry, the texts that encoders
learn from, benchmarks and counts are the same for everybody. A model carries what it needs of them
in its own folder, which ``load_model_tree`` reads.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from textseg.errors import InputError, ModelError, ResourceError
from textseg.knowledge.importing import ImportResult, import_vocabulary, write_tree_file
from textseg.knowledge.loading import Stanza, TreeError, read_stanzas
from textseg.knowledge.tree import KnowledgeTree, complete_tree, extend_tree, load_tree
from textseg.knowledge.validation import validate_tree
from textseg.resources import vocabularies_folder

MODEL_VOCABULARY = "vocabulary.tree"
"""File of a model folder with the concepts that the model segments and the shipped tree lacks."""


def installed_vocabularies() -> dict[str, Path]:
    """The file of each installed vocabulary by its name, in a fixed order."""
    return {path.stem: path for path in sorted(vocabularies_folder().glob("*.tree"))}


def load_user_tree() -> KnowledgeTree:
    """The shipped tree with the vocabularies that the user has installed.

    Raises:
        TreeError: A vocabulary is damaged or contradicts another; says how to remove it.
    """
    return _extended_by(installed_vocabularies())


def load_model_tree(folder: Path, *, beside: KnowledgeTree | None = None) -> KnowledgeTree:
    """A tree with the concepts that the model in a folder brings along.

    Args:
        folder: The model's.
        beside: The tree; that of the user by default.

    Raises:
        TreeError: As for ``load_user_tree``; or the model's vocabulary is damaged, or has an id
            under which the tree knows another structure.
    """
    tree, path = beside or load_user_tree(), folder / MODEL_VOCABULARY
    return complete_tree(tree, path) if path.is_file() else tree


def model_vocabulary(supported: Collection[str]) -> str:
    """Text of the tree file that a model of these concepts has to bring along; empty if none.

    Holds what of the user's vocabularies the model can segment, unions included, and all that is
    needed to make it sound.

    Raises:
        ModelError: No vocabulary that is installed has one of the concepts (E404).
        TreeError: A vocabulary is damaged.
    """
    tree, shipped = load_user_tree(), load_tree()
    if unknown := sorted(concept_id for concept_id in supported if concept_id not in tree):
        raise ModelError(
            f"neither the tree nor a vocabulary has the concepts {', '.join(unknown)}.",
            code="E404",
            remedy="Install the vocabulary they were trained with: textseg concepts import FILE",
        )
    paths = installed_vocabularies().values()
    stanzas = [stanza for path in paths for stanza in read_stanzas(path)]
    own = (concept_id for stanza in stanzas for concept_id in stanza.ids)
    able = (i for i in own if any(leaf not in shipped for leaf in tree.leaves(i, supported)))
    needed = _with_references(able, stanzas)
    return "\n".join(stanza.text() for stanza in stanzas if stanza.id in needed)


def _with_references(concept_ids: Iterable[str], stanzas: Iterable[Stanza]) -> set[str]:
    """The stanzas, by id, of these concepts and of all that they lead to."""
    stanza_of = {concept_id: stanza for stanza in stanzas for concept_id in stanza.ids}
    found: set[str] = set()
    waiting = list(concept_ids)
    while waiting:
        stanza = stanza_of.get(waiting.pop())
        if stanza is not None and stanza.id not in found:
            found.add(stanza.id)
            waiting += stanza.references
    return found


def install_vocabulary(source: Path) -> ImportResult:
    """Makes ``source`` one of the user's vocabularies, in place of one of the same name.

    Nothing is installed unless the tree stays sound.

    Args:
        source: As for ``import_vocabulary``.

    Raises:
        InputError: It is missing (E301), cannot be read, or makes no sound tree (E303).
        ModelError: Reading ontologies needs an extra that is not installed (E403).
        ResourceError: The user's folder cannot be written (E503).
        TreeError: Another vocabulary is damaged.
    """
    with TemporaryDirectory() as folder:
        result = import_vocabulary(source, load_tree(), Path(folder))
        for fault in validate_tree(extra=Path(folder)):
            raise InputError(f"makes no sound tree: {fault.cause}.", code="E303", path=source)
        try:
            _extended_by({**installed_vocabularies(), result.path.stem: result.path})
        except TreeError as error:
            if error.path != result.path:
                raise
            cause = f"contradicts another vocabulary: {error.cause}"
            raise InputError(cause, code="E303", path=source) from error
        text = result.path.read_text(encoding="utf-8")
    place = vocabularies_folder() / result.path.name
    write_tree_file(place, text)
    return replace(result, path=place)


def remove_vocabulary(name: str) -> Path:
    """Removes an installed vocabulary; returns the file that it was.

    Raises:
        InputError: None has this name (E301).
        ResourceError: The file cannot be removed (E503).
    """
    installed = installed_vocabularies()
    if name not in installed:
        remedy = f"Installed: {', '.join(installed) or 'none'}."
        raise InputError(f"no vocabulary {name!r} is installed.", code="E301", remedy=remedy)
    try:
        installed[name].unlink()
    except OSError as error:
        cause = f"cannot be removed ({error.strerror})."
        raise ResourceError(cause, code="E503", path=installed[name]) from error
    return installed[name]


def _extended_by(vocabularies: Mapping[str, Path]) -> KnowledgeTree:
    """The shipped tree with these vocabularies, in the order of their names."""
    if not vocabularies:
        return load_tree()
    shipped = load_tree()
    try:
        return extend_tree(shipped, [vocabularies[name] for name in sorted(vocabularies)])
    except TreeError as error:
        name = next(name for name, path in vocabularies.items() if path == error.path)
        command = f"textseg concepts vocabularies --remove {shlex.quote(name)}"
        remedy = f"To be rid of this vocabulary: {command}"
        raise TreeError(f"{error.cause}.", path=error.path, remedy=remedy) from error
