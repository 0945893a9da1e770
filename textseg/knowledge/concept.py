"""What the tree says about one structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Concept:
    """One entry of the knowledge tree; every reference to another concept is its id.

    Attributes:
        id: Stable snake_case name; dots specialise and the side comes last (``kidney.left``).
        name: What a report would call it.
        synonyms: Other names that mean this concept, abbreviations and shared names included.
        is_a: Concepts of which this is a kind.
        part_of: Concepts of which this is a part, in the anatomical sense.
        side: Side of the body, None for midline structures and for both sides together.
        kind: ``organ``, ``bone``, ``vessel``, ``lesion``, ...
        region: Body region, ``whole_body`` where none applies.
        system: Organ system, ``multi`` where several apply.
        xrefs: Ids in other vocabularies, such as ``UBERON:0002113``.
        definition: A sentence written for this tree, or empty; see ``KnowledgeTree.definition``.
        abbreviations: The subset of ``synonyms`` that are abbreviations.
        ambiguous: The subset of ``synonyms`` that other concepts answer to as well.
        made_of: Alternative sets of concepts whose union is exactly this concept.
        contains: Concepts whose voxels belong to this one even where a mask names them apart.
        base: The concept without its side; its own id when it has none.
        curated: False for entries taken over from a public ontology by rule.
        latin: The subset of ``synonyms`` that are Latin.
        lay: The subset of ``synonyms`` that patients use.
        british: The subset of ``synonyms`` in British spelling.
        plurals: The subset of ``synonyms`` that name several of the kind.
        adjectives: Words that speak of this concept (``renal``); not among its synonyms.
        branch_of: Larger vessels or nerves this one leaves, or, for a vein, runs into.
        supplies: What an artery feeds or a nerve serves.
        drains: What a vein or a lymph node receives from.
        site: Where a lesion or finding lies.
        adjacent_to: Concepts that touch this one in label maps, most contact first.
        volume_ml: Usual size in an adult, None where nobody has said.
    """

    id: str
    name: str
    synonyms: tuple[str, ...] = ()
    is_a: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()
    side: Side | None = None
    kind: str = "organ"
    region: str = "whole_body"
    system: str = "multi"
    xrefs: tuple[str, ...] = ()
    definition: str = ""
    abbreviations: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    made_of: tuple[tuple[str, ...], ...] = ()
    contains: tuple[str, ...] = ()
    base: str = ""
    curated: bool = True
    latin: tuple[str, ...] = ()
    lay: tuple[str, ...] = ()
    british: tuple[str, ...] = ()
    plurals: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()
    branch_of: tuple[str, ...] = ()
    supplies: tuple[str, ...] = ()
    drains: tuple[str, ...] = ()
    site: tuple[str, ...] = ()
    adjacent_to: tuple[str, ...] = ()
    volume_ml: float | None = None

    @property
    def is_adult_gross(self) -> bool:
        """Whether a dissector of an adult would point at it: no lesion, fetus or microscope."""
        return self.kind not in _NOT_GROSS and self.region != "fetus"


_NOT_GROSS = frozenset({"lesion", "lesion part", "microanatomy", "fluid", "composite tissue"})
