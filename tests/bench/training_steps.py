"""A training step on a crop: textseg's, and a plain one of MONAI with about as many weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet, UNet
from torch import Tensor, nn

from tests.bench.phantom_scans import STRUCTURES
from textseg.network.layers import channels_last
from textseg.network.model import NetworkConfig
from textseg.network.queries import build_queries
from textseg.training.encoders import named_encoder
from textseg.training.sampling import Batch, DomainSampler
from textseg.training.segmentation_task import DomainPrompts, SegmentationTask

NANO = Path(__file__).resolve().parents[2] / "configs" / "train" / "nano.yaml"
NETWORKS = ("UNet", "DynUNet")

Step = Callable[[], None]


def textseg_task(sampler: DomainSampler, batch: Batch) -> SegmentationTask:
    """The network that ``configs/train/nano.yaml`` trains, with the prompts of a sampler."""
    settings = yaml.safe_load(NANO.read_text(encoding="utf-8"))["model"]["network"]
    task = SegmentationTask(NetworkConfig(**settings))
    channels_last(task.network)
    labels = sampler.labels
    concepts = [labels.space.tree[prompt] for prompt in labels.prompts]
    queries = build_queries(concepts, named_encoder("nano"), modality=batch.modality)
    task.network.whiten(queries)
    task.set_domains([DomainPrompts({batch.modality: queries}, labels)])
    return task


def monai_net(name: str) -> nn.Module:
    """One of ``NETWORKS``, with a channel per structure and as many weights as textseg's.

    ``UNet`` is as MONAI's defaults have it, whose first layer halves the resolution; ``DynUNet``
    has the layers of nnU-Net.
    """
    channels = STRUCTURES + 1
    if name == "UNet":
        return UNet(3, 1, channels, channels=(32, 64, 128, 256, 448), strides=(2, 2, 2, 2))
    strides = [1, 2, 2, 2, 2]
    filters = (32, 64, 128, 160, 192)
    return DynUNet(3, 1, channels, [3] * 5, strides, strides[1:], filters=filters)


def textseg_step(task: SegmentationTask, batch: Batch) -> Step:
    """A step in bfloat16, as the configuration has it."""
    return _step(
        task, lambda: torch.stack(list(task.losses(batch).values())).sum(), precision="bfloat16"
    )


def monai_step(network: nn.Module, batch: Batch, *, precision: str) -> Step:
    """A step with softmax Dice and cross-entropy at full resolution.

    In bfloat16 the image stays contiguous: channels last is slower with this network and loss.
    """
    labels = batch.labels[:, None].clamp(min=0)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True)
    return _step(
        network, lambda: criterion(network(batch.image).float(), labels), precision=precision
    )


def _step(module: nn.Module, forward: Callable[[], Tensor], *, precision: str) -> Step:
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward()
        loss.backward()
        optimiser.step()
        assert torch.isfinite(loss.detach())

    return step


def num_weights(module: nn.Module) -> int:
    """Trained numbers of a network."""
    return sum(parameter.numel() for parameter in module.parameters())
