"""Loads the registry: one YAML file per data set, checked against schema and knowledge tree."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import yaml
from pydantic import ValidationError

from textseg.datasets.spec import DatasetSpec
from textseg.errors import ModelError
from textseg.knowledge import KnowledgeTree, load_tree
from textseg.resources import data_folder

SAMPLES = "samples"
"""Folder within the registry of small samples that only come by a case list."""

EXTRA = "extra"
"""Folder within the registry of public data sets that are not of the one label space of the 72."""


@cache
def load_registry(folder: Path | None = None) -> Mapping[str, DatasetSpec]:
    """Every data set and every sample by name, by default all that come with textseg.

    Raises:
        ModelError: E404, a file that is not a data set, a label whose concept the tree lacks, a
            derived concept that the tree does not make of the labelled ones, or a name given twice.
    """
    return read_registry(folder or data_folder("datasets_registry"), load_tree())


def read_registry(folder: Path, tree: KnowledgeTree) -> Mapping[str, DatasetSpec]:
    """Every data set that a folder describes, by name.

    Raises:
        ModelError: As for ``load_registry``.
    """
    folders = (folder, folder / EXTRA, folder / SAMPLES)
    paths = [path for place in folders for path in sorted(place.glob("*.yaml"))]
    if not paths:
        raise ModelError("no *.yaml file in this folder", code="E404", path=folder)
    specs: dict[str, DatasetSpec] = {}
    for path in paths:
        if path.stem in specs:
            raise ModelError("is the name of another entry, too", code="E404", path=path)
        specs[path.stem] = read_spec(path, tree)
    return MappingProxyType(specs)


def registered(registry: Mapping[str, DatasetSpec]) -> Mapping[str, DatasetSpec]:
    """The data sets of a registry whose totals are published: without samples and extra ones."""
    return {
        name: spec
        for name, spec in registry.items()
        if spec.layout is not None and name not in _extra_names()
    }


def extra(registry: Mapping[str, DatasetSpec]) -> Mapping[str, DatasetSpec]:
    """The public data sets of a registry beyond those whose totals are published."""
    return {name: spec for name, spec in registry.items() if name in _extra_names()}


@cache
def _extra_names() -> frozenset[str]:
    """Names of the data sets beyond those that are added up."""
    return frozenset(
        path.stem for path in (data_folder("datasets_registry") / EXTRA).glob("*.yaml")
    )


def read_spec(path: Path, tree: KnowledgeTree) -> DatasetSpec:
    """The data set described by one file, every concept of which is in the tree."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        spec = DatasetSpec.model_validate(yaml.load(path.read_bytes(), Loader=loader))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot be read: {error}", code="E404", path=path) from error
    except ValidationError as error:
        raise ModelError(_first_fault(error), code="E404", path=path) from error
    if spec.name != path.stem:
        raise ModelError(
            f"is called {spec.name!r}",
            code="E404",
            path=path,
            remedy="Name the file after the data set.",
        )
    if missing := [i for i in (*spec.concepts, *spec.derived) if i not in tree]:
        raise ModelError(
            f"labels name concepts that the knowledge tree lacks: {', '.join(missing)}.",
            code="E404",
            path=path,
            remedy="Correct the ids, or define the concepts: textseg concepts import FILE.tree",
        )
    if lost := [i for i in spec.derived if not tree.leaves(i, spec.concepts)]:
        raise ModelError(
            f"derived names concepts that the tree cannot make of the labels: {', '.join(lost)}.",
            code="E404",
            path=path,
            remedy="List them under each label that belongs to them.",
        )
    return spec


def _first_fault(error: ValidationError) -> str:
    """The first thing pydantic found wrong, on one line."""
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"]) or "file"
    return f"{place}: {fault['msg']}"
