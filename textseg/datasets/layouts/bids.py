"""BIDS: scans as ``sub-*/[ses-*/]anat/*_T1w.nii.gz``, masks as ``*_dseg.nii.gz`` beside or apart.

Source: Gorgolewski et al., Scientific Data 2016; bids-specification.readthedocs.io.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from textseg.datasets.layouts.found import Found, Holds

ENDINGS = (".nii.gz", ".nii")


class BidsLayout(BaseModel):
    """Scans and masks paired by their BIDS entities.

    A mask belongs to a scan of the same subject if no entity that both names have differs.

    Attributes:
        images: Sequence to suffix of its scans, such as ``T1w`` or ``FLAIR``; the key is "" where
            there is one sequence.
        masks: Suffix of the masks; ``dseg`` for a map of several structures, ``mask`` for one.
        entities: Entities the masks must have, such as ``label: L``.
        derivatives: Folder of the masks below the root; anywhere if empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["bids"]
    images: Mapping[str, str] = Field(min_length=1)
    masks: str = "dseg"
    entities: Mapping[str, str] = {}
    derivatives: str = ""

    @property
    def holds(self) -> Holds:
        """What the masks hold."""
        return "values"

    def find(self, root: Path, structures: Sequence[str]) -> list[Found]:
        """Scans with their masks, in the order of their names.

        Args:
            root: Folder of the data set.
            structures: Not needed; masks hold every structure.
        """
        masks = [
            (path, has)
            for path in _with_suffix(root / self.derivatives, self.masks)
            if self.entities.items() <= (has := entities(path)).items()
        ]
        found = []
        for sequence, suffix in self.images.items():
            for image in _with_suffix(root, suffix):
                own = entities(image)
                found += [
                    Found(stem(image).removesuffix(f"_{suffix}"), sequence, image, {"": mask})
                    for mask, has in masks
                    if _agree(own, {k: v for k, v in has.items() if k not in self.entities})
                ]
        return found


def entities(path: Path) -> dict[str, str]:
    """Entities of a file's name.

    >>> entities(Path("sub-01_ses-a_T1w.nii.gz"))
    {'sub': '01', 'ses': 'a'}
    """
    pairs = (part.partition("-") for part in stem(path).split("_"))
    return {key: value for key, dash, value in pairs if dash}


def stem(path: Path) -> str:
    """Name without the ending of NIfTI."""
    name = path.name
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return name


def read_names(mask: Path, root: Path) -> dict[int, str]:
    """What the values of a ``dseg`` mean: the table beside it, or the nearest one above it.

    Tables apply to files below them (the inheritance principle); an empty dict if there is none.
    """
    folder = mask.parent
    while True:
        beside = folder / f"{stem(mask)}.tsv"
        tables = [beside] if beside.is_file() else sorted(folder.glob("*dseg.tsv"))
        for table in tables:
            if _agree(entities(table), entities(mask), needs_subject=False):
                return _table(table)
        if folder == root or folder == folder.parent:
            return {}
        folder = folder.parent


def _table(path: Path) -> dict[int, str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows: Iterable[dict[str, str]] = csv.DictReader(file, delimiter="\t")
        return {int(row["index"]): row["name"] for row in rows if int(row["index"]) != 0}


def _with_suffix(folder: Path, suffix: str) -> list[Path]:
    return sorted(p for end in ENDINGS for p in folder.glob(f"**/sub-*_{suffix}{end}"))


def _agree(a: Mapping[str, str], b: Mapping[str, str], *, needs_subject: bool = True) -> bool:
    """Whether two files belong together."""
    if needs_subject and ("sub" not in a or a["sub"] != b.get("sub")):
        return False
    return all(a[key] == b[key] for key in a.keys() & b.keys())
