"""A model that is ready to go over scans, domain by domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from textseg.imaging import Grid, Modality, Volume
from textseg.inference.domain_pass import DomainPass
from textseg.inference.localising import Localised, Roi, Sought, run_everywhere, run_where_likely
from textseg.inference.mirroring import Mirror, counterparts, left_right_axis
from textseg.inference.region import COARSENING
from textseg.inference.report_reader import EncodedReport
from textseg.inference.window_model import WindowModel
from textseg.knowledge import KnowledgeTree
from textseg.network.conditioned import Conditioned
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
        mirror: Whether to look a second time, in a mirror, and to average.
        report: What is known of the scan beside the prompts, for a network that reads it.
    """

    roi: Roi
    threshold: float
    progress: Callable[[int, int], None] | None = None
    cancel: Callable[[], bool] | None = None
    mirror: bool = False
    report: EncodedReport | None = None


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
        if manner.mirror:
            full = replace(full, mirror=self._mirror(full, domain, concepts, manner))
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
            self._reading(manner.report),
            self._queries(concepts, volume.modality, domain),
            volume,
            Grid(domain.spacing_mm, domain.axes),
            window=domain.window,
            preparation=self.manifest.preparation,
            precision=self.precision,
            averaging=self.averaging,
            progress=manner.progress,
            cancel=manner.cancel,
            fill=self.network.with_stand_ins if self.manifest.channels else None,
        )

    def _reading(self, report: EncodedReport | None, *, mirrored: bool = False) -> WindowModel:
        """The network, with the report in hand if there is one."""
        if report is None:
            return self.network
        return Conditioned(self.network, report.mirrored if mirrored else report.tokens)

    def _mirror(
        self, full: DomainPass, domain: Domain, concepts: Sequence[str], manner: Manner
    ) -> Mirror:
        """How a pass looks a second time."""
        others = counterparts(concepts, offered=domain.concepts, tree=self.tree)
        asked = tuple(others.values())
        queries = self._queries(asked, full.volume.modality, domain) if asked else full.queries[:0]
        kept = [self.tree[c].name for place, c in enumerate(concepts) if place not in others]
        warning = f"Not mirrored, as the model does not know the other side: {', '.join(kept)}."
        return Mirror(
            left_right_axis(domain.axes),
            self._reading(manner.report, mirrored=True),
            rows=tuple(others),
            queries=queries,
            warnings=(warning,) if kept else (),
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
                # another model encodes reports otherwise, if it reads any
                return scout._pass(volume, known, concepts, replace(manner, report=None))
        return f"{scout.manifest.name}, which looks first, does not know all of it on such a scan"
