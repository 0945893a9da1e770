"""A model of many data sets beside a plain U-Net of one: Dice on held-out hippocampus crops.

Run as ``python tests/hippocampus.py CASES``, with the case list of ``configs/train/nano.yaml``. The
U-Net (MONAI's) is trained here, on the crops that the mixture drew from the same data set: the same
cases, augmentation, window and number of steps. Both are scored on the crops that neither saw.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

from textseg import Segmenter
from textseg.datasets import load_cases, read_label_map
from textseg.imaging import Grid, normalise_intensity, to_grid
from textseg.knowledge import load_tree
from textseg.training.aggregation import mean_with_interval
from textseg.training.cli import _instantiated, _settings
from textseg.training.datamodule import domain_space, training_cases, validation_cases
from textseg.training.domain_labels import DomainLabels
from textseg.training.metrics import dice
from textseg.training.objectives import OptimiserConfig, rate_factor
from textseg.training.sampling import DomainSampler
from textseg.training.training_case import load_case

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "train" / "nano.yaml"
DOMAIN = "hippocampus-mr"
PARTS = {
    "hippocampus.anterior": "anterior hippocampus",
    "hippocampus.posterior": "posterior hippocampus",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", metavar="CASES", type=Path, help="case list")
    parser.add_argument("--model", default="nano", help="the model of many data sets")
    parser.add_argument("--config", type=Path, default=CONFIG, help="its configuration")
    parser.add_argument("--steps", type=int, default=2000, help="steps of the U-Net, 4 crops each")
    given = parser.parse_args()

    # it warns of the words that this script was started with
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")
    domain = next(
        d
        for d in _instantiated(_settings(given.config), None).datamodule.domains
        if d.name == DOMAIN
    )
    cases = load_cases(given.cases)
    held_out = validation_cases(domain, cases)
    network, seconds = train_unet(domain, training_cases(domain, cases), given.steps)
    rows = {
        f"MONAI U-Net, this data set alone, {given.steps} steps in {seconds / 60:.0f} min": [
            score(case, unet_masks(network, case, domain)) for case in held_out
        ]
    }
    segmenter = Segmenter.from_pretrained(given.model, device="cpu")
    rows[f"{segmenter.manifest.name} {segmenter.manifest.version}, a mixture"] = [
        score(case, segmenter_masks(segmenter, case)) for case in held_out
    ]
    names = " | ".join(PARTS.values())
    sys.stdout.write(f"Dice on {len(held_out)} held-out crops, with 95 % intervals\n\n")
    sys.stdout.write(f"| | {names} |\n|---|---|---|\n")
    for name, dices in rows.items():
        sys.stdout.write(f"| {name} | {' | '.join(intervals(dices))} |\n")


def train_unet(domain, cases, steps):
    """A U-Net of 1.2 million weights after some steps, and how long they took."""
    space = domain_space(domain, cases, load_tree())
    labels = DomainLabels.of(cases, space)
    sampler = DomainSampler(
        domain, index=0, labels=labels, cases=[load_case(c, labels) for c in cases]
    )
    torch.manual_seed(0)
    network = UNet(3, 1, len(labels.labels) + 1, (16, 32, 64, 128), (2, 2, 2), num_res_units=2)
    network = network.to(memory_format=torch.channels_last_3d)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    config = OptimiserConfig(lr=2e-3, warmup_steps=100, decay_fraction=0.8)
    started = time.perf_counter()
    for step in range(steps):
        batch = sampler.draw(step, torch.Generator().manual_seed(step))
        image = batch.image.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(image)
        loss = loss_of(logits.float(), batch.labels.clamp(min=0)[:, None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] = config.lr * rate_factor(step + 1, total=steps, config=config)
    return network.eval(), time.perf_counter() - started


def unet_masks(network, case, domain):
    """Masks of the parts on the crop's own grid."""
    scan = case.read_image()
    data, transform = to_grid(scan, Grid(domain.grid_mm))
    with torch.no_grad():
        logits = sliding_window_inference(
            normalise_intensity(data, case.modality)[None],
            domain.window,
            1,
            network,
            overlap=0.5,
            mode="gaussian",
            padding_mode="constant",
            cval=-1.0,
        )
    probability = logits.softmax(1)[0]
    return {
        concept: transform.restore(probability[row]) for row, concept in enumerate(PARTS, start=1)
    }


def segmenter_masks(segmenter, case):
    """The same of a model that is asked by name."""
    result = segmenter(case.read_image(), list(PARTS.values()))
    return {concept: result[name].mask for concept, name in PARTS.items()}


def score(case, masks):
    """Dice of each part of a crop."""
    seen, labels = read_label_map(case)
    return {
        concept: dice(masks[concept], np.isin(labels.values, seen.values(concept)))
        for concept in PARTS
    }


def intervals(dices):
    """Mean of each part and its interval."""
    for concept in PARTS:
        values = [(str(k), row[concept]) for k, row in enumerate(dices)]
        found = mean_with_interval(values, generator=np.random.default_rng(0))
        yield f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    main()
