"""A network that has a report in hand."""

from __future__ import annotations

from torch import Tensor

from textseg.network.model import Decoded, Features, PromptedSegmenter
from textseg.network.report_tokens import ReportTokens


class Conditioned:
    """A network and the report of one scan: every window is read with it.

    It is a ``textseg.inference.window_model.WindowModel``.

    Args:
        network: One that reads reports.
        report: Of a single scan, ``1 T F``.
    """

    def __init__(self, network: PromptedSegmenter, report: ReportTokens) -> None:
        self.network = network
        self.report = report

    @property
    def granularity(self) -> int:
        """Window sizes must be multiples of this many voxels."""
        return self.network.granularity

    @property
    def activations_per_voxel(self) -> int:
        """Numbers held at once for each voxel of a window, at most, when it is encoded."""
        return self.network.activations_per_voxel

    @property
    def prompts_per_pass(self) -> int:
        """Prompts to decode at once."""
        return self.network.prompts_per_pass

    def encode(self, volume: Tensor) -> Features:
        """Features of windows ``B C X Y Z`` of the scan."""
        report = self.report.to(volume.device).expand(len(volume))
        return self.network.encode(volume, report)

    def decode(self, features: Features, queries: Tensor) -> Decoded:
        """Masks of every prompt at full resolution, and its presence logit."""
        return self.network.decode(features, queries)
