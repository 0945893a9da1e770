"""Where kernels run: in Triton's interpreter, or on a CUDA device if there is one."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def triton_device(request: pytest.FixtureRequest) -> torch.device:
    """A device whose tensors Triton's kernels take: ``cpu`` is the interpreter."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    if request.param == "cpu":
        if torch.cuda.is_available():
            pytest.skip("the kernels are compiled for the CUDA device")
        require_interpreter()
    return torch.device(request.param)


def require_interpreter() -> None:
    """Fails where Triton was imported before it was told to interpret."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    if not isinstance(tl.sigmoid, InterpretedFunction):
        pytest.fail(
            "Something imported Triton before TRITON_INTERPRET=1 was set; tests/conftest.py has to "
            "set it where there is no CUDA device."
        )


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch):
    """Memory that was allocated and not written holds NaN, or the largest integer."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)
