"""Loads the cases of a mixture of domains and hands out reproducible batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from textseg.datasets import Case, LabelSpace, load_cases, patient_of
from textseg.errors import ModelError
from textseg.knowledge import KnowledgeTree, load_user_tree
from textseg.network.queries import TextVectors, build_queries
from textseg.network.report_encoder import (
    ReportEncoder,
    ReportEncoderConfig,
    make_report_encoder,
)
from textseg.training.domain_labels import DomainLabels
from textseg.training.encoders import named_encoder
from textseg.training.sampling import Batch, DomainConfig, DomainSampler, MixtureDataset
from textseg.training.segmentation_task import DomainPrompts
from textseg.training.training_case import load_case
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
        report_encoder: What makes tokens of the reports of cases; without it, they are left out.
    """

    def __init__(
        self,
        cases: Path,
        domains: list[DomainConfig],
        encoder: str = "nano",
        steps: int = 100,
        seed: int = 0,
        workers: int = 1,
        report_encoder: ReportEncoderConfig | None = None,
    ) -> None:
        super().__init__()
        self.cases_path = Path(cases)
        self.domains = domains
        self.encoder = encoder
        self.steps, self.seed, self.workers = steps, seed, workers
        self.report_encoder = report_encoder
        self.labels: list[DomainLabels] = []
        self.prompts: list[DomainPrompts] = []
        self.validation: list[ValidationCase] = []
        self.testing: list[ValidationCase] = []
        self.token_features: int | None = None
        self._samplers: list[DomainSampler] = []

    def setup(self, stage: str) -> None:
        """Reads the training cases; prepared ones stay on disk."""
        if self._samplers:
            return
        tree = load_user_tree()
        cases = load_cases(self.cases_path)
        reader = None
        if self.report_encoder is not None:
            reader = make_report_encoder(self.report_encoder)
            self.token_features = reader.features
        for index, domain in enumerate(self.domains):
            mine = training_cases(domain, cases)
            space = domain_space(domain, mine, tree)
            labels = DomainLabels.of(mine, space)
            # only what lacks a scan, or has it replaced at times, needs a body to be put around it
            synthetic = [
                domain.modality == "ct" and (not c.has_scan or domain.real < 1) for c in mine
            ]
            channels = domain.channel_names
            loaded = [
                load_case(case, labels, with_body=with_body, channels=channels, encoder=reader)
                for case, with_body in zip(mine, synthetic, strict=True)
            ]
            score = partial(scored, space=space, domain=domain, index=index, encoder=reader)
            self.validation += score(validation_cases(domain, cases))
            self.testing += score(test_cases(domain, cases))
            self.labels.append(labels)
            self._samplers.append(DomainSampler(domain, index=index, labels=labels, cases=loaded))
        queries = self.queries(named_encoder(self.encoder))
        self.prompts = [
            DomainPrompts(asked, labels) for asked, labels in zip(queries, self.labels, strict=True)
        ]

    def queries(self, encoder: TextVectors) -> list[dict[str, Tensor]]:
        """What an encoder makes of each domain's prompts, by modality."""
        return [
            {
                modality: build_queries(
                    [labels.space.tree[prompt] for prompt in labels.prompts],
                    encoder,
                    modality=modality,
                )
                for modality in domain.modalities
            }
            for domain, labels in zip(self.domains, self.labels, strict=True)
        ]

    def train_dataloader(self) -> DataLoader[Batch]:
        """The next epoch's batches; which they are follows from the epoch's number alone."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        dataset = MixtureDataset(
            self._samplers, seed=self.seed, start=epoch * self.steps, length=self.steps
        )
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=self._mine(dataset),
            num_workers=self.workers,
            worker_init_fn=_one_thread,
        )

    def _mine(self, dataset: MixtureDataset) -> DistributedSampler[Batch]:
        """Every n-th batch for each of n processes, in order; Lightning's would shuffle."""
        trainer = self.trainer
        rank, count = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        return DistributedSampler(dataset, num_replicas=count, rank=rank, shuffle=False)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Numbers of the cases in ``validation``, one at a time."""
        return DataLoader(torch.arange(len(self.validation)), batch_size=None)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Numbers of the cases in ``testing``, one at a time."""
        return DataLoader(torch.arange(len(self.testing)), batch_size=None)  # type: ignore[arg-type]


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def validation_cases(domain: DomainConfig, cases: Sequence[Case]) -> list[Case]:
    """Scans with labels that the domain is scored on and never trained on."""
    found = [c for c in cases if c.split == "val" and c.dataset in domain.validation]
    labelled = labelled_cases(domain, cases)
    kept = held_out(domain, labelled)
    found += [case for case in labelled if patient_of(case, domain.patient) in kept]
    return [case for case in found if case.has_scan and case.masks]


def test_cases(domain: DomainConfig, cases: Sequence[Case]) -> list[Case]:
    """Scans with labels that the domain is tested on and never sees while it trains.

    Those for tests of each data set, or those for validation if it has no others.
    """
    mine = [c for c in cases if c.dataset in domain.test and c.has_scan and c.masks]
    apart = {case.dataset for case in mine if case.split == "test"}
    return [case for case in mine if case.split == ("test" if case.dataset in apart else "val")]


def scored(
    cases: Sequence[Case],
    *,
    space: LabelSpace,
    domain: DomainConfig,
    index: int,
    encoder: ReportEncoder | None = None,
) -> list[ValidationCase]:
    """Cases in memory that hold a concept of the space."""
    loaded = (
        load_validation_case(
            case,
            space,
            domain=index,
            spacing_mm=domain.grid_mm,
            channels=domain.channel_names,
            encoder=encoder,
        )
        for case in cases
    )
    return [case for case in loaded if case.values]


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
    kept = held_out(domain, labelled)
    mine = [case for case in labelled if patient_of(case, domain.patient) not in kept]
    if not mine:
        raise ModelError(
            f"domain {domain.name!r} has no training case of {', '.join(domain.datasets)}.",
            code="E404",
            remedy="Check the data set names and the case list.",
        )
    return mine


def held_out(domain: DomainConfig, labelled: Sequence[Case]) -> frozenset[str]:
    """The patients kept for validation: every n-th, all scans of a patient together."""
    if domain.hold_out_every == 0:
        return frozenset()
    patients = dict.fromkeys(patient_of(case, domain.patient) for case in labelled)
    return frozenset(list(patients)[:: domain.hold_out_every])


def needs_synthesis(domain: DomainConfig, case: Case) -> bool:
    """Whether crops of a case may be synthetic."""
    return not case.has_scan or domain.real < 1 or domain.random_contrast > 0


def domain_space(domain: DomainConfig, cases: Sequence[Case], tree: KnowledgeTree) -> LabelSpace:
    """Concepts the domain trains, in the order of the tree."""
    space = LabelSpace.of(cases, tree=tree)
    return LabelSpace(tuple(c for c in space.concepts if c not in domain.skip), tree)
