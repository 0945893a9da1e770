"""Which scans there are, by a case list or in a data set's folder, and what their masks mean."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from textseg.datasets.layouts.found import Holds, Split
from textseg.datasets.registry import load_registry, read_registry
from textseg.datasets.spec import DatasetSpec, ModalityName
from textseg.datasets.store import SUFFIX, read_stored
from textseg.errors import InputError, ModelError
from textseg.imaging import Volume, read_channels, read_volume
from textseg.imaging.channels import by_channel
from textseg.knowledge import load_user_tree
from textseg.reports.given import GivenReport, placed_report

PATIENT = "sub-[A-Za-z0-9]+"
"""What names the patient in an id of BIDS."""

SPECS_FOLDER = "datasets"
"""Folder beside a case list with descriptions of its data sets."""


@dataclass(frozen=True, slots=True)
class Case:
    """One scan, or one label map without a scan, of a registered data set.

    Attributes:
        id: Unique name of the case.
        dataset: Name of the registry entry.
        split: ``train``, ``val`` (never trained on), ``test`` (never looked at while training) or
            ``demo`` (no labels).
        modality: Modality of the scan, or the one the label map was made for.
        sequence: MR sequence such as ``T1`` or ``FLAIR``, empty where unknown.
        image: The scan, a file or a folder of slices; None for a label map alone, or where there
            are channels.
        masks: Files of the mask; the key is the structure a file shows, or "" for a file that holds
            several. Empty for a scan without labels.
        holds: How the masks tell structures apart.
        labels: What the masks call a structure (a value, or a name) to the concepts it belongs to,
            for what they hold, or may hold where nobody has looked yet.
        unnamed: What they hold besides, which names no concept.
        annotated: Concepts the data set labels, whether or not they are in this scan.
        complete: The annotated concepts whose absence here means they are not in the scan.
        licence: Licence of this case.
        volume_index: Which volume of a scan file that holds several.
        series: Which DICOM series of a scan folder that holds several.
        own_grid: Whether the mask lies on another grid than the scan.
        head_first: Whether the first PNG slice of a mask is the highest in the body.
        channels: Files of a scan of several named channels, by their names; see ``channel_name``.
        report: What was reported of the scan: a text, or a file of it or of its features.
        swapped_report: What could have been reported of it and was not, to see what a report does.
        group: Cases that are looked at together, such as those that a report makes clear.
    """

    id: str
    dataset: str
    split: Split
    modality: ModalityName
    sequence: str
    image: Path | None
    masks: Mapping[str, Path]
    holds: Holds
    labels: Mapping[Any, tuple[str, ...]]
    unnamed: tuple[Any, ...]
    annotated: tuple[str, ...]
    complete: frozenset[str]
    licence: str
    volume_index: int | None = None
    series: str | None = None
    own_grid: bool = False
    head_first: bool = False
    channels: Mapping[str, Path] = field(default_factory=dict)
    report: str | Path | None = None
    swapped_report: str | Path | None = None
    group: str = ""

    @property
    def has_scan(self) -> bool:
        """Whether there is a scan, not a label map alone."""
        return self.image is not None or bool(self.channels)

    @property
    def scan_files(self) -> tuple[Path, ...]:
        """Files or folders of the scan, one for each channel."""
        return (*self.channels.values(), *filter(None, [self.image]))

    @property
    def concepts(self) -> tuple[str, ...]:
        """Concepts that have a label in this mask, in the order of the labels."""
        return tuple(dict.fromkeys(i for concepts in self.labels.values() for i in concepts))

    def values(self, concept_id: str) -> tuple[Any, ...]:
        """What this mask calls the concept itself, without its parts and what it contains."""
        return tuple(key for key, concepts in self.labels.items() if concept_id in concepts)

    def read_image(self) -> Volume:
        """The scan, with all its channels.

        Raises:
            InputError: It cannot be read or trusted, or its channels do not share a grid (E321).
        """
        assert self.has_scan
        if self.scan_files[0].suffix == SUFFIX:
            channels = tuple(self.channels)
            return read_stored(self.scan_files, modality=self.modality, channels=channels)
        if self.channels:
            return read_channels(self.channels, modality=self.modality)
        assert self.image is not None
        return read_volume(
            self.image,
            modality=self.modality,
            volume_index=self.volume_index,
            series=self.series,
        )

    def read_report(self) -> GivenReport | None:
        """What was reported of the scan, if anything was.

        Raises:
            InputError: The report cannot be read, or says nothing.
        """
        return None if self.report is None else GivenReport.of(self.report)


def patient_of(case: Case, pattern: str = PATIENT) -> str:
    """Whose scan a case is, as far as its id tells.

    Args:
        case: A case; where its id does not tell, its patient has one scan, in all its sequences.
        pattern: Regular expression for the part of the id that names the patient.
    """
    found = re.search(pattern, case.id)
    return found[0] if found else case.id.removesuffix(f"-{case.sequence}")


def find_cases(spec: DatasetSpec, root: Path) -> tuple[Case, ...]:
    """Every labelled scan of a data set in its folder, in the split that its layout tells.

    Their labels are all those of the data set; ``read_label_map`` tells which a mask holds.

    Raises:
        ModelError: E406, the folder is missing or holds no case of this layout.
    """
    if spec.layout is None:
        raise ModelError(f"{spec.name} has no layout; it comes by a case list.", code="E406")
    if not root.is_dir():
        raise ModelError("is no folder", code="E406", path=root)
    named = {key: concepts for key, concepts in spec.labels.items() if concepts}
    found = spec.layout.find(root, [str(key) for key in spec.labels])
    if not found:
        raise ModelError(
            f"holds no scan with a mask as {spec.name} lies on disk.",
            code="E406",
            path=root,
            remedy=f"Compare it with `textseg data show {spec.name}`.",
        )
    several = len({one.sequence for one in found}) > 1
    return tuple(
        Case(
            id=f"{one.id}-{one.sequence}" if several else one.id,
            dataset=spec.name,
            split=one.split,
            modality=spec.modalities[0],
            sequence=one.sequence,
            image=None if one.channels else one.image,
            masks=one.masks,
            holds=spec.layout.holds,
            labels=named,
            unnamed=tuple(key for key, concepts in spec.labels.items() if not concepts),
            annotated=spec.concepts,
            complete=frozenset(spec.complete_concepts),
            licence=spec.licence,
            volume_index=one.volume_index,
            series=one.series,
            own_grid=getattr(spec.layout, "own_grid", False),
            head_first=getattr(spec.layout, "head_first", False),
            channels=one.channels,
            report=one.report,
            swapped_report=one.swapped_report,
            group=one.group,
        )
        for one in found
    )


class _Entry(BaseModel):
    """One case as the list writes it; keys that only document a case are allowed and ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(min_length=1)
    split: Split
    modality: str = Field(min_length=2)
    dataset: str = ""
    image: str | None = None
    label: str | None = None
    channels: dict[str, str] = {}
    report: str | None = None
    swapped_report: str | None = None
    group: str = Field(default="", validation_alias=AliasChoices("group", "ambiguous"))
    labels: dict[int, Any] = {}
    concepts: dict[int, tuple[str, ...]] | None = None
    unnamed_values: list[int] | None = None
    licence: str = ""


