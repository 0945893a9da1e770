"""Finds the cases a user names: a registered data set in a folder, a description, a case list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textseg.datasets.cases import Case, find_cases, load_cases, registry_beside
from textseg.datasets.registry import load_registry, read_spec
from textseg.datasets.spec import DatasetSpec
from textseg.errors import ModelError
from textseg.knowledge import load_user_tree


def find_dataset(name: str) -> DatasetSpec:
    """The data set of a name, or the one that a YAML file describes.

    Raises:
        ModelError: E406, no such data set; E404, a description with a fault.
    """
    if name.endswith((".yaml", ".yml")):
        return read_spec(Path(name), load_user_tree())
    registry = load_registry()
    if name not in registry:
        # a registry is small and its names are exact; spelling help is for prompts
        near = [entry for entry in registry if name.lower().replace("_", "-") in entry]
        near += [file for file in (f"{name}.yaml", f"{name}.json") if Path(file).is_file()]
        raise ModelError(
            f"there is no data set {name!r}.",
            code="E406",
            remedy=f"Did you mean {', '.join(near[:5])}? " * bool(near)
            + "List them with `textseg data list`.",
        )
    return registry[name]


def cases_of(source: str, folder: Path | None) -> tuple[Case, ...]:
    """The labelled cases that two arguments of a command name.

    Args:
        source: Name of a data set or its YAML file, together with ``folder``; or a case list
            (JSON) on its own.
        folder: Where the data set is unpacked.

    Raises:
        ModelError: E404 or E406, the source is unknown or faulty, or has no labelled case.
    """
    if source.endswith(".json"):
        if folder is not None:
            raise ModelError("a case list names its files; it takes no folder.", code="E406")
        cases = tuple(case for case in load_cases(Path(source)) if case.masks)
        if not cases:
            raise ModelError("lists no labelled case.", code="E404", path=Path(source))
        return cases
    spec = find_dataset(source)
    if folder is None:
        raise ModelError(
            f"the folder of {spec.name} is missing.",
            code="E406",
            remedy="Give the folder the data set is unpacked into, as the second argument.",
        )
    return find_cases(spec, folder)


def specs_of(source: str, cases: Sequence[Case]) -> tuple[DatasetSpec, ...]:
    """The data sets of the cases that ``cases_of`` found."""
    if not source.endswith(".json"):
        return (find_dataset(source),)
    registry = registry_beside(Path(source))
    return tuple(registry[name] for name in dict.fromkeys(case.dataset for case in cases))
