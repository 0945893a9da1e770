"""What is true of a data set: where its masks are, what their values mean, what is complete."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ModalityName = Literal["ct", "mr", "pet"]


class DatasetSpec(BaseModel):
    """One entry of the registry; facts only, choices such as sampling weights live in configs.

    Attributes:
        name: Name of the entry, equal to the name of its file.
        title: What the data set is called in full.
        folder: First folder of the paths of its cases.
        cases: Patterns of the case ids it covers, for folders that hold several label tables.
        modality: Modalities of the scans.
        region: Body region the scans show.
        labels: Raw mask value to concept id; null for values that name no structure. Several
            values may name one concept, whose mask is then their union.
        complete: Concepts that are labelled wherever they occur, so that a missing label means a
            missing structure; ``all`` stands for every concept in ``labels``.
        licence: Licence of the scans and masks.
        citation: The publication to cite.
        homepage: Where the data set can be had.
        notes: What a user must know before trusting the masks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str = Field(min_length=1)
    folder: str = Field(min_length=1)
    cases: tuple[str, ...] = ("*",)
    modality: tuple[ModalityName, ...] = Field(min_length=1)
    region: str = Field(min_length=1)
    labels: Mapping[int, str | None]
    complete: Literal["all"] | tuple[str, ...]
    licence: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    homepage: str = Field(pattern=r"^https?://")
    notes: str = ""

    @field_validator("labels")
    @classmethod
    def _zero_is_background(cls, labels: Mapping[int, str | None]) -> Mapping[int, str | None]:
        if any(value < 1 for value in labels):
            raise ValueError("labels start at 1; 0 is background")
        return labels

    @model_validator(mode="after")
    def _complete_is_labelled(self) -> DatasetSpec:
        if stray := [i for i in self.complete_concepts if i not in self.concepts]:
            raise ValueError(f"complete names concepts without a label: {', '.join(stray)}")
        return self

    @property
    def concepts(self) -> tuple[str, ...]:
        """Every concept with a label, in the order of the values."""
        return tuple(dict.fromkeys(i for _, i in sorted(self.labels.items()) if i is not None))

    @property
    def complete_concepts(self) -> tuple[str, ...]:
        """Concepts whose absence from a mask means that they are not in the scan."""
        return self.concepts if self.complete == "all" else tuple(self.complete)

    def covers(self, folder: str, case_id: str) -> bool:
        """Whether a case in this folder belongs to this data set."""
        return folder == self.folder and any(fnmatchcase(case_id, p) for p in self.cases)
