"""Compiles the kernels of every operation for a GPU that need not be there.

    python -m tests.kernels.compile_for_gpu

Writes one JSON object: for each operation its kernels' code in Triton's own language, or the error.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

from tests.kernels.examples import EXAMPLES
from textseg.kernels import OPS

TARGET = GPUTarget("cuda", 90, 32)


def compiled(kernel: JITFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The code of a kernel for the arguments of one launch; ones and block sizes are constants."""
    options = {name: kwargs[name] for name in ("num_warps", "num_stages") if name in kwargs}
    names = kernel.arg_names
    given = dict(zip(names, args, strict=False)) | {n: v for n, v in kwargs.items() if n in names}
    constant = {
        param.name
        for param in kernel.params
        if param.is_constexpr or (type(given[param.name]) is int and given[param.name] == 1)
    }
    signature = {n: "constexpr" if n in constant else mangle_type(given[n]) for n in names}
    constants = {(names.index(name),): given[name] for name in constant}
    source = ASTSource(kernel, signature, constants)
    return triton.compile(source, target=TARGET, options=options).asm["ttir"]


def main() -> None:
    found: dict[str, list[str]] = {}

    def run(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        codes.append(compiled(kernel, args, kwargs))

    JITFunction.run = run
    for op in OPS:
        codes = found.setdefault(op.name, [])
        examples = EXAMPLES[op.name]
        example = examples.make(
            torch.Generator(), examples.several_tiles, torch.bfloat16, torch.device("cpu")
        )
        # Operations take tensors on the host only from an interpreter. Kernels that were imported
        # before it is switched on are compiled all the same.
        import_module(f"textseg.kernels.{op.name}_triton")
        with triton.knobs.runtime.scope():
            triton.knobs.runtime.interpret = True
            try:
                op.run(*example.args, **example.kwargs, backend="triton")
            except Exception as error:
                found[op.name] = [f"{type(error).__name__}: {error}"]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