def load_cases(
    manifest: Path, *, registry: Mapping[str, DatasetSpec] | None = None
) -> tuple[Case, ...]:
    """The cases a JSON case list names, in its order, each matched to its registry entry.

    Paths in the list are relative to it. A case names its data set, or the first folder of its
    paths and its id select one; descriptions in a folder ``datasets`` beside the list count before
    those of the registry. Values without a concept are kept in ``Case.unnamed``.

    Raises:
        ModelError: E404 for a list that cannot be read, an incomplete case, a second case with
            the same id, a file that is missing, or a case that no registry entry covers.
    """
    manifest = Path(manifest)
    registry = registry_beside(manifest) if registry is None else registry
    seen: set[str] = set()
    cases = []
    for entry in _read_entries(manifest):
        if entry.id in seen:
            raise _bad(f"lists {entry.id!r} twice.", manifest)
        seen.add(entry.id)
        cases.append(_case(entry, manifest, registry))
    return tuple(cases)


def registry_beside(manifest: Path) -> Mapping[str, DatasetSpec]:
    """The registry, with the descriptions that lie beside a case list in place of its own."""
    beside = manifest.parent / SPECS_FOLDER
    own = read_registry(beside, load_user_tree()) if beside.is_dir() else {}
    return {**load_registry(), **own}


