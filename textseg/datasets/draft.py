"""Drafts the registry entry of a user's own data set from what its folder says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import indent
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from textseg.datasets.detection import Detected, detect
from textseg.datasets.layouts import BidsLayout, FilesLayout, Found
from textseg.datasets.masks import read_mask
from textseg.datasets.spec import DatasetSpec, Key, ModalityName, Region
from textseg.errors import ModelError
from textseg.imaging import read_volume
from textseg.knowledge import Concept, KnowledgeTree
from textseg.prompts import resolve

_NUM_MASKS_READ = 3
_MODALITY_WORDS: Mapping[ModalityName, re.Pattern[str]] = {
    "ct": re.compile(r"(?i:ct|cta|cbct)"),
    "mr": re.compile(r"(?i:mri?|t[12][a-z]{0,5}|pdw?|flair|adc|dwi|swi|tof)"),
    # in small letters it is a patient
    "pet": re.compile(r"(?i:pet|suv)|PT"),
}


@dataclass(frozen=True)
class DraftLabel:
    """One name of the data set and the concept it was taken for.

    Attributes:
        key: The value, structure or segment of the masks.
        name: What the data set calls it, "" where it says nothing.
        concept: Id in the knowledge tree; None where the name was not understood.
        how: The kind of prompt that the name was read as; "" without a concept.
        warnings: What was assumed in reading the name.
        suggestions: Names near it that would have been understood.
    """

    key: Key
    name: str
    concept: str | None = None
    how: str = ""
    warnings: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A drafted registry entry.

    Attributes:
        text: The YAML, with comments on what to verify.
        spec: What it says; its ``scans`` are those that were found.
        labels: Every name of the data set, in the order of the keys.
    """

    text: str
    spec: DatasetSpec
    labels: tuple[DraftLabel, ...]

    @property
    def mapped(self) -> tuple[DraftLabel, ...]:
        """The labels with a concept."""
        return tuple(label for label in self.labels if label.concept is not None)

    @property
    def unmapped(self) -> tuple[DraftLabel, ...]:
        """The labels without one."""
        return tuple(label for label in self.labels if label.concept is None)


def draft(
    folder: Path,
    *,
    tree: KnowledgeTree,
    name: str | None = None,
    labels: Mapping[str, Sequence[int]] | None = None,
    modality: ModalityName | None = None,
) -> Draft:
    """A registry entry for the scans and masks in a folder, which is only read.

    Args:
        folder: Where the data set is unpacked.
        tree: The tree whose concepts the names are mapped to.
        name: Name of the entry; by default that of the folder.
        labels: Name to values of the masks, in place of the names that the folder gives.
        modality: Of the scans, where neither names nor intensities tell it.

    Raises:
        ModelError: E406, no layout fits, the scans are of several modalities, nothing is labelled,
            or the name is no name of an entry.
        InputError: A scan or mask that has to be read is damaged.
    """
    root = folder.resolve()
    detected = detect(root)
    chosen, detected = _of_one_modality(detected, modality, folder)
    names = _names(detected, labels, folder)
    read = tuple(
        _read(key, name, tree, chosen) for key, called in names.items() for name in called or ("",)
    )
    title = root.name or "data"
    lines = _lines(name or _slug(title), title, chosen, detected, read, tree)
    text = "".join(f"{line}\n" for line in lines)
    try:
        spec = DatasetSpec.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        fault = error.errors()[0]
        raise ModelError(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']} ({fault['input']!r}).",
            code="E406",
            path=folder,
        ) from error
    return Draft(text, spec, read)


def _of_one_modality(
    detected: Detected, wanted: ModalityName | None, folder: Path
) -> tuple[ModalityName, Detected]:
    """The modality of the scans, by their names or else by the first of them.

    Where the names tell of several modalities, only scans of the wanted one are left.
    """
    told = {sequence: _told(f"{sequence} {text}") for sequence, text in detected.scans.items()}
    several = sorted({one for one in told.values() if one is not None})
    if len(several) < 2:
        first = wanted or next(iter(several), None) or _seen(detected.found[0])
        return first, detected
    kept = {s: text for s, text in detected.scans.items() if told[s] == wanted}
    if wanted is None or not kept or not isinstance(detected.layout, FilesLayout | BidsLayout):
        raise ModelError(
            f"holds scans of several modalities ({', '.join(several)}); an entry has one.",
            code="E406",
            path=folder,
            remedy="Name it with --modality; for nnU-Net, write an entry for each by hand.",
        )
    layout = detected.layout.model_copy(update={"images": kept})
    found = [one for one in detected.found if one.sequence in kept]
    return wanted, Detected(layout, detected.names, kept, found)


def _told(text: str) -> ModalityName | None:
    """The modality that a word of a scan's name stands for."""
    words = re.split(r"[^A-Za-z0-9]+", text)
    return next(
        (m for word in words for m, p in _MODALITY_WORDS.items() if p.fullmatch(word)), None
    )


def _seen(one: Found) -> ModalityName:
    """The modality that a scan states, or that its intensities look like."""
    scan = read_volume(one.image, volume_index=one.volume_index, series=one.series)
    assert scan.modality is not None
    return scan.modality


