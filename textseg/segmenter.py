"""From a scan and some phrases to masks on the scan's own grid; start reading here.

scan ──── as_volume ─── prepare ────────┐
prompts ─ resolve ───── build_queries ──┴─ segment_windows ── Segmentation (restores)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike, fspath
from typing import Any, Literal

import torch

from textseg.errors import ModelError, TextsegError
from textseg.imaging import (
    GridTransform,
    Modality,
    Volume,
    as_volume,
)
from textseg.inference import (
    SCATTERED_KINDS,
    BoxedProbability,
    LoadedModel,
    Manner,
    Roi,
    StageClock,
    WindowedPrediction,
    choose_device,
    drop_islands,
    peak_memory_bytes,
    resolve_precision,
    united,
)
from textseg.knowledge import KnowledgeTree, load_model_tree, load_user_tree
from textseg.network.layers import channels_last, round_weights
from textseg.network.model import PromptedSegmenter
from textseg.network.nearness import NearNames
from textseg.network.queries import NamingEncoder, TextVectors
from textseg.network.sat_text_encoder import SatTextEncoder
from textseg.network.text_encoder import TextEncoder
from textseg.network.weights import Domain, ModelManifest, find_model, load_encoder, load_model
from textseg.outputs.manifest import GridRecord, ModelRecord, RunRecord
from textseg.outputs.segmentation import Prediction, PromptResult, Segmentation
from textseg.prompts import Resolution, resolve

Progress = Callable[[int, int], None]
Cancel = Callable[[], bool]


@dataclass(frozen=True)
class BatchItem:
    """One scan of a batch: its result, or the error that stopped it."""

    scan: Any
    segmentation: Segmentation | None
    error: TextsegError | None


@dataclass(frozen=True, eq=False)
class _DomainAnswer:
    """What one pass over the scan says about the concepts of a domain."""

    concepts: tuple[str, ...]
    transform: GridTransform
    prediction: WindowedPrediction
    record: GridRecord


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
        self.averaging = _checked_averaging(averaging, manifest, precision)
        wanted = precision if averaging == "streamed" else "float32"
        self.precision = resolve_precision(wanted, self.device)
        self.network = channels_last(network.to(self.device)).eval()
        if self.precision == "bfloat16":
            round_weights(self.network, torch.bfloat16)
        self.encoder = encoder.eval()
        self.manifest = manifest
        self.tree: KnowledgeTree = tree or load_user_tree()
        self._near = NearNames(self.tree, self._quick_encoder)

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
        prompts: str | Sequence[str],
        *,
        modality: Modality | Literal["auto"] = "auto",
        threshold: float | None = None,
        keep_islands: bool = False,
        volume_index: int | None = None,
        series: str | None = None,
        roi: Roi = "off",
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Segmentation:
        """Segments what the prompts name.

        Args:
            scan: A path, ``Nifti1Image``, ``sitk.Image``, ``(array X Y Z, affine)`` or ``Volume``.
            prompts: One phrase or several; each gets its own result, absent ones too.
            modality: What the intensities are; ``auto`` reads the file's word or guesses.
            threshold: Probability above which a voxel belongs to a mask; the model's own if None.
            keep_islands: Keep pieces of a mask smaller than a tenth of its largest piece; lesions
                and fluids keep theirs in any case.
            volume_index: Which volume of a 4-D file.
            series: Which series of a DICOM folder.
            roi: ``auto`` looks with large voxels where the prompts are and segments only there.
            progress: Called with windows done and windows to do.
            cancel: Asked before each window; true stops with ``Cancelled``.

        Raises:
            InputError: The scan is missing, damaged or cannot be trusted.
            ResourceError: Not enough memory.
            Cancelled: As asked.
        """
        started = time.perf_counter()
        volume = as_volume(scan, modality=modality, volume_index=volume_index, series=series)
        read_s = time.perf_counter() - started
        asked = [prompts] if isinstance(prompts, str) else list(dict.fromkeys(prompts))
        resolutions = {p: self.resolve(p, modality=volume.modality) for p in asked}
        places = {p: self._domain_of(r, volume.modality) for p, r in resolutions.items()}
        level = self.manifest.mask_threshold if threshold is None else threshold
        manner = Manner(_checked_roi(roi), level, progress, cancel)
        answers = self._answers(volume, resolutions, places, manner)
        results = [
            self._result(
                resolutions[p],
                volume,
                places[p],
                answers,
                threshold=level,
                keep_islands=keep_islands,
            )
            for p in asked
        ]
        run = self._run_record(answers, read_s=read_s, total_s=time.perf_counter() - started)
        notes = [note for a in answers.values() for note in a.prediction.warnings]
        return Segmentation(volume, results, run=run, warnings=notes)

    def batch(
        self,
        scans: Iterable[Any],
        prompts: str | Sequence[str],
        *,
        on_error: Literal["raise", "record"] = "raise",
        **options: Any,
    ) -> Iterator[BatchItem]:
        """Segments scan after scan with the model loaded once.

        Args:
            scans: Anything ``__call__`` takes.
            prompts: As in ``__call__``.
            on_error: ``record`` hands back the error of a scan and goes on with the next.
            options: As in ``__call__``.
        """
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

    def _domain_of(self, resolution: Resolution, modality: Modality | None) -> Domain | None:
        """The domain that segments every concept of a prompt, the scan's modality preferred."""
        wanted = set(resolution.concepts)
        able = [d for d in self.manifest.domains if wanted and wanted <= set(d.concepts)]
        matching = [d for d in able if modality in d.modalities]
        return next(iter(matching or able), None)

    def _answers(
        self,
        volume: Volume,
        resolutions: Mapping[str, Resolution],
        places: Mapping[str, Domain | None],
        manner: Manner,
    ) -> dict[str, _DomainAnswer]:
        """One pass per domain over all concepts its prompts need."""
        answers = {}
        for domain in self.manifest.domains:
            concepts = [
                concept
                for prompt, place in places.items()
                if place is domain
                for concept in resolutions[prompt].concepts
            ]
            if concepts:
                unique = tuple(dict.fromkeys(concepts))
                answers[domain.name] = self._segment(volume, domain, unique, manner)
        return answers

    def _segment(
        self, volume: Volume, domain: Domain, concepts: tuple[str, ...], manner: Manner
    ) -> _DomainAnswer:
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
        return _DomainAnswer(concepts, found.transform, found.prediction, record)

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

    def _result(
        self,
        resolution: Resolution,
        volume: Volume,
        domain: Domain | None,
        answers: Mapping[str, _DomainAnswer],
        *,
        threshold: float,
        keep_islands: bool,
    ) -> PromptResult:
        """The answer to one prompt: a mask, or why there is none."""
        prompt = resolution.prompt
        if resolution.status != "ok":
            reason = " ".join(resolution.warnings) or None
            return PromptResult(prompt, resolution.status, volume, resolution, reason=reason)
        if domain is None:
            reason = "The prompt joins structures of different kinds of scans; ask for each alone."
            return PromptResult(prompt, "unsupported", volume, resolution, reason=reason)
        answer = answers[domain.name]
        rows = [answer.concepts.index(concept) for concept in resolution.concepts]
        found, islands = self._united(
            resolution.concepts, answer, keep_islands=keep_islands, threshold=threshold
        )
        presence = float(answer.prediction.presence[rows].max())
        warnings = _modality_warning(volume.modality, domain)
        if presence < self.manifest.presence_threshold:
            absent = f"presence {presence:.2f} is below {self.manifest.presence_threshold:.2f}"
        elif not bool((found.values > 255 * threshold).any()):
            absent = f"no voxel reaches probability {threshold:g}"
        else:
            transform = answer.transform.cropped(found.box)
            prediction = Prediction(found.values, transform, threshold, islands=islands)
            return PromptResult(
                prompt, "ok", volume, resolution, presence, None, prediction, warnings
            )
        reason = f"Not found in this scan: {absent}."
        return PromptResult(
            prompt, "not_found", volume, resolution, presence, reason, warnings=warnings
        )

    def _united(
        self,
        concepts: Sequence[str],
        answer: _DomainAnswer,
        *,
        keep_islands: bool,
        threshold: float,
    ) -> tuple[BoxedProbability, int]:
        """Largest probability of the concepts at each voxel, and the islands left out of them."""
        parts, islands = [], 0
        for concept in concepts:
            part = answer.prediction.probability.boxed(answer.concepts.index(concept))
            if not keep_islands and self.tree[concept].kind not in SCATTERED_KINDS:
                cleaned = drop_islands(part.values, threshold=threshold)
                part = replace(part, values=cleaned.probability)
                islands += cleaned.islands
            parts.append(part)
        return united(parts), islands

    def _run_record(
        self, answers: Mapping[str, _DomainAnswer], *, read_s: float, total_s: float
    ) -> RunRecord:
        clock = StageClock()
        clock.add({"read": read_s, "total": total_s})
        for answer in answers.values():
            clock.add(answer.prediction.timings_s)
        return RunRecord(
            model=ModelRecord(
                name=self.manifest.name,
                version=self.manifest.version,
                sha256=self.manifest.sha256,
            ),
            device=str(self.device),
            precision=self.precision,
            grids=tuple(answer.record for answer in answers.values()),
            timings_s={stage: round(seconds, 3) for stage, seconds in clock.seconds.items()},
            peak_memory_bytes=peak_memory_bytes(),
        )


def _checked_averaging(averaging: str, manifest: ModelManifest, precision: str) -> str:
    if averaging not in ("streamed", "published"):
        raise ModelError(
            f"{averaging!r} is no way to average windows.", remedy="Use streamed or published."
        )
    if averaging == "published" and manifest.preparation != "sat":
        raise ModelError(
            f"the published averaging is that of SAT's weights; {manifest.name} is none of them.",
            remedy="Leave it out.",
        )
    if averaging == "published" and precision == "bfloat16":
        raise ModelError("the published averaging is in float32.", remedy="Leave precision out.")
    return averaging


def _checked_roi(roi: Roi) -> Roi:
    if roi not in ("off", "auto"):
        raise ModelError(f"the region is {roi!r}.", remedy="Use off or auto for roi.")
    return roi


def _modality_warning(modality: Modality | None, domain: Domain) -> tuple[str, ...]:
    if modality in domain.modalities:
        return ()
    trained = " and ".join(name.upper() for name in domain.modalities)
    return (f"The model learned this on {trained}; the scan is {str(modality).upper()}.",)
