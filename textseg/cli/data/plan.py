"""``textseg data plan``: a training domain proposed for a data set, with reasons."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textseg.cli.data.arguments import Folder, Source
from textseg.cli.data.fingerprint import Workers, take_fingerprint
from textseg.cli.terminal import DebugFlag, JsonFlag, cells, make_table, print_json, print_rich

if TYPE_CHECKING:
    from textseg.datasets.fingerprint import Fingerprint
    from textseg.network.model import NetworkConfig


def plan(
    source: Source,
    folder: Folder = None,
    fingerprint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its fingerprint, in place of reading the cases."),
    ] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="GB",
            help="Memory for a training step; by default what the GPU, or else the machine, has "
            "free.",
            show_default=False,
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A training configuration, such as nano, by its name."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", metavar="FILE", help="Also write the domain to this YAML file."),
    ] = None,
    workers: Workers = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Propose how to train on a data set: grid, window, batch and validation, with reasons."""
    from textseg.atomic import exists_error, write_atomically
    from textseg.datasets.plan import plan as propose

    if output is not None and output.exists() and not overwrite:
        raise exists_error(output)
    config = _network(network)
    if fingerprint is None:
        known = take_fingerprint(source, folder, workers=workers)
    else:
        known = _read_fingerprint(fingerprint, source)
    memory_bytes = _free_memory() if memory_gb is None else round(memory_gb * 1e9)
    found = propose(known, network=config, memory_bytes=memory_bytes, name=Path(source).stem)
    if output is not None:
        text = found.to_yaml()
        write_atomically(output, lambda path: _write_text(path, text), overwrite=overwrite)
    if as_json:
        print_json({**asdict(found), "domain": found.domain}, indent=2)
        return
    table = make_table("choice", "value", "reason")
    for choice in found.choices:
        table.add_row(*cells(choice.key, json.dumps(choice.value).strip('"'), choice.reason))
    for estimate in found.estimates:
        name = estimate.key.removesuffix("_bytes")
        table.add_row(*cells(name, f"{estimate.value / 1e9:,.3g} GB", estimate.reason))
    print_rich(table, title=f"domain {found.name}")


def _read_fingerprint(path: Path, source: str) -> Fingerprint:
    """The fingerprint in a file, which must be of the data set it is said to be of."""
    from textseg.datasets.fingerprint import Fingerprint
    from textseg.errors import ModelError

    found = Fingerprint.read(path)
    if not source.endswith(".json") and Path(source).stem not in found.datasets:
        raise ModelError(
            f"is the fingerprint of {', '.join(found.datasets)}, not of {source}.",
            code="E406",
            path=path,
        )
    return found


def _network(name: str | None) -> NetworkConfig:
    """The network of a training configuration that comes with textseg, or the usual one."""
    import yaml

    from textseg.errors import ModelError
    from textseg.network.model import NetworkConfig
    from textseg.resources import data_folder

    if name is None:
        return NetworkConfig()
    root = data_folder("configs")
    paths = [*sorted(root.glob("train/*.yaml")), *sorted(root.glob("finetune/*.yaml"))]
    configs = {
        path.stem if path.parent.name == "train" else f"finetune/{path.stem}": path
        for path in paths
    }
    if name not in configs:
        raise ModelError(
            f"there is no training configuration {name!r}.",
            code="E401",
            remedy=f"Choose one of {', '.join(configs)}.",
        )
    content = yaml.safe_load(configs[name].read_text(encoding="utf-8"))
    return NetworkConfig(**content["model"]["network"])


def _free_memory() -> int:
    """Bytes free on the GPU, where there is one, or else in the machine."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