def _names(
    detected: Detected, labels: Mapping[str, Sequence[int]] | None, folder: Path
) -> dict[Key, tuple[str, ...]]:
    """What the masks hold, to its names; values of the first masks are listed without any."""
    if detected.layout.holds != "values":
        if labels is not None:
            raise ModelError(
                "names its structures by files or segments; names of values do not fit.",
                code="E406",
                path=folder,
                remedy="Leave --labels out, and correct the YAML instead.",
            )
        return dict(detected.names)
    names = dict(detected.names)
    if labels is not None:
        given = sorted({value for values in labels.values() for value in values if value > 0})
        names = {v: tuple(name for name, has in labels.items() if v in has) for v in given}
    masks = list(dict.fromkeys(one.masks[""] for one in detected.found))[:_NUM_MASKS_READ]
    held = sorted({value for mask in masks for value in read_mask(mask).present()})
    names |= {value: () for value in held if value not in names}
    if not names:
        raise ModelError(
            f"has no names of labels, and the first {len(masks)} masks are empty.",
            code="E406",
            path=folder,
            remedy="Give the names with --labels.",
        )
    return dict(sorted(names.items()))


def _read(key: Key, name: str, tree: KnowledgeTree, modality: ModalityName) -> DraftLabel:
    """The one concept that a name stands for, if there is one."""
    answer = resolve(name, tree, modality=modality)
    concept = _whole(answer.concepts, tree)
    if concept is not None:
        return DraftLabel(key, name, concept, answer.method, warnings=answer.warnings)
    meanings = (tree[i].name for i in (*answer.concepts, *answer.candidates))
    return DraftLabel(key, name, suggestions=answer.suggestions or tuple(meanings))


def _whole(concepts: Sequence[str], tree: KnowledgeTree) -> str | None:
    """The concept that several add up to; a label with a list belongs to each, not to their sum."""
    if len(concepts) == 1:
        return concepts[0]
    sums = (one.id for one in tree if any(set(parts) == set(concepts) for parts in one.made_of))
    return next(sums, None)


def _slug(text: str) -> str:
    """A text as the name of an entry.

    >>> _slug("Dataset012_My Liver")
    'dataset012-my-liver'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "data"


def _lines(
    name: str,
    title: str,
    modality: ModalityName,
    detected: Detected,
    labels: Sequence[DraftLabel],
    tree: KnowledgeTree,
) -> Iterator[str]:
    """The lines of the YAML, in the order of the registry's files."""
    concepts = [tree[i] for i in dict.fromkeys(one.concept for one in labels if one.concept)]
    sequences = [sequence for sequence in detected.scans if sequence]
    # of keys that may be left out, only those that say something
    layout = detected.layout.model_dump(mode="json", exclude_defaults=True)
    yield "# Drafted from the folder: verify every line before you rely on it."
    yield "# datasets_registry/README.md explains the keys, and gives those that are not used here."
    yield _yaml("name", name)
    yield _yaml("title", title)
    yield _yaml("modality", {modality: sequences})
    yield f"region: {_region(concepts)}  # where most of the labels lie"
    yield f"task: {_task(concepts)}"
    yield f"scans: {len(detected.found)}  # found in the folder"
    yield "layout:"
    yield from (f"  {_yaml(key, value)}" for key, value in layout.items())
    yield "licence: unknown  # say what the terms are before you share anything made of it"
    yield "access: unknown  # open, registration or application"
    yield "citation: unpublished"
    yield "homepage: https://example.org  # replace: where the data set can be had"
    yield "# all: what is in a scan has its label; else list the concepts of which that is true"
    yield "complete: all"
    yield "labels:"
    for key, names in groupby(labels, key=lambda label: label.key):
        yield from _label_lines(key, list(names))


def _label_lines(key: Key, labels: Sequence[DraftLabel]) -> Iterator[str]:
    """One label with what is not certain about it."""
    for label in labels:
        if label.concept is None:
            near = f" (closest: {', '.join(label.suggestions)})" if label.suggestions else ""
            yield _comment(f"not mapped: {label.name or 'a value without a name'}{near}")
        for warning in label.warnings:
            yield _comment(f"check {label.name}: {warning}")
    concepts = list(dict.fromkeys(label.concept for label in labels if label.concept))
    value = concepts if len(concepts) > 1 else next(iter(concepts), None)
    line = indent(_yaml(key, value), "  ")
    said = ", ".join(label.name for label in labels if label.concept)
    yield line if isinstance(key, str) or not said else f"{line}{_comment(said)}"


def _region(concepts: Sequence[Concept]) -> str:
    """The region of most concepts, the whole body where they are spread over several."""
    regions = Counter(concept.region for concept in concepts).most_common(1)
    if not regions or 2 * regions[0][1] <= len(concepts) or regions[0][0] not in get_args(Region):
        return "whole_body"
    return regions[0][0]


def _task(concepts: Sequence[Concept]) -> str:
    kinds = {concept.kind.startswith("lesion") for concept in concepts}
    return {(True,): "lesion", (False, True): "anatomy and lesion"}.get(
        tuple(sorted(kinds)), "anatomy"
    )


def _comment(text: str) -> str:
    """A comment; whatever is in the text, it stays on its line."""
    return f"  # {''.join(c if c.isprintable() else ' ' for c in text)}"


def _yaml(key: Key, value: Any) -> str:
    """A key with its value, whatever quotes they need; lists and mappings on one line."""
    scalar = None if isinstance(value, list | dict) else value
    text = yaml.safe_dump({key: scalar}, allow_unicode=True, width=1000).rstrip()
    if scalar is value:
        return text
    # JSON is YAML, too
    return text.removesuffix("null") + json.dumps(value, ensure_ascii=False)
