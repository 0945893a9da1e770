"""Reads the weights in a file of ``torch.save`` without running anything that the file asks for.

A checkpoint is a pickle, and a pickle is a program. PyTorch's ``weights_only`` reader knows no
more of it than tensors and plain containers; the one thing added here is a number written by
numpy, which published checkpoints hold among the state of their optimiser.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textseg.errors import ModelError
from textseg.zoo.disguise import asked_for, not_a_checkpoint

_ALIASES = ((".all_modules.0.", ".conv."), (".all_modules.1.", ".norm."))
"""Where a block holds its layers once by name and once more in a list."""

_REFUSAL = re.compile(r"GLOBAL (?P<name>\S+)|unrecognized function|Can only (build|create)")
"""PyTorch's words for a pickle that asks for more than tensors and containers."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one file.

    Attributes:
        path: The file.
        step: Training step at which it was written, if it says so.
        state: Tensors by name, without the prefix ``module.`` and each under one name alone.
    """

    path: Path
    step: int | None
    state: Mapping[str, Tensor]


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in a file of ``torch.save``; the state of its optimiser is left out.

    Nothing is run, whatever the file says. The weights of an archive stay on disk until they are
    used, so the file must stay as it is for as long.

    Raises:
        ModelError: There is no such file (E405); it asks for code to be run (E410); it is something
            else than a checkpoint with a ``model_state_dict`` (E411); it is cut off or damaged, or
            its weights are not finite (E412).
    """
    archive = _is_archive(path)
    if archive:
        _check_archive(path)
    step, state = _weights(_load(path, archive=archive), path)
    named = _folded(state, path)
    _check_finite(named, path)
    return Checkpoint(path, step, named)


def canonical(name: str) -> str:
    """The one name of a tensor that a checkpoint may hold under several.

    >>> canonical("module.encoder.convs.0.all_modules.0.weight")
    'encoder.convs.0.conv.weight'
    """
    name = name.removeprefix("module.")
    for alias, plain in _ALIASES:
        name = name.replace(alias, plain)
    return name


def _is_archive(path: Path) -> bool:
    """Whether it is the zip archive that ``torch.save`` writes, else the older sort of file."""
    if not path.exists():
        raise ModelError("no such file.", code="E405", path=path, remedy="Check the path.")
    if path.is_dir():
        raise ModelError(
            "is a folder, not a checkpoint.", code="E411", path=path, remedy="Name the file in it."
        )
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}.", code="E411", path=path) from error
    if refusal := not_a_checkpoint(head):
        cause, remedy = refusal
        raise ModelError(cause, code="E411", path=path, remedy=remedy)
    return head.startswith(b"PK")


