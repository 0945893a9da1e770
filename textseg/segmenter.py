"""From a scan and some phrases to masks on the scan's own grid; start reading here.

scan ──── as_volume ────── prepare ────────┐
prompts ─ resolve ──────┬─ build_queries ──┴─ segment_windows ── Answers ── Segmentation (restores)
report ── read_findings ┘
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from typing import Any, Literal

import torch

from textseg.answers import Answers, DomainAnswer
from textseg.errors import PromptError, TextsegError
from textseg.imaging import Modality, Volume
from textseg.inference import (
    LoadedModel,
    Manner,
    Roi,
    StageClock,
    choose_device,
    peak_memory_bytes,
    resolve_precision,
)
from textseg.inference.choices import checked_averaging, checked_roi
from textseg.inference.given import Given
from textseg.inference.inquiry import Inquirer, Inquiry
from textseg.inference.report_reader import ReportReader
from textseg.knowledge import KnowledgeTree, load_model_tree, load_user_tree
from textseg.network.layers import channels_last, round_weights
from textseg.network.model import PromptedSegmenter
from textseg.network.nearness import NearNames
from textseg.network.queries import NamingEncoder, TextVectors
from textseg.network.sat_text_encoder import SatTextEncoder
from textseg.network.text_encoder import TextEncoder
from textseg.network.weights import Domain, ModelManifest, find_model, load_encoder, load_model
from textseg.outputs.manifest import (
    FindingsRecord,
    GridRecord,
    ModelRecord,
    ReportRecord,
    RunRecord,
    channel_records,
)
from textseg.outputs.segmentation import Segmentation
from textseg.outputs.settings import Settings
from textseg.prompts import Resolution, resolve

Progress = Callable[[int, int], None]
Cancel = Callable[[], bool]


@dataclass(frozen=True)
class BatchItem:
    """One scan of a batch: its result, or the error that stopped it."""

    scan: Any
    segmentation: Segmentation | None
    error: TextsegError | None


class Segmenter:
    """A loaded model; call it with a scan and prompts.

    >>> segmenter = Segmenter.from_pretrained("nano")  # doctest: +SKIP
    >>> segmenter("scan.nii.gz", ["liver"])["liver"].mask.sum()  # doctest: +SKIP
    """

    def __init__(
        self,
        network: PromptedSegmenter,
        encoder: TextEncoder | SatTextEncoder,
        manifest: ModelManifest,
        *,
        device: str = "auto",
        precision: str = "auto",
        averaging: str = "streamed",
        tree: KnowledgeTree | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.averaging = checked_averaging(averaging, manifest, precision)
        wanted = precision if averaging == "streamed" else "float32"
        self.precision = resolve_precision(wanted, self.device)
        self.network = channels_last(network.to(self.device)).eval()
        if self.precision == "bfloat16":
            round_weights(self.network, torch.bfloat16)
        self.encoder = encoder.eval()
        self.manifest = manifest
        self.tree: KnowledgeTree = tree or load_user_tree()
        self._near = NearNames(self.tree, self._quick_encoder)
        self._reader = ReportReader(manifest, self.device)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str] = "nano", *, device: str = "auto", **options: str
    ) -> Segmenter:
        """The embedded model, or one in a folder.

        Args:
            name_or_path: ``nano``, a name in the user's models folder, or a model folder.
            device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            options: ``precision``: ``auto``, ``float32`` or ``bfloat16``. ``averaging``:
                ``streamed``, or for SAT's weights ``published``, which averages windows in float32
                exactly as the original does, at its cost in time and memory.

        Raises:
            ModelError: No such model, or its files are damaged.
        """
        folder = find_model(fspath(name_or_path))
        network, encoder, manifest = load_model(folder)
        tree = load_model_tree(folder)
        return cls(network, encoder, manifest, device=device, tree=tree, **options)

    def resolve(self, prompt: str, *, modality: Modality | None = None) -> Resolution:
        """What a prompt means to this model."""
        supported = self.manifest.supported
        return resolve(prompt, self.tree, supported=supported, modality=modality, near=self._near)

    def __call__(
        self,
        scan: Any,
        prompts: str | Sequence[str] | None = None,
        *,
        report: str | PathLike[str] | None = None,
        modality: Modality | Literal["auto"] = "auto",
        threshold: float | None = None,
        keep_islands: bool = False,
        volume_index: int | None = None,
        series: str | None = None,
        roi: Roi = "off",
        mirror: bool = False,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Segmentation:
        """Segments what the prompts name.

        Args:
            scan: A path, ``Nifti1Image``, ``sitk.Image``, ``(array X Y Z, affine)`` or ``Volume``;
                for a model with channels, a mapping from their names to such scans.
            prompts: One phrase or several; each gets its own result, absent ones too. Without any,
                the findings of the report are asked for, each at its place.
            report: The radiology report of the scan: its text, a text file, or a ``.npy`` file of
                its features. A model that reads reports sees it beside the prompts.
            modality: What the intensities are; ``auto`` reads the file's word or guesses.
            threshold: Probability above which a voxel belongs to a mask; the model's own if None.
            keep_islands: Keep pieces of a mask smaller than a tenth of its largest piece; lesions
                and fluids keep theirs in any case.
            volume_index: Which volume of a 4-D file.
            series: Which series of a DICOM folder.
            roi: ``auto`` looks with large voxels where the prompts are and segments only there.
            mirror: Look a second time, in a mirror, and average: twice the time.
            progress: Called with windows done and windows to do.
            cancel: Asked before each window; true stops with ``Cancelled``.

        Raises:
            InputError: The scan is missing, damaged or cannot be trusted, its channels are not
                those of the model, or the report cannot be read.
            PromptError: There are no prompts, and no report that could stand for them.
            ResourceError: Not enough memory.
            Cancelled: As asked.
        """
        started = time.perf_counter()
        which = {"modality": modality, "volume_index": volume_index, "series": series}
        given = Given.read(scan, report, channels=self.manifest.channels, **which)
        inquiry = self._inquiry(prompts, given)
        level = self.manifest.mask_threshold if threshold is None else threshold
        heard = self._reader.encoded(given.report)
        manner = Manner(checked_roi(roi), level, progress, cancel, mirror=mirror, report=heard)
        domains = self._answers(given.seen, inquiry, manner)
        told = Answers(given.volume, domains, self.manifest, self.tree, level, keep_islands)
        results = [told.result(asked) for asked in inquiry.asked]
        how = (modality, threshold, keep_islands, volume_index, series, roi, mirror)
        asked = Settings(*how, findings=prompts is None)
        run = self._run_record(told, given, inquiry, asked, total_s=time.perf_counter() - started)
        return Segmentation(
            given.volume, results, run=run, warnings=self._notes(told, given, inquiry)
        )

    def batch(
        self,
        scans: Iterable[Any],
        prompts: str | Sequence[str] | None = None,
        *,
        on_error: Literal["raise", "record"] = "raise",
        **options: Any,
    ) -> Iterator[BatchItem]:
        """Segments scan after scan with the model loaded once.

        Args:
            scans: Anything ``__call__`` takes.
            prompts: As in ``__call__``.
            on_error: ``record`` hands back the error of a scan and goes on with the next.
            options: As in ``__call__``, but for a report, which is of one scan.
        """
        if options.get("report") is not None:
            raise PromptError(
                "a report is of one scan, not of a batch.",
                remedy="Segment each with its own report.",
            )
        for scan in scans:
            try:
                yield BatchItem(scan, self(scan, prompts, **options), None)
            except TextsegError as error:
                if on_error == "raise" or error.exit_code == 130:
                    raise
                yield BatchItem(scan, None, error)

    def _quick_encoder(self) -> TextVectors:
        """A text encoder that takes all names of the tree in at once."""
        return load_encoder("nano") if isinstance(self.encoder, NamingEncoder) else self.encoder

    def _inquiry(self, prompts: str | Sequence[str] | None, given: Given) -> Inquiry:
        """The prompts, or if there are none what the report states."""
        modality = given.volume.modality
        inquirer = Inquirer(self.manifest, self.tree, modality)
        if prompts is None:
            return inquirer.stated(given.report)
        asked = [prompts] if isinstance(prompts, str) else dict.fromkeys(prompts)
        return inquirer.written(self.resolve(prompt, modality=modality) for prompt in asked)

    def _answers(self, volume: Volume, inquiry: Inquiry, manner: Manner) -> dict[str, DomainAnswer]:
        """One pass per domain over all concepts that are needed of it."""
        answers = {}
        for domain in self.manifest.domains:
            concepts = inquiry.concepts_of(domain, self.tree)
            if concepts:
                answers[domain.name] = self._segment(volume, domain, concepts, manner)
        return answers

    def _segment(
        self, volume: Volume, domain: Domain, concepts: tuple[str, ...], manner: Manner
    ) -> DomainAnswer:
        """Probability of each concept on the domain's working grid."""
        found = self._model.segment(volume, domain, concepts, manner)
        record = GridRecord(
            domain=domain.name,
            spacing_mm=domain.spacing_mm,
            shape=found.transform.shape,
            window=domain.window,
            windows=found.prediction.windows,
            windows_skipped=found.prediction.skipped,
            roi=found.account,
            roi_box=found.corners,
        )
        return DomainAnswer(concepts, found.transform, found.prediction, record)

    @property
    def _model(self) -> LoadedModel:
        return LoadedModel(
            self.network,
            self.encoder,
            self.manifest,
            self.tree,
            device=self.device,
            precision=self.precision,
            averaging=self.averaging,
            scout=lambda: self._nano._model,
        )

    @cached_property
    def _nano(self) -> Segmenter:
        """The model that looks first where this one cannot work with larger voxels."""
        return Segmenter.from_pretrained(device=str(self.device), precision=self.precision)

    def _notes(self, answers: Answers, given: Given, inquiry: Inquiry) -> list[str]:
        """What there is to say of the run as a whole."""
        seen = [note for a in answers.domains.values() for note in a.prediction.warnings]
        is_used = self.manifest.reads_reports or inquiry.findings is not None
        lacks = given.caveats(self.manifest.name, is_used=is_used)
        return [*seen, *lacks, *inquiry.caveats(self.manifest.name)]

    def _run_record(
        self,
        answers: Answers,
        given: Given,
        inquiry: Inquiry,
        settings: Settings,
        *,
        total_s: float,
    ) -> RunRecord:
        report, findings = None, None
        if given.report is not None:
            report = ReportRecord.of(given.report, is_read=self.manifest.reads_reports)
        if inquiry.findings is not None:
            findings = FindingsRecord.of(inquiry.findings)
        clock = StageClock()
        clock.add({"read": given.read_s, "total": total_s})
        for answer in answers.domains.values():
            clock.add(answer.prediction.timings_s)
        return RunRecord(
            model=ModelRecord(
                name=self.manifest.name,
                version=self.manifest.version,
                sha256=self.manifest.sha256,
            ),
            device=str(self.device),
            precision=self.precision,
            channels=channel_records(given.volume, given.missing),
            report=report,
            findings=findings,
            grids=tuple(answer.record for answer in answers.domains.values()),
            settings=settings.record(),
            timings_s={stage: round(seconds, 3) for stage, seconds in clock.seconds.items()},
            peak_memory_bytes=peak_memory_bytes(),
        )
