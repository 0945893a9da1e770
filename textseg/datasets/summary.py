"""What the registry adds up to: data sets, classes and scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from textseg.datasets.spec import DatasetSpec
from textseg.knowledge import load_tree
from textseg.knowledge.classes import load_classes


@dataclass(frozen=True)
class RegistrySummary:
    """Totals over data sets.

    Attributes:
        datasets: Number of data sets.
        modality_class_pairs: Classes counted once per modality they are labelled on.
        class_names: Classes counted once.
        scans: Labelled scans, each sequence counted; those that data sets share, in each of them.
    """

    datasets: int
    modality_class_pairs: int
    class_names: int
    scans: int


def summarise(specs: Mapping[str, DatasetSpec]) -> RegistrySummary:
    """Totals over data sets, classes with and without a label of their own counted."""
    pairs = {
        (modality, name)
        for spec in specs.values()
        for modality in spec.modalities
        for name in class_names(spec)
    }
    return RegistrySummary(
        datasets=len(specs),
        modality_class_pairs=len(pairs),
        class_names=len({name for _, name in pairs}),
        scans=sum(spec.scans or 0 for spec in specs.values()),
    )


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """What the concepts of a data set are called among the public data sets."""
    tree, usual = load_tree(), _usual_names()
    return tuple(
        spec.names.get(concept) or usual.get(concept) or tree[concept].name
        for concept in (*spec.concepts, *spec.derived)
    )


def _usual_names() -> dict[str, str]:
    """The first class name that stands for just one concept."""
    usual: dict[str, str] = {}
    for name, entry in load_classes().items():
        if len(entry.concepts) == 1:
            usual.setdefault(entry.concepts[0], name)
    return usual
