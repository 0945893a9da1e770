"""A model that is ready to go over scans, domain by domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from textseg.imaging import Grid, Modality, Volume
from textseg.inference.domain_pass import DomainPass
from textseg.inference.localising import Localised, Roi, Sought, run_everywhere, run_where_likely
from textseg.inference.region import COARSENING
from textseg.knowledge import KnowledgeTree
from textseg.network.model import PromptedSegmenter
from textseg.network.queries import build_queries
from textseg.network.sat_text_encoder import SatTextEncoder
from textseg.network.text_encoder import TextEncoder
from textseg.network.weights import Domain, ModelManifest

SCATTERED_KINDS = frozenset({"lesion", "lesion part", "fluid", "lymph node"})
"""Kinds of structures that come in pieces of any size."""


@dataclass(frozen=True)
class Manner:
    """How a scan is gone through.

    Attributes:
        roi: Everywhere, or where the structures are likely.
        threshold: Of the masks that are wanted.
        progress: See ``segment_windows``.
        cancel: See ``segment_windows``.
    """

    roi: Roi
    threshold: float
    progress: Callable[[int, int], None] | None = None
    cancel: Callable[[], bool] | None = None


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """Network, text encoder, and what is known of them.

    Attributes:
        network: In evaluation mode, on ``device``.
        encoder: Turns concepts into queries.
        manifest: What it segments, where.
        tree: The concepts.
        device: Where it runs.
        precision: What it runs in.
        averaging: ``streamed`` or ``published``.
        scout: Loads the model that looks first where this one cannot work with larger voxels.
    """

    network: PromptedSegmenter
    encoder: TextEncoder | SatTextEncoder
    manifest: ModelManifest
    tree: KnowledgeTree
    device: torch.device
    precision: str
    averaging: str
    scout: Callable[[], LoadedModel]

    def segment(
        self, volume: Volume, domain: Domain, concepts: Sequence[str], manner: Manner
    ) -> Localised:
        """Probability and presence of concepts of a domain."""
        full = self._pass(volume, domain, concepts, manner)
        if manner.roi == "off":
            return run_everywhere(full)
        coarse = self._coarse_pass(volume, domain, concepts, manner)
        if isinstance(coarse, str):
            return run_everywhere(full, why=coarse)
        names = [self.tree[concept].name for concept in concepts]
        sought = Sought(names, manner.threshold, self.manifest.presence_threshold)
        return run_where_likely(full, coarse, sought)

    def _pass(
        self, volume: Volume, domain: Domain, concepts: Sequence[str], manner: Manner
    ) -> DomainPass:
        return DomainPass(
            self.network,
            self._queries(concepts, volume.modality, domain),
            volume,
            Grid(domain.spacing_mm, domain.axes),
            window=domain.window,
            preparation=self.manifest.preparation,
            precision=self.precision,
            averaging=self.averaging,
            progress=manner.progress,
            cancel=manner.cancel,
        )

    def _queries(
        self, concepts: Sequence[str], modality: Modality | None, domain: Domain
    ) -> Tensor:
        known = modality if modality in domain.modalities else domain.modalities[0]
        entries = [self.tree[concept] for concept in concepts]
        return build_queries(entries, self.encoder, modality=known).to(self.device)

    def _coarse_pass(
        self, volume: Volume, domain: Domain, concepts: Sequence[str], manner: Manner
    ) -> DomainPass | str:
        """The pass that can tell where concepts are, or why there is none."""
        scattered = [c for c in concepts if self.tree[c].kind in SCATTERED_KINDS]
        if scattered:
            return f"{self.tree[scattered[0]].name} comes in pieces of any size"
        if self.averaging == "published":
            return "the published averaging runs every window"
        if self.manifest.preparation == "textseg":
            x, y, z = (COARSENING * spacing for spacing in domain.spacing_mm)
            larger = domain.model_copy(update={"spacing_mm": (x, y, z)})
            return self._pass(volume, larger, concepts, manner)
        scout = self.scout()
        for known in scout.manifest.domains:
            if set(concepts) <= set(known.concepts) and volume.modality in known.modalities:
                return scout._pass(volume, known, concepts, manner)
        return f"{scout.manifest.name}, which looks first, does not know all of it on such a scan"
