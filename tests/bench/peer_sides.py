"""The ways from a scan to masks on its own grid that the benchmark of inference compares.

All sides read and prepare the scan as textseg does and run the same network, whose weights are laid
out for the fastest convolutions on every side; what differs is how windows are run and averaged,
and how masks come back. Each side loads before the clock starts, and then hands over one mask after
the other.

A domain has only so many concepts: beyond them their queries begin again, so that any number of
prompts can be asked. Nothing in any side notices that two queries are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TypeAlias

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import Activations, SpatialResample
from torch import Tensor, nn
from torch.nn import functional

from textseg import Segmenter
from textseg.imaging import Grid, GridTransform, read_volume
from textseg.imaging.preparation import Prepared, prepare
from textseg.inference import WindowedPrediction, plan_windows, segment_windows
from textseg.network.queries import build_queries
from textseg.network.weights import Domain

Masks: TypeAlias = Iterator[np.ndarray]
Run: TypeAlias = Callable[[Path], Masks]

QUERIES_AT_ONCE = 256
"""As many as SAT decodes at once."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A model with queries.

    Attributes:
        segmenter: The model in the number format asked for.
        domain: The first one of the model.
        queries: ``K Q``.
    """

    segmenter: Segmenter
    domain: Domain
    queries: Tensor

    @classmethod
    def load(cls, model: str, num_prompts: int, precision: str = "float32") -> Asked:
        segmenter = Segmenter.from_pretrained(model, device="cpu", precision=precision)
        return cls(segmenter, segmenter.manifest.domains[0], asked_queries(segmenter, num_prompts))

    def prepared(self, scan: Path) -> Prepared:
        """The scan as the network takes it."""
        return self.prepare(read_volume(scan, modality="ct"))

    def prepare(self, volume) -> Prepared:
        """The same of a scan that has been read."""
        grid = Grid(self.domain.spacing_mm, self.domain.axes)
        how = self.segmenter.manifest.preparation
        return prepare(volume, grid, how=how, window=self.domain.window)

    def segment(self, prepared: Prepared) -> WindowedPrediction:
        """What textseg's engine says of a prepared scan."""
        return segment_windows(
            self.segmenter.network,
            prepared.data,
            self.queries,
            window=self.domain.window,
            body=prepared.body,
            precision=self.segmenter.precision,
        )

    def logits(self, window: Tensor) -> Tensor:
        """``1 K X Y Z`` of a window ``1 1 X Y Z``."""
        network = self.segmenter.network
        features = network.encode(window)
        chunks = self.queries.split(QUERIES_AT_ONCE)
        found = [network.decode(features, chunk[None]).logits for chunk in chunks]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def asked_queries(segmenter: Segmenter, num_prompts: int) -> Tensor:
    """Queries ``K Q`` of the first domain's concepts in order, over again beyond the last."""
    domain = segmenter.manifest.domains[0]
    concepts = [segmenter.tree[concept] for concept in domain.concepts[:num_prompts]]
    queries = build_queries(concepts, segmenter.encoder, modality="ct")
    return queries[torch.arange(num_prompts) % len(queries)]


def textseg(model: str, num_prompts: int, *, precision: str) -> Run:
    """textseg's engine; like a ``Segmentation``, it keeps the scan as long as there are masks."""
    asked = Asked.load(model, num_prompts, precision)

    def masks(scan: Path) -> Masks:
        volume = read_volume(scan, modality="ct")
        prepared = asked.prepare(volume)
        found = asked.segment(prepared)
        for prompt in range(num_prompts):
            yield prepared.transform.restore(found.probability[prompt])

    return masks


def monai(model: str, num_prompts: int) -> Run:
    """MONAI's inferer, then sigmoid, and each class resampled as a float volume by MONAI.

    Left to itself MONAI raises the small weights of its Gaussian to 0.001, so that where windows
    meet it counts their edges for more than the others do and finds other masks; here it is handed
    the Gaussian as it is, at the same cost.
    """
    asked = Asked.load(model, num_prompts)
    weight = gaussian(asked.domain.window)[None, None]

    def masks(scan: Path) -> Masks:
        prepared = asked.prepared(scan)
        with torch.inference_mode():
            logits = sliding_window_inference(
                prepared.data[None],
                roi_size=asked.domain.window,
                sw_batch_size=1,
                predictor=asked.logits,
                overlap=0.5,
                roi_weight_map=weight,
                cval=float(prepared.data.min()),
            )
            probability = Activations(sigmoid=True)(logits[0]).as_tensor()
            del logits
        target, source = prepared.transform.target, prepared.transform.source
        resample = SpatialResample(mode="bilinear", padding_mode="border", dtype=torch.float32)
        affine, onto = (torch.from_numpy(np.array(g.affine)) for g in (target, source))
        for volume in probability:
            on_scan = resample(
                MetaTensor(volume[None], affine=affine),
                dst_affine=onto,
                spatial_size=source.shape,
            )
            yield (on_scan[0] > 0.5).numpy()

    return masks


