"""Label maps of phantom brains in files, with a case list that names them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml

from textseg.training.tumors.heads import FLUID, phantom_head

UNNAMED = 99


def write_brains(folder: Path, *, count: int) -> Path:
    """A case list of brains in left-posterior-superior order, fluid around them."""
    (folder / "maps").mkdir(parents=True)
    (folder / "datasets").mkdir()
    entries = []
    for number in range(count):
        values, concepts = brain_values(seed=number)
        data = values[::-1, ::-1]
        image = nib.Nifti1Image(data, np.diag([-2.0, -2.0, 2.0, 1.0]))
        nib.save(image, folder / "maps" / f"{number}.nii.gz")
        table = {value: [concept] for value, concept in enumerate(concepts, start=1)}
        entries.append(
            {
                "id": f"brain{number}",
                "dataset": "brains",
                "split": "train",
                "modality": "MR",
                "image": None,
                "label": f"maps/{number}.nii.gz",
                "labels": {value: names[0] for value, names in table.items()},
                "concepts": table,
                "unnamed_values": [UNNAMED],
            }
        )
    description = {
        "name": "brains",
        "title": "Brains",
        "modality": {"mr": []},
        "region": "brain",
        "folder": "maps",
        "labels": {value: names[0] for value, names in table.items()},
        "complete": "all",
        "licence": "CC0-1.0",
        "citation": "Nobody 2020.",
        "homepage": "https://example.org",
    }
    (folder / "datasets" / "brains.yaml").write_text(yaml.safe_dump(description))
    (folder / "cases.json").write_text(json.dumps(entries))
    return folder / "cases.json"


def brain_values(*, seed: int):
    """Values ``X Y Z`` and their concepts: a phantom with fluid around it and two oddities.

    White matter on the left has a part without a name, and a hole, the only voxel that is 0.
    """
    head = phantom_head(torch.Generator().manual_seed(seed))
    values = np.pad(head.values.numpy(), 6)
    concepts = (*head.concepts, FLUID)
    values[values == 0] = len(concepts)
    white = np.argwhere(values == concepts.index("cerebral_white_matter.left") + 1)
    inside = white[np.abs(white - np.median(white, axis=0)).sum(axis=1).argmin()]
    x, y, z = inside
    values[x, y, z : z + 2] = UNNAMED
    values[x - 3, y, z] = 0
    return values, concepts
