"""Text-prompted 3D medical image segmentation: a scan and a phrase in, a mask out.

    from textseg import Segmenter

    segmenter = Segmenter.from_pretrained("nano")
    result = segmenter("scan.nii.gz", ["liver", "left kidney"])
    result["liver"].mask            # bool array on the scan's own grid
    result.save("out/")

Names load on first use, so that importing textseg costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textseg.errors import (
        Cancelled,
        InputError,
        ModelError,
        PromptError,
        ResourceError,
        TextsegError,
    )
    from textseg.imaging import Volume, read_volume
    from textseg.knowledge import KnowledgeTree, load_tree
    from textseg.outputs.segmentation import PromptResult, Segmentation
    from textseg.prompts import resolve
    from textseg.segmenter import Segmenter

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "InputError",
    "KnowledgeTree",
    "ModelError",
    "PromptError",
    "PromptResult",
    "ResourceError",
    "Segmentation",
    "Segmenter",
    "TextsegError",
    "Volume",
    "load_tree",
    "read_volume",
    "resolve",
]

_HOMES = {
    "textseg.errors": {
        "Cancelled",
        "InputError",
        "ModelError",
        "PromptError",
        "ResourceError",
        "TextsegError",
    },
    "textseg.imaging": {"Volume", "read_volume"},
    "textseg.knowledge": {"KnowledgeTree", "load_tree"},
    "textseg.outputs.segmentation": {"PromptResult", "Segmentation"},
    "textseg.prompts": {"resolve"},
    "textseg.segmenter": {"Segmenter"},
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'textseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
