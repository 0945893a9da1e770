"""The answer to a set of prompts on one scan: masks when asked for, and files when saved."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from textseg.errors import ModelError
from textseg.imaging.volume import Geometry, Volume
from textseg.outputs.instances import Instances, InstanceStatistics, find_instances
from textseg.outputs.layout import plan_output
from textseg.outputs.manifest import (
    FindingRecord,
    InputRecord,
    Manifest,
    PromptRecord,
    RunRecord,
    SoftwareRecord,
    Status,
    encodable,
)
from textseg.outputs.saving import preview_of, save_result
from textseg.outputs.statistics import Statistics, mask_statistics, unmeasured

if TYPE_CHECKING:
    from torch import Tensor

    from textseg.imaging.grid import GridTransform
    from textseg.prompts.prompt import Resolution

__all__ = ["MaskCache", "Prediction", "PromptResult", "Segmentation"]

Mask = NDArray[np.bool_]


class MaskCache:
    """The last few masks on the scan grid, up to a number of bytes; always at least one.

    Restoring a mask takes a good part of a second, keeping all of them takes gigabytes.
    """

    def __init__(self, max_bytes: int = 512 * 1024**2) -> None:
        self._max_bytes = max_bytes
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, prompt: str) -> Mask | None:
        """The mask if it is still here."""
        with self._lock:
            if prompt in self._masks:
                self._masks.move_to_end(prompt)
            return self._masks.get(prompt)

    def put(self, prompt: str, mask: Mask) -> None:
        """Keeps the mask and lets go of those unused for longest."""
        with self._lock:
            self._masks[prompt] = mask
            while len(self._masks) > 1 and self._num_bytes() > self._max_bytes:
                self._masks.popitem(last=False)

    def __len__(self) -> int:
        return len(self._masks)

    def _num_bytes(self) -> int:
        return sum(mask.nbytes for mask in self._masks.values())


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model said about one prompt, on the model's own grid.

    Attributes:
        probability: ``X Y Z`` of the working grid, uint8 0..255 or floating 0..1.
        transform: Brings it back to the scan.
        threshold: Probability from which a voxel belongs to the mask.
        islands: Small pieces of the mask that were left out.
        refine: Takes from the mask on the scan's grid what does not belong to it.
    """

    probability: Tensor
    transform: GridTransform
    threshold: float = 0.5
    islands: int = 0
    refine: Callable[[Mask], Mask] | None = None

    def restored(self) -> Mask:
        """The mask on the scan's grid."""
        mask = self.transform.restore(self.probability, threshold=self.threshold)
        return mask if self.refine is None else self.refine(mask)


@dataclass(frozen=True, eq=False)
class PromptResult:
    """What came of one prompt.

    Attributes:
        prompt: As the user wrote it, or made of what a report states.
        status: ``ok`` means there is a mask; ``not_found``, that the structure is not in the scan.
        volume: The scan.
        resolution: What the prompt was taken to mean.
        presence: The model's probability that the structure is there, 0..1.
        reason: Why there is no mask, as a sentence.
        prediction: Present exactly when the status is ``ok``.
        warnings: Sentences about this prompt's mask.
        said: Where a report says it, if the prompt was made of one.
    """

    prompt: str
    status: Status
    volume: Volume = field(repr=False)
    resolution: Resolution | None = field(default=None, repr=False)
    presence: float | None = None
    reason: str | None = None
    prediction: Prediction | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()
    said: tuple[FindingRecord, ...] = ()
    cache: MaskCache = field(default_factory=MaskCache, repr=False)

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.prediction is not None):
            state = "no" if self.prediction is None else "a"
            raise ValueError(f"{self.prompt!r} is {self.status!r} but has {state} prediction.")

    @property
    def mask(self) -> Mask:
        """Read-only bool array on the scan's grid, in the scan's axis order; empty unless ok."""
        mask = self.cache.get(self.prompt)
        if mask is None:
            mask = self._restored()
            # shared with the cache, so a caller who wants to change it takes a copy
            mask.setflags(write=False)
            self.cache.put(self.prompt, mask)
        return mask

    @cached_property
    def statistics(self) -> Statistics:
        """Volume, intensities and place of the mask; all None if nothing was looked for."""
        if self.status not in {"ok", "not_found"}:
            return unmeasured(presence=self.presence)
        return mask_statistics(self.mask, self.volume, presence=self.presence)

    @cached_property
    def instances(self) -> tuple[InstanceStatistics, ...]:
        """What each connected piece of the mask measures, the largest first."""
        return self.find_instances().statistics

    def find_instances(self, *, least_ml: float = 0.0) -> Instances:
        """A map of the connected pieces of the mask, numbered by size, and their measurements.

        Args:
            least_ml: Smaller pieces are left out.
        """
        return find_instances(self.mask, self.volume.geometry, least_ml=least_ml)

    def record(self) -> PromptRecord:
        """This result as an entry of the manifest, before any file is written."""
        resolution = self.resolution
        return PromptRecord(
            prompt=encodable(self.prompt),
            status=self.status,
            reason=self.reason,
            concepts=resolution.concepts if resolution else (),
            method=resolution.method if resolution else None,
            confidence=resolution.confidence if resolution else None,
            presence=self.presence,
            threshold=self.prediction.threshold if self.prediction else None,
            islands_dropped=self.prediction.islands if self.prediction else None,
            suggestions=resolution.suggestions if resolution else (),
            warnings=(*(resolution.warnings if resolution else ()), *self.warnings),
            said=self.said,
        )

    def _restored(self) -> Mask:
        if self.prediction is None:
            return np.zeros(self.volume.geometry.shape, dtype=np.bool_)
        return self.prediction.restored()


