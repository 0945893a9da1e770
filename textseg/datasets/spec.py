"""What is true of a data set: how it lies on disk, what its masks mean, what is complete."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from textseg.datasets.layouts import Layout

ModalityName = Literal["ct", "mr", "pet"]
Region = Literal[
    "brain",
    "head_neck",
    "thorax",
    "abdomen",
    "pelvis",
    "spine",
    "upper_limb",
    "lower_limb",
    "whole_body",
]
Access = Literal["open", "registration", "application", "unknown"]
Key = int | str
"""What a mask calls a structure: a value, the number of a volume, or a name."""


def _as_tuple(concepts: Any) -> Any:
    if concepts is None:
        return ()
    return (concepts,) if isinstance(concepts, str) else concepts


Concepts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
"""Ids of the knowledge tree; written as nothing, one id or a list."""


class DatasetSpec(BaseModel):
    """One entry of the registry; facts only, choices such as sampling weights live in configs.

    Attributes:
        name: Name of the entry, equal to the name of its file.
        title: What the data set is called in full.
        modality: Modalities of the scans, each with its sequences as ``layout`` names them.
        region: Body region the scans show.
        task: What is segmented.
        scans: Number of labelled scans, each sequence counted; None where it is not known.
        layout: How the data set lies on disk as it is handed out; None for scans that only come
            by a case list.
        folder: First folder of the paths of its cases in a case list that names no data sets.
        cases: Patterns of the case ids it covers there, for folders with several label tables.
        labels: What the masks hold: a value, a channel or a name, to the concepts it belongs to.
            Several keys may name one concept, whose mask is then their union; a key without
            concepts names no structure.
        complete: Concepts that are labelled wherever they occur, so that a missing label means a
            missing structure; ``all`` stands for every concept in ``labels``.
        derived: Concepts without a label of their own that the tree makes of those that have one,
            where the data set is known for them.
        names: What the data set calls a concept, where that is another class name than usual.
        shares_scans_with: Entries that label some of the same scans; never validate on one what
            was trained on another.
        licence: Licence of the scans and masks; ``unknown`` where none is stated.
        access: ``open`` to all, after ``registration``, after an ``application`` that someone
            decides on, or ``unknown``.
        citation: The publication to cite.
        homepage: Where the data set can be had.
        defects: Known faults of the data, and slips in what others say about them.
        notes: What a user must know before trusting the masks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str = Field(min_length=1)
    modality: Mapping[ModalityName, tuple[str, ...]] = Field(min_length=1)
    region: Region
    task: Literal["anatomy", "lesion", "anatomy and lesion"] = "anatomy"
    scans: int | None = Field(default=None, ge=1)
    layout: Layout | None = None
    folder: str = ""
    cases: tuple[str, ...] = ("*",)
    labels: Mapping[Key, Concepts]
    complete: Literal["all"] | tuple[str, ...]
    derived: tuple[str, ...] = ()
    names: Mapping[str, str] = {}
    shares_scans_with: tuple[str, ...] = ()
    licence: str = Field(min_length=1)
    access: Access = "unknown"
    citation: str = Field(min_length=1)
    homepage: str = Field(pattern=r"^https?://")
    defects: tuple[str, ...] = ()
    notes: str = ""

    @field_validator("labels")
    @classmethod
    def _zero_is_background(cls, labels: Mapping[Key, Concepts]) -> Mapping[Key, Concepts]:
        if any(isinstance(key, int) and key < 1 for key in labels):
            raise ValueError("labels start at 1; 0 is background")
        if len({type(key) for key in labels}) > 1:
            raise ValueError("labels are either all numbers or all names")
        return labels

    @model_validator(mode="after")
    def _names_concepts_it_labels(self) -> DatasetSpec:
        if stray := [i for i in self.complete_concepts if i not in self.concepts]:
            raise ValueError(f"complete names concepts without a label: {', '.join(stray)}")
        if double := [i for i in self.derived if i in self.concepts]:
            raise ValueError(f"derived names concepts with a label: {', '.join(double)}")
        if unused := [i for i in self.names if i not in (*self.concepts, *self.derived)]:
            raise ValueError(f"names mentions concepts that are not labelled: {', '.join(unused)}")
        return self

    @model_validator(mode="after")
    def _layout_fits(self) -> DatasetSpec:
        if self.layout is None:
            if not self.folder:
                raise ValueError("needs a layout, or the folder of its cases in case lists")
            return self
        if len(self.modality) != 1:
            raise ValueError("a layout is for scans of one modality; make one entry for each")
        numbered = isinstance(next(iter(self.labels)), int)
        if self.layout.holds in ("values", "channels") and not numbered:
            raise ValueError(f"masks of this layout hold {self.layout.holds}; labels are names")
        if self.layout.holds in ("structures", "segments") and numbered:
            raise ValueError(f"masks of this layout hold {self.layout.holds}; labels are numbers")
        return self

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        """Modalities of the scans."""
        return tuple(name for name in get_args(ModalityName) if name in self.modality)

    @property
    def concepts(self) -> tuple[str, ...]:
        """Every concept with a label, in the order of the labels."""
        return tuple(dict.fromkeys(i for concepts in self.labels.values() for i in concepts))

    @property
    def complete_concepts(self) -> tuple[str, ...]:
        """Concepts whose absence from a mask means that they are not in the scan."""
        return self.concepts if self.complete == "all" else tuple(self.complete)

    def covers(self, folder: str, case_id: str) -> bool:
        """Whether a case in this folder of a case list belongs to this data set."""
        return folder == self.folder and any(fnmatchcase(case_id, p) for p in self.cases)
