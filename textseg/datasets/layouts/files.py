"""Scans and masks that belong together by their paths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from textseg.datasets.layouts.found import Found, Holds
from textseg.datasets.layouts.pattern import Pattern

STRUCTURE = "structure"
"""Field of a mask pattern that names the structure in a file which shows only one."""


class FilesLayout(BaseModel):
    """Patterns of the scans and of their masks; see ``Pattern``.

    A mask belongs to the scans with the same fields; fields that only one of them has do not
    matter, so that several sequences or frames may share a mask. All fields together name the case.

    Attributes:
        images: Sequence to pattern of the scan, a file or a folder of DICOM slices; the key is ""
            where there is one sequence.
        masks: Pattern of the masks: a file, or a folder of PNG slices. With the field
            ``{structure}`` each file shows one structure, which is a key of the labels.
        channels: Masks are 4-D; labels are numbers of their volumes, counted from 1.
        head_first: The first PNG slice of a mask is the highest in the body, not the lowest.
        own_grid: Masks lie on another grid than the scans, such as that of a CT beside the PET.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["files"]
    images: Mapping[str, str] = Field(min_length=1)
    masks: str
    channels: bool = False
    head_first: bool = False
    own_grid: bool = False

    @field_validator("masks")
    @classmethod
    def _names_a_case(cls, masks: str) -> str:
        if not set(Pattern(masks).fields) - {STRUCTURE}:
            raise ValueError("needs a field such as {case} that tells cases apart")
        return masks

    @model_validator(mode="after")
    def _scans_share_a_field(self) -> FilesLayout:
        mask = set(Pattern(self.masks).fields)
        for sequence, text in self.images.items():
            if not mask & set(Pattern(text).fields):
                raise ValueError(f"images of {sequence!r} share no field with the masks")
        if self.channels and STRUCTURE in mask:
            raise ValueError("a mask has channels or shows one structure, not both")
        return self

    @property
    def holds(self) -> Holds:
        """What the masks hold."""
        if STRUCTURE in Pattern(self.masks).fields:
            return "structures"
        return "channels" if self.channels else "values"

    def find(self, root: Path, structures: Sequence[str]) -> list[Found]:
        """Scans with their masks, in the order of the scans' names.

        Args:
            root: Folder of the data set.
            structures: Keys of the labels; other structures' files are left alone.
        """
        masks: dict[tuple[tuple[str, str], ...], dict[str, Path]] = defaultdict(dict)
        for path, fields in Pattern(self.masks).find(root):
            structure = fields.get(STRUCTURE, "")
            if structure in structures or self.holds != "structures":
                masks[_key(fields)][structure] = path
        found = []
        for sequence, text in self.images.items():
            pattern = Pattern(text)
            shared = set(pattern.fields) & set(Pattern(self.masks).fields)
            by_shared = defaultdict(list)
            for key, files in masks.items():
                by_shared[_key(dict(key), shared)].append((dict(key), files))
            for path, fields in pattern.find(root):
                for more, files in by_shared.get(_key(fields, shared), ()):
                    name = "_".join({**fields, **more}.values())
                    found.append(Found(name, sequence, path, files))
        return found


def _key(fields: Mapping[str, str], only: set[str] | None = None) -> tuple[tuple[str, str], ...]:
    """Fields that tell cases apart, as a key."""
    wanted = fields.keys() - {STRUCTURE} if only is None else only
    return tuple(sorted((name, fields[name]) for name in wanted))