class Segmentation(Mapping[str, PromptResult]):
    """Results by prompt, in the order asked.

    Args:
        volume: The scan.
        results: One for each prompt; of several for the same prompt the last counts.
        run: How they were computed, for the manifest.
        warnings: Sentences about the run as a whole; the scan's own are added.
        max_cached_bytes: How much memory masks on the scan grid may occupy.
    """

    def __init__(
        self,
        volume: Volume,
        results: Iterable[PromptResult],
        *,
        run: RunRecord,
        warnings: Sequence[str] = (),
        max_cached_bytes: int = 512 * 1024**2,
    ) -> None:
        cache = MaskCache(max_cached_bytes)
        self.volume = volume
        self.results: Mapping[str, PromptResult] = MappingProxyType(
            {result.prompt: replace(result, cache=cache) for result in results}
        )
        self.run = run
        self.warnings = (*volume.warnings, *warnings)

    def __getitem__(self, prompt: str) -> PromptResult:
        return self.results[prompt]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        states = ", ".join(f"{result.prompt!r}: {result.status}" for result in self.values())
        return f"Segmentation({{{states}}})"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows of it: the preview, where it can be drawn."""
        try:
            return preview_of(self)
        except ModelError:  # without matplotlib
            return None

    @property
    def geometry(self) -> Geometry:
        """The scan's grid, which every mask is on."""
        return self.volume.geometry

    @cached_property
    def manifest(self) -> Manifest:
        """The record of this run; ``save`` returns it with the files filled in."""
        source, geometry = self.volume.source, self.geometry
        return Manifest(
            software=SoftwareRecord.current(),
            input=InputRecord(
                path=encodable(str(source.path)) if source.path else None,
                format=source.format,
                sha256=source.sha256,
                shape=geometry.shape,
                spacing_mm=geometry.spacing_mm,
                orientation=geometry.orientation,
                modality=self.volume.modality,
                metadata=dict(source.metadata),
            ),
            run=self.run,
            prompts=tuple(result.record() for result in self.values()),
            warnings=self.warnings,
        )

    def save(
        self,
        out: str | PathLike[str],
        *,
        formats: Sequence[str] = ("nifti",),
        stats: bool = True,
        preview: bool = False,
        instances: bool = False,
        least_instance_ml: float = 0.0,
        overwrite: bool = False,
    ) -> Manifest:
        """Writes masks, statistics and preview, then the manifest, and returns the manifest.

        Args:
            out: A folder; or, for a single prompt, a file name such as ``liver.nii.gz``.
            formats: Keys of ``textseg.outputs.formats.FORMATS``.
            stats: Write ``statistics.json``.
            preview: Write ``preview.png`` (needs the ``viewer`` extra).
            instances: Write ``<prompt>_instances.nii.gz``, in which the connected pieces of a mask
                have numbers, the largest 1, and what each measures into ``statistics.json``.
            least_instance_ml: Smaller pieces are no instances.
            overwrite: Replace the result that is there.

        Raises:
            ResourceError: Something is there already (E504), the disk is full (E502) or refuses
                (E503).
            ModelError: A preview was asked for without matplotlib (E403).
        """
        plan = plan_output(
            Path(out),
            list(self),
            formats=formats,
            stats=stats,
            preview=preview,
            instances=instances,
        )
        plan.check(overwrite=overwrite)
        return save_result(self, plan, least_instance_ml=least_instance_ml)
