"""Three scans of two channels with reports, in the layout of TextBraTS, and a network for them."""

from __future__ import annotations

import json

import numpy as np
from fakes import contrast, ellipsoid, tiny_network, write_nifti

from textseg.network.backbones import BackboneConfig
from textseg.network.report_encoder import ReportEncoderConfig
from textseg.network.report_fusion import ReportConfig
from textseg.training.sampling import DomainConfig

SHAPE, SPACING = (26, 24, 18), (4.0, 4.5, 5.0)
CHANNELS = ("flair", "t1ce")
WORDS = ReportEncoderConfig(features=16)
REPORTS = {
    "a": "Mass in the left frontal lobe.",
    "b": "Mass in the right frontal lobe with edema.",
    "c": "Left temporal tumor.",
}


def network(**changes):
    return tiny_network(
        **{
            "backbone": BackboneConfig(in_channels=2, channels=(4, 8, 8), blocks=(1, 1, 1)),
            "channels": CHANNELS,
            "report": ReportConfig(
                token_features=16, width=12, heads=2, hidden=16, layers=1, context_layers=1
            ),
            **changes,
        }
    )


def domain(**changes):
    settings = {
        "name": "tumor",
        "datasets": ["two"],
        "modality": "mr",
        "spacing_mm": 5.0,
        "window": (16, 16, 12),
        "real": 1.0,
        "channels": list(CHANNELS),
    }
    return DomainConfig(**{**settings, **changes})


def tumor_mask(side):
    values = np.zeros(SHAPE, np.int16)
    x = 0.3 if side == "left" else 0.7
    for value, radius in ((2, 0.25), (4, 0.17), (1, 0.09)):
        values[ellipsoid(SHAPE, (x, 0.5, 0.5), (radius, radius, 1.4 * radius))] = value
    return values


def write_textbrats(root):
    """Three cases with two channels each; the last is for validation."""
    entries = []
    for number, (name, text) in enumerate(REPORTS.items()):
        values = tumor_mask("right" if "right" in text else "left")
        for place, channel in enumerate(CHANNELS):
            image = contrast(values, seed=10 * number + place)
            write_nifti(root / name / f"{name}_{channel}.nii.gz", image, SPACING)
        write_nifti(root / name / f"{name}_seg.nii.gz", values, SPACING)
        (root / name / f"{name}_text.txt").write_text(text)
        entries.append(
            {
                "fold": 0 if name == "c" else 1,
                "image": [f"{name}/{name}_{channel}.nii.gz" for channel in CHANNELS],
                "label": f"{name}/{name}_seg.nii.gz",
                "report": f"{name}/{name}_text.txt",
            }
        )
    (root / "Train.json").write_text(json.dumps({"training": entries}))