def _check_archive(path: Path) -> None:
    """Refuses an archive that is cut off, damaged, or of something else.

    PyTorch looks at neither the checksums nor, when it maps the file, the compression.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, ValueError) as error:
        raise _damaged(f"is cut off or damaged ({error}).", path) from error
    except (NotImplementedError, RuntimeError) as error:  # encrypted, or packed in a rare way
        raise _foreign(
            f"is an archive that was not written by torch.save ({error}).", path
        ) from error
    names = {record.filename.rpartition("/")[2] for record in records}
    if "data.pkl" not in names:
        raise _foreign(
            "is a zip archive, but none that torch.save wrote.",
            path,
            remedy="If the checkpoint is inside it, unpack it first.",
        )
    if "constants.pkl" in names:
        raise _foreign("is a TorchScript program, not a checkpoint.", path)
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise _foreign("was packed again after torch.save wrote it.", path)
    if damaged is not None:
        raise _damaged(f"is damaged: the checksum of {damaged} is wrong.", path)


def _load(path: Path, *, archive: bool) -> Any:
    """What the pickle describes, of tensors, containers and numbers alone."""
    try:
        with warnings.catch_warnings(), _only(_NUMPY):
            warnings.simplefilter("ignore")  # about protocols, which end in an error of ours
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except (pickle.UnpicklingError, _UnsafeError) as error:
        raise _unreadable(str(error), path) from error
    # what a torn or forged pickle makes of the reader's stack can be any of Python's errors
    except Exception as error:
        if "magic number" in str(error):
            raise _foreign("is a pickle, but none that torch.save wrote.", path) from error
        said = str(error).splitlines()[:1] or [type(error).__name__]
        raise _damaged(f"is cut off or damaged ({said[0]}).", path) from error


def _unreadable(said: str, path: Path) -> ModelError:
    """The error for a pickle that the safe reader refused, by what it refused."""
    refusal = _REFUSAL.search(said)
    asked = [refusal["name"]] if refusal and refusal["name"] else asked_for(path)
    if not refusal and not asked:
        reason = re.search(r"WeightsUnpickler error:\s*(.+)", said)
        return _foreign(
            f"is a pickle that holds no checkpoint ({reason[1] if reason else said}).", path
        )
    return ModelError(
        f"asks for code to be run ({', '.join(asked) or said}), which weights never need; nothing "
        "of it was run.",
        code="E410",
        path=path,
        remedy="Do not open it with other programs; get the file from the authors' own page.",
    )


def _weights(content: Any, path: Path) -> tuple[int | None, dict[str, Tensor]]:
    """Step and tensors of what a checkpoint holds."""
    if not isinstance(content, dict):
        raise _foreign(f"holds a {type(content).__name__}, not a checkpoint.", path)
    state = content.get("model_state_dict")
    if not isinstance(state, dict):
        if "pytorch-lightning_version" in content:
            raise _foreign("is a checkpoint of a training run by textseg or Lightning.", path)
        keys = ", ".join(map(str, list(content)[:4])) or "nothing"
        raise _foreign(f"has no model_state_dict; it begins with {keys}.", path)
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise _foreign(
                f"has a {type(value).__name__} as {name!r} among its weights, not a tensor.", path
            )
        tensors[name] = value.detach()
    if not tensors:
        raise _foreign("has a model_state_dict without a single tensor.", path)
    return _step(content.get("step"), path), tensors


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor of numbers in memory: not sparse, quantised, or without its data."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
    )


def _step(value: Any, path: Path) -> int | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _foreign(f"has the training step {value!r}, which is no number of steps.", path)


def _folded(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Every tensor under its one name, once those with several names are seen to agree."""
    folded: dict[str, Tensor] = {}
    for name, tensor in state.items():
        first = folded.setdefault(canonical(name), tensor)
        if not _is_same(first, tensor):
            raise _damaged(f"holds {canonical(name)} twice, with different numbers.", path)
    return folded


def _is_same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same numbers, as those that share their memory do."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.data_ptr() == second.data_ptr() and first.stride() == second.stride():
        return True
    return torch.equal(first, second)


def _check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        # of its storage, which is no larger than the file, whatever shape is made of it
        stored = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
        if not bool(stored.isfinite().all()):
            raise ModelError(
                f"the weights {name} hold NaN or infinity.",
                code="E412",
                path=path,
                remedy="The training that wrote it failed; take another checkpoint.",
            )


def _foreign(cause: str, path: Path, *, remedy: str | None = None) -> ModelError:
    remedy = remedy or "Give the file as its authors publish it."
    return ModelError(cause, code="E411", path=path, remedy=remedy)


def _damaged(cause: str, path: Path) -> ModelError:
    return ModelError(cause, code="E412", path=path, remedy="Download the file again.")


@contextmanager
def _only(allowed: Sequence[tuple[Callable[..., Any], str]]) -> Iterator[None]:
    """Allows pickles these names and no others, whatever other packages have allowed them."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        torch.serialization.add_safe_globals(list(allowed))
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


class _UnsafeError(Exception):
    """A numpy scalar that is not a number."""


class _Number:
    """Stands in for ``numpy.dtype``: only the name of a kind of number, and its byte order."""

    code = ""
    order = "="

    def __init__(self, code: str = "", *_: object) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]", str(code)):
            raise _UnsafeError(f"GLOBAL numpy.dtype({code!r})")
        self.code = str(code)

    def __setstate__(self, state: Any) -> None:
        self.order = "<" if state[1] == "<" else ">" if state[1] == ">" else "="


def _number(kind: Any = None, raw: Any = None, *_: object) -> int | float | bool:
    """Stands in for numpy's ``scalar``, which would unpickle the bytes of an object."""
    if not isinstance(kind, _Number) or not isinstance(raw, bytes):
        raise _UnsafeError(f"GLOBAL numpy.scalar of {type(kind).__name__}, {type(raw).__name__}")
    dtype = np.dtype(kind.order + kind.code)
    if len(raw) != dtype.itemsize:
        raise struct.error(f"{len(raw)} bytes are no {kind.code}")
    number: int | float | bool = np.frombuffer(raw, dtype)[0].item()
    return number


_NUMPY: tuple[tuple[Callable[..., Any], str], ...] = (
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_Number, "numpy.dtype"),
)
"""What a pickle may ask of numpy, and what it gets instead."""
