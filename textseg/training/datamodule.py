"""Loads the cases of a mixture of domains and hands out reproducible batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from textseg.datasets import Case, LabelSpace, load_cases, read_label_map
from textseg.datasets.label_map import MAX_SHIFT_MM
from textseg.errors import InputError, ModelError
from textseg.imaging import Geometry, Grid, Source, Volume, plan_grid, to_grid
from textseg.knowledge import Concept, KnowledgeTree, load_tree
from textseg.network.queries import TextVectors, build_queries
from textseg.training.body import body_distances
from textseg.training.encoders import named_encoder
from textseg.training.sampling import (
    IGNORE,
    Batch,
    DomainConfig,
    DomainSampler,
    MixtureDataset,
    TrainingCase,
)
from textseg.training.segmentation_task import DomainPrompts
from textseg.training.validation import ValidationCase, load_validation_case


class MixtureDataModule(lightning.LightningDataModule):
    """Domains over one case list.

    Args:
        cases: JSON case list; see ``textseg.datasets.load_cases``.
        domains: The mixture.
        encoder: What makes the queries: a model, by name or folder, whose text encoder it is; or,
            to compare with, ``untrained`` or ``random`` (see ``named_encoder``).
        steps: Batches per epoch; a checkpoint may resume at any epoch.
        seed: Seed of every random choice.
        workers: Processes that prepare batches.
    """

    def __init__(
        self,
        cases: Path,
        domains: list[DomainConfig],
        encoder: str = "nano",
        steps: int = 100,
        seed: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__()
        self.cases_path = Path(cases)
        self.domains = domains
        self.encoder = encoder
        self.steps, self.seed, self.workers = steps, seed, workers
        self.spaces: list[LabelSpace] = []
        self.prompts: list[DomainPrompts] = []
        self.validation: list[ValidationCase] = []
        self._samplers: list[DomainSampler] = []
        self._asked: list[list[Concept]] = []

    def setup(self, stage: str) -> None:
        """Reads every training case into memory; its label maps are small."""
        if self._samplers:
            return
        tree = load_tree()
        cases = load_cases(self.cases_path)
        members = []
        for index, domain in enumerate(self.domains):
            mine = training_cases(domain, cases)
            space = domain_space(domain, mine, tree)
            unions = union_concepts(space)
            self._asked.append([tree[concept] for concept in (*space.concepts, *unions)])
            members.append(membership(space, unions))
            scored = [
                load_validation_case(case, space, domain=index, spacing_mm=domain.spacing_mm)
                for case in validation_cases(domain, cases)
            ]
            self.validation += [case for case in scored if case.values]
            self.spaces.append(space)
            self._samplers.append(
                DomainSampler(
                    domain,
                    index=index,
                    concepts=space.concepts,
                    swap=side_swap(space),
                    cases=[
                        load_case(case, space, with_body=domain.modality == "ct") for case in mine
                    ],
                )
            )

        queries = self.queries(named_encoder(self.encoder))
        self.prompts = [DomainPrompts(*of) for of in zip(queries, members, strict=True)]

    def queries(self, encoder: TextVectors) -> list[dict[str, Tensor]]:
        """What an encoder makes of each domain's prompts, by modality."""
        return [
            {
                modality: build_queries(asked, encoder, modality=modality)
                for modality in domain.modalities
            }
            for domain, asked in zip(self.domains, self._asked, strict=True)
        ]

    def train_dataloader(self) -> DataLoader[Batch]:
        """The next epoch's batches; which they are follows from the epoch's number alone."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        dataset = MixtureDataset(
            self._samplers, seed=self.seed, start=epoch * self.steps, length=self.steps
        )
        return DataLoader(
            dataset, batch_size=None, num_workers=self.workers, worker_init_fn=_one_thread
        )

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Numbers of the cases in ``validation``, one at a time."""
        return DataLoader(torch.arange(len(self.validation)), batch_size=None)  # type: ignore[arg-type]


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def validation_cases(domain: DomainConfig, cases: Sequence[Case]) -> list[Case]:
    """Scans with labels that the domain is scored on and never trained on."""
    scored = [c for c in cases if c.split == "val" and c.dataset in domain.validation]
    labelled = labelled_cases(domain, cases)
    scored += [case for i, case in enumerate(labelled) if held_out(domain, i)]
    return [case for case in scored if case.image is not None and case.masks]


def labelled_cases(domain: DomainConfig, cases: Sequence[Case]) -> list[Case]:
    """Labelled cases of the domain's data sets in the training split, held-out ones included."""
    return [
        case
        for case in cases
        if case.dataset in domain.datasets and case.masks and case.split == "train"
    ]


