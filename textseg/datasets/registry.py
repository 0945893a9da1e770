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


@cache
def load_registry(folder: Path | None = None) -> Mapping[str, DatasetSpec]:
    """Every data set by name, by default those that come with textseg.

    Raises:
        ModelError: A file that is not a data set, or a label whose concept the tree lacks.
    """
    folder = folder or data_folder("datasets_registry")
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ModelError("no *.yaml file in this folder", code="E404", path=folder)
    tree = load_tree()
    return MappingProxyType({path.stem: read_spec(path, tree) for path in paths})


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
    if missing := [i for i in spec.concepts if i not in tree]:
        raise ModelError(
            f"labels name concepts that the knowledge tree lacks: {', '.join(missing)}.",
            code="E404",
            path=path,
            remedy="Correct the ids, or add the concepts to knowledge_tree/.",
        )
    return spec


def _first_fault(error: ValidationError) -> str:
    """The first thing pydantic found wrong, on one line."""
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"]) or "file"
    return f"{place}: {fault['msg']}"
