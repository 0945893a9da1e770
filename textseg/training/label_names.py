"""What the values of label maps mean, from any of the files that say so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from textseg.datasets.layouts.nnunet import read_description
from textseg.datasets.registry import read_spec
from textseg.errors import InputError
from textseg.knowledge import load_user_tree

LabelNames: TypeAlias = Mapping[str, int | Sequence[int]]


def read_label_names(path: Path) -> dict[str, tuple[int, ...]]:
    """Values of each name.

    Args:
        path: JSON ``{name: value}``, ``{name: [values]}`` or ``{value: name}``; a ``dataset.json``
            of nnU-Net or the Decathlon; or the YAML description of a data set, whose names are the
            ids of its concepts.

    Raises:
        InputError: The file is missing, or is no such table.
        ModelError: E404 or E406, a description of a data set is faulty.
    """
    if path.suffix in (".yaml", ".yml"):
        return _described(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content.get("labels"), dict):
            return _by_name(read_description(path).labels.items())
        return dict(_name_and_values(key, value) for key, value in content.items())
    except OSError as error:
        cause = f"The label names cannot be read ({error.strerror})."
        raise InputError(cause, code="E303", path=path) from error
    except (ValueError, TypeError, AttributeError) as error:
        cause = "Not a JSON table of label names."
        raise InputError(cause, path=path, remedy='Write {"liver": 5}.') from error


def _described(path: Path) -> dict[str, tuple[int, ...]]:
    spec = read_spec(path, load_user_tree())
    if not all(isinstance(key, int) for key in spec.labels):
        raise InputError(
            f"{spec.name} has a file or segment for each structure, no label maps with values.",
            path=path,
            remedy="Compare folders of masks, or give a table of names for the values.",
        )
    return _by_name((int(value), concepts) for value, concepts in spec.labels.items())


def _by_name(names: Iterable[tuple[int, Sequence[str]]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for value, called in names:
        for name in called:
            found[name] = (*found.get(name, ()), value)
    return found


def _name_and_values(key: str, value: Any) -> tuple[str, tuple[int, ...]]:
    if isinstance(value, str):
        return value, (int(key),)
    return key, tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)