def sat_style(model: str, num_prompts: int) -> Run:
    """A loop like SAT's: all windows first, then float totals and weights of each prompt."""
    asked = Asked.load(model, num_prompts)

    def masks(scan: Path) -> Masks:
        prepared = asked.prepared(scan)
        probability = averaged_as_sat(asked, prepared.data)
        for volume in probability:
            yield restored(volume, prepared.transform)

    return masks


@torch.inference_mode()
def averaged_as_sat(asked: Asked, data: Tensor) -> Tensor:
    """Probability ``K X Y Z`` of data ``1 X Y Z``; short axes are padded at their end."""
    window, shape = asked.domain.window, data.shape[1:]
    missing = [max(0, w - n) for w, n in zip(window, shape, strict=True)]
    pads = [pad for n in reversed(missing) for pad in (0, n)]
    padded = functional.pad(data, pads, value=float(data.min()))
    x, y, z = padded.shape[1:]
    boxes = [
        tuple(slice(a, a + n) for a, n in zip(start.tolist(), window, strict=True))
        for start in plan_windows((x, y, z), window)
    ]
    patches = [padded[:, *box][None].clone() for box in boxes]
    weight = gaussian(window)
    total = torch.zeros(len(asked.queries), *padded.shape[1:])
    weights = torch.zeros_like(total)
    for box, patch in zip(boxes, patches, strict=True):
        on_host = asked.logits(patch)[0].sigmoid().float().cpu()
        total[:, *box] += on_host * weight
        weights[:, *box] += weight
    return (total / weights)[:, *(slice(0, n) for n in shape)]


def gaussian(window: tuple[int, int, int]) -> Tensor:
    """How much a window counts at each of its voxels: sigma is an eighth of its side."""
    x, y, z = (torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in window)
    return x[:, None, None] * y[None, :, None] * z


def nnunet(model: str, num_prompts: int) -> Run:
    """nnU-Net's predictor, and its resampling of logits, a class at a time so that they fit.

    Its own export resamples all classes at once. Nothing is mirrored.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    asked = Asked.load(model, num_prompts)
    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    # of plans and labels the predictor reads no more than this
    predictor.configuration_manager = SimpleNamespace(patch_size=asked.domain.window)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=num_prompts)
    predictor.network = _AsNetwork(asked)

    def masks(scan: Path) -> Masks:
        prepared = asked.prepared(scan)
        transform = prepared.transform
        # it pads with 0, and the network's darkest value is another
        low = prepared.data.min()
        predictor.network.offset = low
        logits = predictor.predict_sliding_window_return_logits(prepared.data - low)
        shape, spacing = turned(transform)
        for one in logits:
            resampled = resample_data_or_seg_to_shape(
                one[None],
                shape,
                transform.target.spacing_mm,
                spacing,
                order=1,
                force_separate_z=None,
            )
            probability = torch.sigmoid(torch.from_numpy(resampled[0]).float())
            yield to_scan_axes((probability > 0.5).numpy(), transform)

    return masks


class _AsNetwork(nn.Module):
    """Windows ``1 1 X Y Z`` in, logits ``1 K X Y Z`` out."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self._asked = asked
        self.offset: Tensor | float = 0.0

    def forward(self, window: Tensor) -> Tensor:
        return self._asked.logits(window + self.offset)


def restored(probability: Tensor, transform: GridTransform) -> np.ndarray:
    """The mask on the scan's grid of a float volume, which is interpolated as a whole."""
    shape, _ = turned(transform)
    resized = functional.interpolate(probability[None, None], size=shape, mode="trilinear")
    return to_scan_axes((resized[0, 0] > 0.5).numpy(), transform)


def turned(transform: GridTransform) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Voxels of the scan and their size, its axes in the order of the working grid."""
    source, axes = transform.source, transform.permutation
    return tuple(source.shape[a] for a in axes), tuple(source.spacing_mm[a] for a in axes)


def to_scan_axes(mask: np.ndarray, transform: GridTransform) -> np.ndarray:
    """A mask whose axes are those of the working grid, in the order of the scan's."""
    flipped = np.flip(mask, [axis for axis, flip in enumerate(transform.flips) if flip])
    return flipped.transpose(np.argsort(transform.permutation))


SIDES: Mapping[str, Callable[[str, int], Run]] = MappingProxyType(
    {
        "MONAI": monai,
        "textseg auto": lambda model, num: textseg(model, num, precision="auto"),
        "textseg float32": lambda model, num: textseg(model, num, precision="float32"),
        "SAT-style loop": sat_style,
        "nnU-Net": nnunet,
    }
)
"""Every side by its name; the first is the one that the others are held against."""


def installed_sides() -> tuple[str, ...]:
    """The sides that can run here: nnU-Net is no dependency of textseg."""
    there = find_spec("nnunetv2") is not None
    return tuple(side for side in SIDES if side != "nnU-Net" or there)
