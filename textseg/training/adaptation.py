"""What a fine-tune trains: parts of the network in full, others by low-rank updates."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from textseg.errors import ModelError
from textseg.network.model import PromptedSegmenter

logger = logging.getLogger(__name__)

PARTS: dict[str, tuple[str, ...]] = {
    "backbone": ("stand_ins", "backbone"),
    "report": ("report_fusion",),
    "pixel_decoder": ("pixel_decoder",),
    "query_decoder": ("token_pool", "query_projection", "query_decoder"),
    "heads": ("mask_heads", "shortcuts", "prompt_heads", "presence_head", "evidence"),
}
"""Parts of a network that can be trained or not, by the members of ``PromptedSegmenter``."""


@dataclass(frozen=True)
class AdaptationConfig:
    """Which parts of a network a fine-tune changes; the others stay as they are.

    Attributes:
        train: Parts that are trained in full: ``backbone``, ``report``, ``pixel_decoder``,
            ``query_decoder``, ``heads``, or ``all``.
        lora_rank: Rank of the updates of ``lora_on``.
        lora_alpha: Updates are scaled by this number over the rank.
        lora_on: Parts whose linear layers, attention projections and convolutions are trained by
            low-rank updates alone.
    """

    train: list[str] = field(default_factory=lambda: ["all"])
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_on: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise ModelError("; ".join(faults) + ".", remedy=f"The parts are {', '.join(PARTS)}.")

    def _faults(self) -> Iterator[str]:
        """What is wrong with the settings, in words."""
        unknown = sorted({*self.train, *self.lora_on} - {*PARTS, "all"})
        if unknown:
            yield f"there is no part {', '.join(map(repr, unknown))}"
        if not self.train and not self.lora_on:
            yield "`train` and `lora_on` are both empty, so nothing would be trained"
        if self.lora_rank < 0 or bool(self.lora_rank) != bool(self.lora_on):
            yield (
                f"`lora_rank` {self.lora_rank} does not go with `lora_on` {self.lora_on}: "
                "give both, or neither"
            )
        both = sorted(_parts(self.train) & _parts(self.lora_on))
        if both:
            yield f"{', '.join(both)} cannot be in both `train` and `lora_on`"


class LowRank(nn.Module):
    """A weight plus ``alpha / rank * up @ down``, zero at first (Hu et al. 2022, LoRA).

    The weight of a convolution counts as a matrix of its first axis by all others. For ``Conv3d``
    the update is that of a convolution to ``rank`` channels and one of size 1 after it. The three
    projections of an attention layer, stacked in one weight, share ``down``.

    Args:
        weight: The weight to update.
        rank: Rank of the update.
        alpha: Scale of the update, times the rank.
    """

    def __init__(self, weight: Tensor, *, rank: int, alpha: float) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.scale = alpha / rank
        self.down = nn.Parameter(matrix.new_empty(rank, matrix.shape[1]))
        self.up = nn.Parameter(matrix.new_zeros(matrix.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The updated weight, in the weight's own shape and precision."""
        # as exact as the weights that are published once the update is added in
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.up @ self.down).view_as(weight)


def adapt(network: PromptedSegmenter, config: AdaptationConfig) -> None:
    """Freezes what is not trained and adds the low-rank updates; in place.

    The network answers as before until it is trained. Its normalisations keep no running
    statistics, so a frozen part stays exactly as it is. Load weights of a model before this, those
    of an adapted network's checkpoint after it.
    """
    trained, updated = _parts(config.train), _parts(config.lora_on)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_part_of(name) in trained)
    for name, child in network.named_children():
        for module in list(child.modules()) if _part_of(name) in updated else []:
            weight_name = _weight_name(module)
            if weight_name is not None:
                weight = getattr(module, weight_name)
                update = LowRank(weight, rank=config.lora_rank, alpha=config.lora_alpha)
                parametrize.register_parametrization(module, weight_name, update)
    parameters = list(network.parameters())
    count = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    logger.info("training %s of %s weights", f"{count:,}", f"{total:,}")


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """State of the network as it was before ``adapt``, with the low-rank updates added in."""
    state = {k: v for k, v in network.state_dict().items() if ".parametrizations." not in k}
    for path, module in network.named_modules():
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:
                state[f"{path}.{name}"] = getattr(module, name).detach()
    return state


def _parts(names: Collection[str]) -> set[str]:
    """The parts that names stand for."""
    return set(PARTS) if "all" in names else set(names)


def _part_of(name: str) -> str:
    """Part to which a parameter or member of the network belongs."""
    member = name.partition(".")[0]
    return next(part for part, members in PARTS.items() if member in members)


def _weight_name(module: nn.Module) -> str | None:
    """Name of the weight that gets a low-rank update, if one does."""
    if isinstance(module, nn.MultiheadAttention):
        return "in_proj_weight"
    if isinstance(module, (nn.Linear, nn.Conv3d, nn.ConvTranspose3d)):
        return "weight"
    return None
