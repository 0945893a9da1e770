"""Array operations that decide the engine's speed, each with a plain reference beside it.

One op is one file: the formula in its docstring, ``<op>_reference`` as the specification, and the
public function with a ``backend`` switch. ``OPS`` lists them; tests and benchmarks loop over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from textseg.kernels.window_blend import Backend, window_blend, window_blend_reference


@dataclass(frozen=True, slots=True)
class Op:
    """A public operation and the specification it has to agree with."""

    name: str
    run: Callable[..., Tensor]
    reference: Callable[..., Tensor]


OPS: tuple[Op, ...] = (Op("window_blend", window_blend, window_blend_reference),)
"""Every operation, in the order in which it pays."""

__all__ = ["OPS", "Backend", "Op", "window_blend", "window_blend_reference"]
