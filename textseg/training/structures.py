"""What can be compared: structures in mask files, label maps, and folders of either, by name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from textseg.errors import InputError
from textseg.imaging.labels import Labels, read_labels
from textseg.imaging.volume import Geometry
from textseg.outputs.formats import FORMATS
from textseg.outputs.manifest import MANIFEST_NAME, read_manifest
from textseg.training.label_names import LabelNames

__all__ = ["Part", "Parts", "find_cases", "pair_parts"]

Mask: TypeAlias = NDArray[np.bool_]

CHANNEL = "_0000"
"""Ending that nnU-Net gives a scan's name, and its mask's not."""
_MASK_SUFFIXES = (*(entry.suffix for entry in FORMATS.values()), ".mhd", ".mgz", ".mgh")


@dataclass(frozen=True, eq=False)
class Part:
    """One structure of one side, read when its turn comes.

    Attributes:
        path: The file it comes from; None if the prediction left it out.
        labels: Its values; None for every voxel that is not zero.
        source: The label map if it is already open.
        may_be_absent: It comes from a table that lists more than a scan need hold.
        aliases: Other names it answers to.
    """

    path: Path | None
    labels: tuple[int, ...] | None = None
    source: Labels | None = None
    status: str = "ok"
    may_be_absent: bool = False
    aliases: tuple[str, ...] = ()

    def read(self) -> tuple[Mask, Geometry] | None:
        """The mask and its grid; None for a structure that was not predicted."""
        if self.path is None:
            return None
        source = self.source or read_labels(self.path)
        if self.labels is None:
            return source.values != 0, source.geometry
        return np.isin(source.values, self.labels), source.geometry


Parts: TypeAlias = dict[str, Part]


def find_cases(
    pred: Path, ref: Path, names: LabelNames | None
) -> Iterator[tuple[str, Parts, Parts]]:
    """The scans that both sides hold, with the parts of each.

    Predictions made of nnU-Net's scans may have the number of the channel in their name.
    """
    if not pred.is_dir() and not ref.is_dir():
        yield (_stem(pred), *_parts_of_files(pred, ref, names))
    elif (pred / MANIFEST_NAME).is_file() or not (pred.is_dir() and ref.is_dir()):
        yield _stem(pred), _parts(pred, names), _parts(ref, names)
    elif results := sorted(path.parent for path in pred.glob(f"*/{MANIFEST_NAME}")):
        for folder in results:
            reference = _counterpart(ref, folder)
            yield _stem(reference), _parts(folder, names), _parts(reference, names)
    else:
        there = _mask_files(ref)
        here = {_without_channel(stem, there): path for stem, path in _mask_files(pred).items()}
        yield from _cases_by_file(here, there, names)


def _cases_by_file(
    pred: Mapping[str, Path], ref: Mapping[str, Path], names: LabelNames | None
) -> Iterator[tuple[str, Parts, Parts]]:
    """One case for each file name; a name that only one side has becomes a part without partner."""
    for stem in dict.fromkeys([*pred, *ref]):
        if stem in pred and stem in ref:
            yield (stem, *_parts_of_files(pred[stem], ref[stem], names))
        else:
            left, right = ({stem: Part(side[stem])} if stem in side else {} for side in (pred, ref))
            yield stem, left, right


def _parts_of_files(pred: Path, ref: Path, names: LabelNames | None) -> tuple[Parts, Parts]:
    """The parts of two files: by name, else by value, else (one value each) the whole masks."""
    maps = read_labels(pred), read_labels(ref)
    if names is not None:
        return _named_parts(maps[0], names), _named_parts(maps[1], names)
    present = [entry.present() for entry in maps]
    if all(len(values) <= 1 for values in present):
        left, right = ({_stem(pred): Part(entry.path, source=entry)} for entry in maps)
        return left, right
    values = {str(value): value for value in sorted({*present[0], *present[1]})}
    return _named_parts(maps[0], values), _named_parts(maps[1], values)


def _parts(path: Path, names: LabelNames | None) -> Parts:
    """What one side holds for one scan."""
    if not path.is_dir():
        entry = read_labels(path)
        if names is None:
            cause = "A label map needs names to be compared with a folder."
            raise InputError(cause, path=path, remedy='Give a JSON table such as {"liver": 5}.')
        return _named_parts(entry, names)
    if (path / MANIFEST_NAME).is_file():
        return {
            entry.prompt: Part(
                path / entry.file if entry.file else None,
                status=entry.status,
                # a pair or group has several concepts, and none of them is the whole
                aliases=entry.concepts if len(entry.concepts) == 1 else (),
            )
            for entry in read_manifest(path).prompts
        }
    return {stem: Part(file) for stem, file in _mask_files(path).items()}


def _named_parts(entry: Labels, names: LabelNames) -> Parts:
    parts = {}
    for name, value in names.items():
        labels = (value,) if isinstance(value, int) else tuple(value)
        parts[name] = Part(entry.path, labels, entry, may_be_absent=True)
    return parts


def pair_parts(left: Parts, right: Parts) -> tuple[list[tuple[str, Part, Part]], list[str]]:
    """Parts of the same structure, and sentences on those without a partner.

    Names count as the same whatever their capitals, underscores, hyphens and word order
    (``kidney_left`` is the left kidney); a prompt also goes by the concept it was resolved to.
    """
    theirs = dict(right)
    pairs, lonely = [], []
    for name, part in left.items():
        keys = {_words(name), *map(_words, part.aliases)}
        partners = [other for other in theirs if _words(other) in keys]
        # of several that read alike, only the one spelled the same is meant
        partner = name if name in partners else partners[0] if len(partners) == 1 else None
        if partner is None:
            lonely.append(f"{name!r} is only in the prediction")
        else:
            pairs.append((name, part, theirs.pop(partner)))
    # a table of names lists what exists, not what was asked for
    lonely += [
        f"{name!r} is only in the reference"
        for name, part in theirs.items()
        if not part.may_be_absent
    ]
    return pairs, lonely


def _mask_files(folder: Path) -> dict[str, Path]:
    """The mask files in a folder by stem."""
    files = sorted(path for path in folder.iterdir() if path.name.endswith(_MASK_SUFFIXES))
    return {_stem(path): path for path in files if not path.name.startswith(".")}


def _counterpart(ref: Path, folder: Path) -> Path:
    """The reference of a case: a folder of the same name, or a file of the same stem."""
    there = {path.name: path for path in ref.iterdir() if path.is_dir()} | _mask_files(ref)
    name = _without_channel(folder.name, there)
    if name not in there:
        cause = f"It has no folder or file for the case {folder.name!r}."
        raise InputError(cause, code="E301", path=ref)
    return there[name]


def _without_channel(name: str, there: Container[str]) -> str:
    """A case's name as the reference has it."""
    shorter = name.removesuffix(CHANNEL)
    return shorter if name not in there and shorter in there else name


def _stem(path: Path) -> str:
    suffix = next((s for s in _MASK_SUFFIXES if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]


def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(re.split(r"[\s_.\-]+", name.casefold().strip())))