def _read_entries(manifest: Path) -> list[_Entry]:
    """The entries of the list, checked one by one so that the error can name the case."""
    try:
        raw = json.loads(manifest.read_bytes())
    except (OSError, ValueError) as error:
        remedy = "A case list is the cases.json that `textseg data prepare` writes."
        raise _bad(f"cannot be read: {error}.", manifest, remedy=remedy) from error
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
    channels = _channels(entry, manifest)
    first = next(filter(None, (entry.image, *entry.channels.values(), entry.label)), None)
    if first is None:
        raise _bad(f"case {entry.id!r} has neither image nor label.", manifest)
    if image is not None and channels:
        raise _bad(
            f"case {entry.id!r} has an image and channels; a scan is one or the other.", manifest
        )
    spec = _spec(entry, PurePosixPath(first).parts[0], manifest, registry)
    modality, sequence = _modality(entry, spec, manifest)
    meanings = {v: spec.labels.get(v) for v in entry.labels} | (entry.concepts or {})
    labels = {v: concepts for v, concepts in sorted(meanings.items()) if concepts}
    unnamed = (meanings.keys() - labels.keys()) | set(entry.unnamed_values or ())
    return Case(
        id=entry.id,
        dataset=spec.name,
        split=entry.split,
        modality=modality,
        sequence=sequence,
        image=image,
        masks={} if label is None else {"": label},
        holds="values",
        labels=labels,
        unnamed=tuple(sorted(unnamed)),
        annotated=spec.concepts if label is not None else (),
        complete=frozenset(spec.complete_concepts if label is not None else ()),
        licence=entry.licence or spec.licence,
        channels=channels,
        report=_report(entry.report, entry.id, manifest),
        swapped_report=_report(entry.swapped_report, entry.id, manifest),
        group=entry.group,
    )


def _channels(entry: _Entry, manifest: Path) -> dict[str, Path]:
    """The files of the channels by the one name of each."""
    try:
        named = by_channel(entry.channels.items()) if entry.channels else {}
    except InputError as error:
        raise _bad(f"case {entry.id!r}: {error.cause}", manifest) from error
    files = {name: _file(file, entry.id, manifest) for name, file in named.items()}
    return {name: path for name, path in files.items() if path is not None}


def _report(report: str | None, case_id: str, manifest: Path) -> str | Path | None:
    """The text of a report, or its file beside the list."""
    if not report:
        return None
    placed = placed_report(report, manifest.parent)
    return placed if placed == report else _file(report, case_id, manifest)


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
    entry: _Entry, folder: str, manifest: Path, registry: Mapping[str, DatasetSpec]
) -> DatasetSpec:
    """The data set a case names, or the one that covers it."""
    if entry.dataset:
        if entry.dataset not in registry:
            raise _bad(f"case {entry.id!r}: there is no data set {entry.dataset!r}.", manifest)
        return registry[entry.dataset]
    found = [spec for spec in registry.values() if spec.covers(folder, entry.id)]
    if len(found) != 1:
        names = ", ".join(spec.name for spec in found) or "no data set"
        raise _bad(
            f"case {entry.id!r} in {folder!r} belongs to {names} of the registry.",
            manifest,
            remedy='Give it a "dataset", the name of an entry of datasets_registry/.',
        )
    return found[0]


def _modality(entry: _Entry, spec: DatasetSpec, manifest: Path) -> tuple[ModalityName, str]:
    """Modality and sequence of texts such as ``CT``, ``MR-T1`` and ``MR (label map only)``."""
    name, _, sequence = entry.modality.partition(" (")[0].partition("-")
    for modality in spec.modalities:
        if modality == name.lower():
            return modality, sequence
    raise _bad(
        f"case {entry.id!r}: modality {entry.modality!r} is not one of {spec.name}'s "
        f"({', '.join(spec.modalities)}).",
        manifest,
    )


def _bad(cause: str, manifest: Path, *, remedy: str | None = None) -> ModelError:
    return ModelError(cause, code="E404", path=manifest, remedy=remedy)
