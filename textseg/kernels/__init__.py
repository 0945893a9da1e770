"""Array operations that decide the engine's speed, each with a plain reference beside it.

One op is one file: the formula in its docstring, ``<op>_reference`` as the specification, and the
public function with a ``backend`` switch; ``<op>_triton.py`` holds its kernel. ``OPS`` lists them;
tests and benchmarks loop over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from textseg.kernels.backends import Backend
from textseg.kernels.gather_windows import gather_windows, gather_windows_reference
from textseg.kernels.instance_norm import instance_norm_act, instance_norm_act_reference
from textseg.kernels.restore import restore, restore_reference
from textseg.kernels.window_blend import window_blend, window_blend_reference


@dataclass(frozen=True, slots=True)
class Op:
    """A public operation and the specification it has to agree with.

    Attributes:
        name: Also the name of its module.
        run: The public function; takes ``backend`` besides what ``reference`` takes.
        reference: The specification, in float32.
    """

    name: str
    run: Callable[..., Tensor]
    reference: Callable[..., Tensor]


OPS: tuple[Op, ...] = (
    Op("window_blend", window_blend, window_blend_reference),
    Op("restore", restore, restore_reference),
    Op("gather_windows", gather_windows, gather_windows_reference),
    Op("instance_norm", instance_norm_act, instance_norm_act_reference),
)
"""Every operation, in the order in which it pays."""

__all__ = [
    "OPS",
    "Backend",
    "Op",
    "gather_windows",
    "gather_windows_reference",
    "instance_norm_act",
    "instance_norm_act_reference",
    "restore",
    "restore_reference",
    "window_blend",
    "window_blend_reference",
]
