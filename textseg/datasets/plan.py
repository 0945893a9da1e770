"""Proposes a training domain for data sets from their fingerprint, with reasons."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10, prod
from typing import Any, TypeAlias

import torch

from textseg.datasets.fingerprint import Facts, Fingerprint
from textseg.errors import ModelError, ResourceError
from textseg.knowledge import KnowledgeTree, load_user_tree
from textseg.network.model import NetworkConfig, PromptedSegmenter

Sizes: TypeAlias = tuple[float, float, float]
Window: TypeAlias = tuple[int, int, int]

LEAST_VOXELS = 8
"""Voxels a small case (10th percentile) of every concept has on the grid."""
LEAST_SIDE = 32
MOST_VOXELS = 160**3
"""Voxels of the largest window."""
MOST_CROPS = 8
"""Crops of the largest batch."""
COARSE = 3.0
"""An axis that is this many times coarser than both others is thick-sliced."""

_USED = 0.75  # of the memory; the estimate is no better than that
_AXES = ("left-right", "back-front", "feet-head")

# Fitted to the measurements that StepCost speaks of.
_BYTES_PER_FEATURE = 10
_BYTES_PER_LIGHT_FEATURE = 2
_BYTES_PER_LOGIT = 60
_BYTES_PER_PARAMETER = 16  # weight, gradient and the two moments of AdamW, in float32
_BYTES_ANYWAY = 100_000_000
_PRESENT_PROMPTS, _ABSENT_PROMPTS = 20, 4  # of a crop, whose own masks are trained


@dataclass(frozen=True, slots=True)
class Choice:
    """One proposal.

    Attributes:
        key: What is chosen; for a domain, the key of its configuration.
        value: Ready for JSON.
        reason: Why, in one sentence.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A domain to train, and what it takes.

    Attributes:
        name: Name of the domain.
        datasets: Its data sets.
        choices: The other keys of the domain that are proposed.
        estimates: ``memory_bytes`` of a training step and ``disk_bytes`` of the prepared cases.
    """

    name: str
    datasets: tuple[str, ...]
    choices: tuple[Choice, ...]
    estimates: tuple[Choice, ...]

    @property
    def domain(self) -> dict[str, Any]:
        """The entry for ``data.domains`` of a training configuration."""
        chosen = {choice.key: choice.value for choice in self.choices}
        return {"name": self.name, "datasets": list(self.datasets), **chosen}

    def to_yaml(self) -> str:
        """A training configuration of this one domain, each choice below its reason."""
        lines = [
            "# Proposed by `textseg data plan`; give it after a configuration, or paste the entry."
        ]
        for estimate in self.estimates:
            lines += _comment(f"{estimate.key}: {estimate.value:,}; {estimate.reason}", indent=0)
        lines += ["data:", "  domains:", f"    - name: {json.dumps(self.name)}"]
        lines += [f"      datasets: {json.dumps(self.datasets)}"]
        for choice in self.choices:
            lines += _comment(choice.reason, indent=6)
            lines.append(f"      {choice.key}: {json.dumps(choice.value)}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class StepCost:
    """Memory of one training step, an estimate: ``fixed + per_voxel * voxels`` of all its crops.

    It counts the feature maps a network keeps for its gradient, the logits of its losses, and the
    parameters with gradients and moments. The bytes of each were fitted to the growth of the
    resident memory of a CPU process over two steps in bfloat16 autocast: the network of
    ``configs/train/nano.yaml`` with 32^3 to 64^3 voxels, one or three crops and 10 or 60 concepts,
    a tiny one, a wider plain U-Net, and nano with ``multiscale`` fusion, 99 to 954 MB in all. The
    estimate lies within 13 % of these 14, to which it was fitted; in float32 two steps took up to
    half as much again as it says. Swin backbones, a full last decoder stage, GPUs and larger crops
    were not measured.

    Attributes:
        fixed: Bytes whatever the crops.
        per_voxel: Bytes per voxel of a crop.
        stride: Sides of a crop are multiples of this.
    """

    fixed: int
    per_voxel: float
    stride: int

    def bytes(self, voxels: int) -> int:
        """Bytes of a step with so many voxels."""
        return round(self.fixed + self.per_voxel * voxels)


def step_cost(config: NetworkConfig, *, num_concepts: int) -> StepCost:
    """What a step of a network takes; it is laid out without its weights.

    Raises:
        ModelError: The network cannot be built.
    """
    with torch.device("meta"):
        network = PromptedSegmenter(config)
    prompts = min(num_concepts, _PRESENT_PROMPTS) + _ABSENT_PROMPTS
    backbone, levels = config.backbone, range(len(config.backbone.channels) - 1)
    encoded = sum(
        width * blocks * (2 if backbone.kind == "residual_unet" and level else 1) / 8**level
        for level, (width, blocks) in enumerate(
            zip(backbone.channels, backbone.blocks, strict=True)
        )
    )
    outputs = network.pixel_decoder.channels
    steered = config.fusion == "multiscale"
    decoded = [
        (2 * backbone.channels[k] + outputs[k] * config.decoder_blocks) / 8**k for k in levels
    ]
    light = 0
    if config.light_full_resolution:
        # late fusion trains the light stage on a small block alone
        decoded[0], light = 0, 2 * config.full_channels * steered
    if steered:
        extra = sum(config.prompt_maps / 8**k for k in levels if k)
        features, logits = encoded + prompts * (sum(decoded) + extra), float(prompts)
    else:
        features, logits = encoded + sum(decoded), (num_concepts + 1 + prompts) / 8
    parameters = sum(weight.numel() for weight in network.parameters())
    return StepCost(
        fixed=_BYTES_ANYWAY + _BYTES_PER_PARAMETER * parameters,
        per_voxel=_BYTES_PER_FEATURE * features
        + _BYTES_PER_LIGHT_FEATURE * light * prompts
        + _BYTES_PER_LOGIT * logits,
        stride=network.granularity,
    )


def plan(fingerprint: Fingerprint, *, network: NetworkConfig, memory_bytes: int, name: str) -> Plan:
    """A domain for the data sets of a fingerprint.

    Spacing and batch follow Isensee et al. 2021 ("nnU-Net").

    Args:
        fingerprint: Of data sets of one modality.
        network: What will be trained.
        memory_bytes: Memory there is for a training step.
        name: Name of the domain.

    Raises:
        ModelError: E406, the cases are of several modalities, or hold no labelled voxel.
        ResourceError: E501, the memory is too small for the smallest window.
    """
    facts, tree = fingerprint.total, load_user_tree()
    there = [concept for concept, held in facts.concepts.items() if held.present]
    if not there:
        raise ModelError(
            "no case has a voxel of a concept; there is nothing to train.", code="E406"
        )
    modality = _modality(facts)
    cost = step_cost(network, num_concepts=len(there))
    spacing = _spacing(facts)
    voxels = round(facts.scanned_ml * 1000 / prod(spacing.value))
    window = _window(facts, spacing.value, cost, memory_bytes=memory_bytes)
    batch = _batch(prod(window.value), voxels, cost, memory_bytes=memory_bytes)
    step = prod(window.value) * batch.value
    return Plan(
        name=name,
        datasets=tuple(fingerprint.datasets),
        choices=(
            modality,
            *_channels(facts),
            spacing,
            window,
            batch,
            _real(facts),
            _mirror(there, tree),
            _held_out(facts),
        ),
        estimates=(
            Choice(
                "memory_bytes",
                cost.bytes(step),
                f"an estimate for a training step in bfloat16 of {step:,} voxels, of "
                f"{_gb(memory_bytes)} there are; in float32 up to half as much again.",
            ),
            Choice(
                "disk_bytes",
                (2 * max(1, len(facts.channels)) + 1) * voxels,
                f"an estimate for the prepared cases ({facts.cases}), {voxels:,} voxels in all, "
                f"2 bytes of {'each channel' if facts.channels else 'image'} and 1 of labels each.",
            ),
        ),
    )


def _modality(facts: Facts) -> Choice:
    if len(facts.modalities) > 1:
        listed = ", ".join(f"{sum(n.values())} {name}" for name, n in facts.modalities.items())
        raise ModelError(
            f"the cases are of several modalities ({listed}), a domain is of one.",
            code="E406",
            remedy="Plan the data sets of each modality apart.",
        )
    name, sequences = next(iter(facts.modalities.items()))
    named = ", ".join(f"{count} {sequence}" for sequence, count in sequences.items() if sequence)
    reason = f"every case is {name}" + (f" ({named})" if named else "") + "."
    return Choice("modality", name, reason)


def _channels(facts: Facts) -> list[Choice]:
    """The channels of the scans, if they have several, in the order of their first appearance."""
    if not facts.channels:
        return []
    told = ", ".join(f"{count} {name}" for name, count in facts.channels.items())
    reason = f"the scans have named channels ({told} of {facts.cases}); give the network the same."
    return [Choice("channels", list(facts.channels), reason)]


def _spacing(facts: Facts) -> Choice:
    """The median spacing, thick slices aside, and fine enough for the smallest concept."""
    spacing = [axis.median for axis in facts.spacing_mm]
    reason = f"the median over the cases ({facts.cases}) is {_times(spacing)} mm"
    thick = max(range(3), key=lambda axis: spacing[axis])
    others = max(spacing[axis] for axis in range(3) if axis != thick)
    if spacing[thick] > COARSE * others:
        spacing[thick] = max(facts.spacing_mm[thick].p10, others)
        reason += (
            f"; {_AXES[thick]} is more than {COARSE:g} times coarser than the others, so that its "
            f"10th percentile stands for it, {spacing[thick]:.3g} mm"
        )
    spacing = [_two_digits(size) for size in spacing]
    small = {i: held.volume_ml.p10 for i, held in facts.concepts.items() if held.volume_ml}
    smallest = min(small, key=small.__getitem__)
    volume_mm3 = 1000 * small[smallest]
    if prod(spacing) * LEAST_VOXELS > volume_mm3:
        reason += (
            f"; {smallest} decides: its 10th percentile of {volume_mm3:.3g} mm3 would have "
            f"{volume_mm3 / prod(spacing):.2g} voxels there, and has {LEAST_VOXELS} or more here."
        )
        levelled = _levelled(spacing, volume_mm3 / LEAST_VOXELS)
        spacing = [_two_digits(size, down=True) for size in levelled]
    else:
        reason += (
            f"; even of the smallest concept, {smallest}, the 10th percentile has "
            f"{volume_mm3 / prod(spacing):,.0f} voxels."
        )
    return Choice("spacing_mm", spacing, reason)


def _levelled(spacing: Sequence[float], voxel_mm3: float) -> list[float]:
    """The spacing with its coarsest axes made finer, to a voxel of this size.

    >>> _levelled([0.5, 1.0, 4.0], 1.0)
    [0.5, 1.0, 2.0]
    >>> _levelled([0.5, 2.0, 4.0], 0.5)
    [0.5, 1.0, 1.0]
    """
    ordered = sorted(spacing)
    ceiling = inf
    for kept in (2, 1, 0):
        ceiling = (voxel_mm3 / prod(ordered[:kept])) ** (1 / (3 - kept))
        if kept == 0 or ceiling >= ordered[kept - 1]:
            break
    return [min(size, ceiling) for size in spacing]


def _window(facts: Facts, spacing: Sequence[float], cost: StepCost, *, memory_bytes: int) -> Choice:
    """The field of view, made smaller along its relatively longest axis until it fits."""
    view = [axis.median / mm for axis, mm in zip(facts.field_of_view_mm, spacing, strict=True)]
    # instance normalisation refuses a coarsest map of one voxel
    least = cost.stride * max(2, ceil(LEAST_SIDE / cost.stride))
    # half a voxel less, or a rounding of the field of view would cost a whole stride
    whole = [max(least, cost.stride * ceil((size - 0.5) / cost.stride)) for size in view]
    allowed = floor((_USED * memory_bytes - cost.fixed) / cost.per_voxel)
    if allowed < least**3:
        raise ResourceError(
            f"a training step with the smallest window, {least} voxels each way, takes about "
            f"{_gb(cost.bytes(least**3))}; that is more than {_USED:.0%} of {_gb(memory_bytes)}.",
            code="E501",
            remedy="Choose a smaller --network, or say with --memory-gb what there is.",
        )
    window = list(whole)
    while prod(window) > min(MOST_VOXELS, allowed):
        free = [axis for axis in range(3) if window[axis] > least]
        longest = max(free, key=lambda axis: window[axis] / view[axis])
        window[longest] -= cost.stride
    reason = f"the median field of view has {_times(view)} voxels, sides are multiples of "
    reason += f"{cost.stride}"
    if window == whole:
        reason += ", and all of it fits."
    elif allowed < MOST_VOXELS:
        reason += f", and about {allowed:,} voxels fit into {_USED:.0%} of {_gb(memory_bytes)}."
    else:
        reason += f", and {MOST_VOXELS:,} voxels are enough for a window."
    return Choice("window", window, reason)


def _batch(window: int, voxels: int, cost: StepCost, *, memory_bytes: int) -> Choice:
    """Crops per step."""
    fits = floor((_USED * memory_bytes - cost.fixed) / cost.per_voxel / window)
    useful = min(MOST_CROPS, 2 * MOST_VOXELS // window)
    rare = 0.05 * voxels / window
    crops = 1 if fits < 2 else max(2, min(fits, useful, floor(rare)))
    return Choice(
        "batch",
        crops,
        f"memory is enough for {fits} crops, {useful} are useful, and 5 % of the "
        f"cases' voxels fill {rare:.1f}; two are the least where they fit.",
    )


def _real(facts: Facts) -> Choice:
    if facts.images == facts.cases:
        return Choice("real", 1.0, "every case has a scan; none need be synthesised.")
    reason = f"{facts.cases - facts.images} of {facts.cases} cases are label maps without a scan."
    return Choice("real", 0.5, reason)


def _mirror(concepts: Sequence[str], tree: KnowledgeTree) -> Choice:
    sided = [concept for concept in concepts if tree[concept].side is not None]
    # a middle lobe, say, has no counterpart at all, which is no reason against mirroring
    others = {concept: tree.counterpart(concept) for concept in sided}
    alone = [concept for concept, other in others.items() if other and other not in concepts]
    if alone:
        reason = (
            f"{len(alone)} of {len(sided)} concepts with a side are labelled on that side alone, "
            f"such as {alone[0]}."
        )
        return Choice("mirror", 0.0, reason)
    if not sided:
        return Choice("mirror", 0.5, "no concept has a side.")
    reason = f"of all concepts with a side ({len(sided)}) the other side is labelled, too."
    return Choice("mirror", 0.5, reason)


def _held_out(facts: Facts) -> Choice:
    """Every n-th case for validation: a fifth of them, at most about twenty."""
    key = "hold_out_every"
    if facts.images < 2:
        return Choice(key, 0, "fewer than two cases have a scan.")
    every = max(5, ceil(facts.cases / 20))
    kept = ceil(facts.cases / every)
    reason = f"{kept} of the cases ({facts.cases}) are for validation, if they have a scan"
    if max(map(len, facts.modalities.values())) > 1:
        reason += "; the sequences of a patient stay together"
    return Choice(key, every, f"{reason}.")


def _two_digits(value: float, *, down: bool = False) -> float:
    """Rounded to two significant digits.

    >>> _two_digits(0.8789), _two_digits(0.8789, down=True), _two_digits(12.6)
    (0.88, 0.87, 13.0)
    """
    digits = 1 - floor(log10(value))
    scaled = value * 10.0**digits
    # a tiny bit more, or 0.7 would go down to 0.69
    whole = floor(scaled + 1e-6) if down else round(scaled)
    return float(round(whole / 10.0**digits, digits))


def _times(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes)


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


def _comment(text: str, *, indent: int) -> list[str]:
    mark = f"{' ' * indent}# "
    return textwrap.wrap(text, 100, initial_indent=mark, subsequent_indent=mark)