def training_cases(domain: DomainConfig, cases: Sequence[Case]) -> list[Case]:
    """Cases the domain trains on: labelled ones without those held out.

    Raises:
        ModelError: None is left.
    """
    labelled = labelled_cases(domain, cases)
    mine = [case for i, case in enumerate(labelled) if not held_out(domain, i)]
    if not mine:
        raise ModelError(
            f"domain {domain.name!r} has no training case of {', '.join(domain.datasets)}.",
            code="E404",
            remedy="Check the data set names and the case list.",
        )
    return mine


def held_out(domain: DomainConfig, position: int) -> bool:
    """Whether the labelled case at this position of its domain is kept for validation."""
    return domain.hold_out_every > 0 and position % domain.hold_out_every == 0


def domain_space(domain: DomainConfig, cases: Sequence[Case], tree: KnowledgeTree) -> LabelSpace:
    """Concepts the domain trains, in the order of the tree."""
    space = LabelSpace.of(cases, tree=tree)
    return LabelSpace(tuple(c for c in space.concepts if c not in domain.skip), tree)


def union_concepts(space: LabelSpace) -> tuple[str, ...]:
    """Concepts of the tree that are exactly a union of several concepts of the space."""
    held = set(space.concepts)
    return tuple(
        concept.id
        for concept in space.tree
        if concept.id not in held and len(space.tree.leaves(concept.id, held)) > 1
    )


def membership(space: LabelSpace, unions: Sequence[str]) -> Tensor:
    """Which labels (background first) each prompt joins, ``N+U N+1`` bool."""
    table = torch.zeros(len(space.concepts) + len(unions), len(space.concepts) + 1)
    for row, concept in enumerate((*space.concepts, *unions)):
        for leaf in space.tree.leaves(concept, space.concepts):
            table[row, space.index[leaf] + 1] = 1
    return table.bool()


def side_swap(space: LabelSpace) -> Tensor:
    """Label of the same structure on the other side, background included.

    A sided structure without a counterpart in the space has no label in a mirrored image: IGNORE.
    """
    swap = torch.arange(len(space.concepts) + 1)
    for concept, place in space.index.items():
        if space.tree[concept].side is None:
            continue
        other = space.index.get(space.tree.counterpart(concept) or "")
        swap[place + 1] = IGNORE if other is None else other + 1
    return swap


def load_case(case: Case, space: LabelSpace, *, with_body: bool) -> TrainingCase:
    """A case in memory, in RAS axis order.

    Values that name a concept outside the space are ignored by the losses, because a concept of
    the space may contain them; unnamed values become extra tissues for synthesis. A voxel that
    belongs to several concepts is labelled as the one with the fewest values.

    Raises:
        InputError: A file is damaged, or scan and mask do not share a grid (E321).
    """
    scan = case.read_image() if case.image is not None else None
    seen, mask = read_label_map(case, scan=None if scan is None else scan.geometry)
    if scan is not None and not mask.geometry.matches(scan.geometry, tolerance_mm=MAX_SHIFT_MM):
        raise InputError("does not lie on the grid of its scan.", code="E321", path=mask.path)
    values = space.values(seen)
    table = torch.zeros(int(mask.values.max()) + 1, dtype=torch.int16)
    for value in seen.labels:
        table[value] = IGNORE
    for offset, value in enumerate(seen.unnamed, start=1):
        table[value] = len(space.concepts) + offset
    by_size = sorted(values.items(), key=lambda item: -len(item[1]))
    for concept, members in by_size:
        for value in members:
            table[value] = space.index[concept] + 1
    own = set(table.tolist())
    known = [
        concept in values and (not values[concept] or space.index[concept] + 1 in own)
        for concept in space.concepts
    ]
    raw, spacing = in_ras(mask.values.astype(np.float32), mask.geometry)
    labels = table[raw[0].long()]
    return TrainingCase(
        id=case.id,
        labels=labels,
        known=torch.tensor(known),
        spacing_mm=spacing,
        image=None if scan is None else in_ras(scan.data[0], scan.geometry)[0],
        distances=body_distances(labels, spacing).half() if with_body else None,
    )


def in_ras(
    data: NDArray[np.float32], geometry: Geometry
) -> tuple[Tensor, tuple[float, float, float]]:
    """A scan or mask ``1 X Y Z`` in RAS axis order at its own spacing, and that spacing."""
    volume = Volume(data[None], geometry, None, Source(None, "array"))
    probe = plan_grid(geometry, Grid((1.0, 1.0, 1.0)))
    x, y, z = (geometry.spacing_mm[axis] for axis in probe.permutation)
    turned, _ = to_grid(volume, Grid((x, y, z)))
    return turned, (x, y, z)
