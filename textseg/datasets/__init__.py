"""Data sets: what is true of each, which cases there are, and one label space over them all."""

from textseg.datasets.cases import Case, load_cases
from textseg.datasets.label_space import LabelSpace, concept_values, contained
from textseg.datasets.registry import load_registry
from textseg.datasets.spec import DatasetSpec

__all__ = [
    "Case",
    "DatasetSpec",
    "LabelSpace",
    "concept_values",
    "contained",
    "load_cases",
    "load_registry",
]
