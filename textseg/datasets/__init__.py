"""Data sets: what is true of each, which cases there are, and one label space over them all."""

from textseg.datasets.cases import PATIENT, Case, find_cases, load_cases, patient_of
from textseg.datasets.label_map import LabelledCase, read_label_map
from textseg.datasets.label_space import LabelSpace, concept_values, contained
from textseg.datasets.registry import extra, load_registry, registered
from textseg.datasets.sources import cases_of, find_dataset, specs_of
from textseg.datasets.spec import DatasetSpec
from textseg.datasets.summary import RegistrySummary, class_names, summarise

__all__ = [
    "PATIENT",
    "Case",
    "DatasetSpec",
    "LabelSpace",
    "LabelledCase",
    "RegistrySummary",
    "cases_of",
    "class_names",
    "concept_values",
    "contained",
    "extra",
    "find_cases",
    "find_dataset",
    "load_cases",
    "load_registry",
    "patient_of",
    "read_label_map",
    "registered",
    "specs_of",
    "summarise",
]
