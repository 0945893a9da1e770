"""The published fusion of TextBraTS, for comparison."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from textseg.errors import ModelError
from textseg.network.layers import Perceptron
from textseg.network.report_fusion_parts import FusionBlock, grid_of
from textseg.network.report_tokens import ReportTokens

_TEXT_HIDDEN = 1024


class SequentialFusion(FusionBlock):
    """Text attends the image, then the image attends what came of it (arXiv 2506.16784).

    Each attention has one head, no weights of its own and the scale ``1 / sqrt(channels)``. The
    result replaces the map: there is no residual path and no gate, so the text decides only where
    the image is looked at. Nor is there a mask: padding takes part, as zeros before the text's
    perceptron, so that an answer depends on how far a batch was padded.

    The description leaves open the activation inside the perceptron (here GELU), projections in the
    attention (none), the convolution's kernel (3x3x3), and what the layer norms learn (a weight and
    a bias per voxel); those are our reading.

    Args:
        channels: Channels of the map.
        token_features: Length of a token.
        size: The only size of a map it takes: layer norm has weights for every voxel.
    """

    def __init__(self, channels: int, token_features: int, *, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        self.text = Perceptron(token_features, _TEXT_HIDDEN, channels)
        self.norm = nn.LayerNorm(size)
        self.convolution = nn.Conv3d(channels, channels, 3, padding=1)
        self.end_norm = nn.LayerNorm(size)
        self.held = 5 * channels

    def forward(self, image: Tensor, text: ReportTokens) -> Tensor:
        """The map ``B C X Y Z`` that takes the image's place.

        Raises:
            ModelError: The map has another size.
        """
        x, y, z = grid = grid_of(image)
        if grid != self.size:
            raise ModelError(
                f"sequential report fusion was made for a coarsest map of {self.size} voxels, and "
                f"the window gives {grid}.",
                remedy="Use the window it was trained with, or gated fusion, which takes any.",
            )
        rows = rearrange(image, "b c x y z -> b (x y z) c")
        informed = _attend(self.text(text.tokens), rows)  # B T C
        replaced = rearrange(_attend(rows, informed), "b (x y z) c -> b c x y z", x=x, y=y, z=z)
        convolved = functional.relu(self.convolution(self.norm(replaced)))
        out: Tensor = self.end_norm(convolved)
        return out.to(image.dtype)


def _attend(asking: Tensor, read: Tensor) -> Tensor:
    """Averages of ``B M C``, weighted by the likeness to each of ``B N C``."""
    likeness = asking @ read.mT * read.shape[-1] ** -0.5  # B N M
    return torch.softmax(likeness, dim=-1) @ read
