"""SAT's files with every name and shape of the real ones, in a few kilobytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.sat.filled import Kind, canonical, state_shapes


def published(kind: Kind, *, deep: bool = True) -> dict[str, Tensor]:
    """Weights of the real shapes of which each stores one number, its own."""
    shapes = state_shapes(kind, deep)
    numbers = {name: n for n, name in enumerate(dict.fromkeys(map(canonical, shapes)))}
    return {
        name: torch.arange(shape[-1]).expand(shape)
        if name.endswith("position_ids")
        else torch.tensor(float(numbers[canonical(name)])).expand(shape)
        for name, shape in shapes.items()
    }


def save(path: Path, state: Mapping[str, Tensor], *, step: int) -> None:
    """Writes a checkpoint as SAT's training does, with a learning rate that numpy worked out."""
    content = {"step": step, "model_state_dict": OrderedDict(state)}
    if any("transformer_decoder" in name for name in state):
        content["optimizer_state_dict"] = {"param_groups": [{"lr": np.float64(1e-4)}]}
    torch.save(content, path)


def pieces() -> list[str]:
    return ["<s>", "<pad>", "</s>", "[UNK]", "[CLS]", "[SEP]"] + [f"##{n}" for n in range(30521)]


def save_pieces(path: Path) -> None:
    """Writes a vocabulary of the size of the real one."""
    path.write_text("\n".join(pieces()) + "\n", encoding="utf-8")
