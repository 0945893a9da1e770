"""Reads a case list: which scans there are, and what the values of their masks mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from textseg.datasets.registry import load_registry
from textseg.datasets.spec import DatasetSpec, ModalityName
from textseg.errors import ModelError

Split = Literal["train", "val", "demo"]


@dataclass(frozen=True, slots=True)
class Case:
    """One scan, or one label map without a scan, of a registered data set.

    Attributes:
        id: Unique name of the case.
        dataset: Name of the registry entry.
        split: ``train``, ``val`` (never trained on) or ``demo`` (no labels).
        modality: Modality of the scan, or the one the label map was made for.
        sequence: MR sequence such as ``T1`` or ``FLAIR``, empty where unknown.
        image: The scan, None for a label map alone.
        label: The mask, None for a scan without labels.
        labels: Raw mask value to concept id, for the values this mask holds.
        unnamed: Values this mask holds that name no concept.
        annotated: Concepts the data set labels, whether or not they are in this scan.
        complete: The annotated concepts whose absence here means they are not in the scan.
        shape: Voxels along X Y Z.
        spacing_mm: Voxel size along X Y Z.
        licence: Licence of this case.
    """

    id: str
    dataset: str
    split: Split
    modality: ModalityName
    sequence: str
    image: Path | None
    label: Path | None
    labels: Mapping[int, str]
    unnamed: tuple[int, ...]
    annotated: tuple[str, ...]
    complete: frozenset[str]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    licence: str

    @property
    def concepts(self) -> tuple[str, ...]:
        """Concepts that have voxels in this mask, in the order of the values."""
        return tuple(dict.fromkeys(self.labels[value] for value in sorted(self.labels)))

    def values(self, concept_id: str) -> tuple[int, ...]:
        """Raw values of this mask that carry the concept's own label."""
        return tuple(value for value, i in sorted(self.labels.items()) if i == concept_id)


class _Entry(BaseModel):
    """One case as the list writes it; keys that only document a case are allowed and ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(min_length=1)
    split: Split
    modality: str = Field(min_length=2)
    image: str | None
    label: str | None
    labels: dict[int, str] = {}
    unnamed_values: list[int] | None = None
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    licence: str = ""


def load_cases(
    manifest: Path, *, registry: Mapping[str, DatasetSpec] | None = None
) -> tuple[Case, ...]:
    """The cases a JSON case list names, in its order, each matched to its registry entry.

    Paths in the list are relative to it; their first folder and the id of the case select the
    data set. Values for which the registry has no concept are kept in ``Case.unnamed``.

    Raises:
        ModelError: E404 for a list that cannot be read, an incomplete case, a second case with
            the same id, a file that is missing, or a case that no registry entry covers.
    """
    manifest = Path(manifest)
    registry = load_registry() if registry is None else registry
    seen: set[str] = set()
    cases = []
    for entry in _read_entries(manifest):
        if entry.id in seen:
            raise _bad(f"lists {entry.id!r} twice.", manifest)
        seen.add(entry.id)
        cases.append(_case(entry, manifest, registry))
    return tuple(cases)


def _read_entries(manifest: Path) -> list[_Entry]:
    """The entries of the list, checked one by one so that the error can name the case."""
    try:
        raw = json.loads(manifest.read_bytes())
    except (OSError, ValueError) as error:
        raise _bad(f"cannot be read: {error}.", manifest) from error
    if not isinstance(raw, list):
        raise _bad(f"holds a {type(raw).__name__}, not a list of cases.", manifest)
    adapter = TypeAdapter(_Entry)
    entries = []
    for position, item in enumerate(raw):
        try:
            entries.append(adapter.validate_python(item))
        except ValidationError as error:
            name = item.get("id", position) if isinstance(item, dict) else position
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise _bad(f"case {name!r}: {place}: {fault['msg']}.", manifest) from error
    return entries


def _case(entry: _Entry, manifest: Path, registry: Mapping[str, DatasetSpec]) -> Case:
    """The case an entry describes."""
    image = _file(entry.image, entry.id, manifest)
    label = _file(entry.label, entry.id, manifest)
    first = entry.image or entry.label
    if first is None:
        raise _bad(f"case {entry.id!r} has neither image nor label.", manifest)
    spec = _spec(PurePosixPath(first).parts[0], entry.id, manifest, registry)
    modality, sequence = _modality(entry, spec, manifest)
    labels = {v: i for v in sorted(entry.labels) if (i := spec.labels.get(v)) is not None}
    unnamed = {v for v in entry.labels if v not in labels} | set(entry.unnamed_values or ())
    return Case(
        id=entry.id,
        dataset=spec.name,
        split=entry.split,
        modality=modality,
        sequence=sequence,
        image=image,
        label=label,
        labels=MappingProxyType(labels),
        unnamed=tuple(sorted(unnamed)),
        annotated=spec.concepts if label is not None else (),
        complete=frozenset(spec.complete_concepts if label is not None else ()),
        shape=entry.shape,
        spacing_mm=entry.spacing,
        licence=entry.licence or spec.licence,
    )


def _file(name: str | None, case_id: str, manifest: Path) -> Path | None:
    """An existing file beside the list."""
    if name is None:
        return None
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or len(relative.parts) < 2:
        raise _bad(f"case {case_id!r}: {name!r} is not folder/file beside the list.", manifest)
    path = manifest.parent / relative
    if not path.is_file():
        raise _bad(f"case {case_id!r}: {name!r} does not exist.", manifest)
    return path


def _spec(
    folder: str, case_id: str, manifest: Path, registry: Mapping[str, DatasetSpec]
) -> DatasetSpec:
    """The one data set that covers a case."""
    found = [spec for spec in registry.values() if spec.covers(folder, case_id)]
    if len(found) != 1:
        names = ", ".join(spec.name for spec in found) or "no data set"
        raise _bad(
            f"case {case_id!r} in {folder!r} belongs to {names} of the registry.",
            manifest,
            remedy="Exactly one entry of datasets_registry/ must cover it.",
        )
    return found[0]


def _modality(entry: _Entry, spec: DatasetSpec, manifest: Path) -> tuple[ModalityName, str]:
    """Modality and sequence of texts such as ``CT``, ``MR-T1`` and ``MR (label map only)``."""
    name, _, sequence = entry.modality.partition(" (")[0].partition("-")
    known = {m for m in get_args(ModalityName) if m == name.lower()}
    for modality in known & set(spec.modality):
        return modality, sequence
    raise _bad(
        f"case {entry.id!r}: modality {entry.modality!r} is not one of {spec.name}'s "
        f"({', '.join(spec.modality)}).",
        manifest,
    )


def _bad(cause: str, manifest: Path, *, remedy: str | None = None) -> ModelError:
    return ModelError(cause, code="E404", path=manifest, remedy=remedy)
