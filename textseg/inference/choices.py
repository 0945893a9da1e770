"""What a caller may choose about a run, and what of it does not go together."""

from __future__ import annotations

from textseg.errors import ModelError
from textseg.inference.localising import Roi
from textseg.network.weights import ModelManifest


def checked_averaging(averaging: str, manifest: ModelManifest, precision: str) -> str:
    """The way to average windows, if the model can.

    Raises:
        ModelError: There is no such way, or it is not for this model or precision.
    """
    if averaging not in ("streamed", "published"):
        raise ModelError(
            f"{averaging!r} is no way to average windows.", remedy="Use streamed or published."
        )
    if averaging == "published" and manifest.preparation != "sat":
        raise ModelError(
            f"the published averaging is that of SAT's weights; {manifest.name} is none of them.",
            remedy="Leave it out.",
        )
    if averaging == "published" and precision == "bfloat16":
        raise ModelError("the published averaging is in float32.", remedy="Leave precision out.")
    return averaging


def checked_roi(roi: Roi) -> Roi:
    """The way to choose a region.

    Raises:
        ModelError: There is no such way.
    """
    if roi not in ("off", "auto"):
        raise ModelError(f"the region is {roi!r}.", remedy="Use off or auto for roi.")
    return roi
