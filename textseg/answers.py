"""From what a model says of a scan, domain by domain, to the answer to each prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from textseg.imaging import GridTransform, Modality, Volume
from textseg.inference import SCATTERED_KINDS, WindowedPrediction
from textseg.inference.inquiry import Asked, Site
from textseg.inference.nesting import with_parts
from textseg.inference.sites import NEAR_MM, Midline, Narrowed, find_midline, narrowed, on_side
from textseg.inference.union import united_rows
from textseg.knowledge import KnowledgeTree
from textseg.network.weights import Domain, ModelManifest
from textseg.outputs.manifest import FindingRecord, GridRecord
from textseg.outputs.segmentation import Prediction, PromptResult

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DomainAnswer:
    """What one pass over the scan says about the concepts of a domain."""

    concepts: tuple[str, ...]
    transform: GridTransform
    prediction: WindowedPrediction
    record: GridRecord


class _Found(NamedTuple):
    """Some concepts as one: how surely they are there, their mask, or why there is none."""

    presence: float
    prediction: Prediction | None
    absent: str | None = None


class _Place(NamedTuple):
    """A mask of which only the box around what is in it stays in memory."""

    box: tuple[slice, ...]
    inside: Mask

    @classmethod
    def of(cls, mask: Mask) -> _Place | None:
        """What is in a mask; None if that is nothing."""
        boxes = ndimage.find_objects(mask.astype(np.int8))
        return cls(boxes[0], mask[boxes[0]].copy()) if boxes else None


@dataclass(frozen=True, eq=False)
class Answers:
    """All that was found out about a scan.

    Attributes:
        volume: The scan.
        domains: What the model says, by the name of the domain.
        manifest: Of the model.
        tree: The concepts.
        threshold: Probability above which a voxel belongs to a mask.
        keep_islands: Whether small pieces of masks stay.
    """

    volume: Volume
    domains: Mapping[str, DomainAnswer]
    manifest: ModelManifest
    tree: KnowledgeTree
    threshold: float
    keep_islands: bool
    _places: dict[tuple[str, str], _Place | None] = field(
        default_factory=dict, init=False, repr=False
    )

    def result(self, asked: Asked) -> PromptResult:
        """The answer to one prompt: a mask, or why there is none."""
        meaning, domain = asked.resolution, asked.domain
        said = tuple(map(FindingRecord.of, asked.findings))
        told = partial(PromptResult, meaning.prompt, volume=self.volume, resolution=meaning)
        if meaning.status != "ok":
            reason = " ".join(meaning.warnings) or None
            return told(status=meaning.status, reason=reason, said=said)
        if domain is None:
            reason = "The prompt joins structures of different kinds of scans; ask for each alone."
            return told(status="unsupported", reason=reason, said=said)
        found = self._found(meaning.concepts, domain, self.threshold)
        warnings = _modality_warning(self.volume.modality, domain)
        if found.prediction is not None and asked.site is not None:
            found, notes = self._at(found, asked.site)
            warnings += notes
        return told(
            status="not_found" if found.prediction is None else "ok",
            presence=found.presence,
            reason=found.absent,
            prediction=found.prediction,
            warnings=warnings,
            said=said,
        )

    def _found(self, concepts: Sequence[str], domain: Domain, threshold: float) -> _Found:
        """Concepts of a domain as one structure; lesions hold their parts."""
        answer = self.domains[domain.name]
        together = with_parts(concepts, self.tree, domain.concepts)
        rows = [answer.concepts.index(concept) for concept in together]
        keeps = [self.keep_islands or self.tree[c].kind in SCATTERED_KINDS for c in together]
        found, islands = united_rows(
            answer.prediction.probability,
            dict(zip(rows, keeps, strict=True)),
            threshold=threshold,
        )
        presence = float(answer.prediction.presence[rows].max())
        if presence < self.manifest.presence_threshold:
            absent = f"presence {presence:.2f} is below {self.manifest.presence_threshold:.2f}"
        elif not bool((found.values > 255 * threshold).any()):
            absent = f"no voxel reaches probability {threshold:g}"
        else:
            transform = answer.transform.cropped(found.box)
            prediction = Prediction(found.values, transform, threshold, islands=islands)
            return _Found(presence, prediction)
        return _Found(presence, None, f"Not found in this scan: {absent}.")

    def _at(self, found: _Found, site: Site) -> tuple[_Found, tuple[str, ...]]:
        """What is left of a lesion at its site, and what was done, in words."""
        if found.prediction is None or not site.plan.narrows:
            return found, (site.plan.account,)
        whole = found.prediction.restored()
        left = self._narrowed(whole, site)
        if left is None:
            why = "Not narrowed to the place in the report: that was not found in this scan."
            return found, (why,)
        if not left.dropped:
            return found, (site.plan.account,)
        if not left.kept:
            absent = f"Found, but not where the report puts it. {site.plan.account}"
            return _Found(found.presence, None, absent), ()
        count = left.kept + left.dropped
        told = f"Pieces that lie elsewhere and are left out: {left.dropped} of {count}."
        refined = replace(found.prediction, refine=_only(left.mask))
        return found._replace(prediction=refined), (site.plan.account, told)

    def _narrowed(self, lesion: Mask, site: Site) -> Narrowed | None:
        """The pieces of a lesion at its site; None if that is not in the scan."""
        spacing_mm = self.volume.geometry.spacing_mm
        if site.plan.side is not None:
            midline = self._midline(site)
            if midline is None:
                return None
            return on_side(lesion, midline, site.plan.side, spacing_mm=spacing_mm)
        around = self._mask(site.plan.concepts, site)
        if not around.any():
            return None
        return narrowed(lesion, around, spacing_mm=spacing_mm, reach_mm=NEAR_MM)

    def _midline(self, site: Site) -> Midline | None:
        """The plane between the structures of which both sides are in the scan."""
        left, right = np.zeros((2, *self.volume.geometry.shape), dtype=np.bool_)
        for pair in site.plan.pairs:
            one = self._mask([self.tree.on_side(pair, "left")], site)
            other = self._mask([self.tree.on_side(pair, "right")], site)
            if one.any() and other.any():
                left |= one
                right |= other
        return find_midline(left, right, spacing_mm=self.volume.geometry.spacing_mm)

    def _mask(self, concepts: Iterable[str | None], site: Site) -> Mask:
        """Structures of a site on the scan's grid, at the threshold of the model."""
        mask = np.zeros(self.volume.geometry.shape, dtype=np.bool_)
        for concept in filter(None, concepts):
            domain = site.domains[concept]
            # findings of a report often share a place
            if (concept, domain.name) not in self._places:
                self._places[concept, domain.name] = self._place(concept, domain)
            place = self._places[concept, domain.name]
            if place is not None:
                mask[place.box] |= place.inside
        return mask

    def _place(self, concept: str, domain: Domain) -> _Place | None:
        """Where a structure is; None if it is nowhere."""
        found = self._found([concept], domain, self.manifest.mask_threshold)
        return None if found.prediction is None else _Place.of(found.prediction.restored())


def _only(kept: Mask) -> Callable[[Mask], Mask]:
    """Leaves of a mask what was kept of it, which is something."""
    place = _Place.of(kept)
    assert place is not None

    def refine(mask: Mask) -> Mask:
        refined = np.zeros_like(mask)
        refined[place.box] = place.inside
        return refined

    return refine


def _modality_warning(modality: Modality | None, domain: Domain) -> tuple[str, ...]:
    if modality in domain.modalities:
        return ()
    trained = " and ".join(name.upper() for name in domain.modalities)
    return (f"The model learned this on {trained}; the scan is {str(modality).upper()}.",)
