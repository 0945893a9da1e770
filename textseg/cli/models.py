"""``textseg models``: which weights there are, and what each of them can segment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textseg.cli.terminal import DebugFlag, JsonFlag, cells, make_table, print_json, print_rich, say
from textseg.errors import ModelError

if TYPE_CHECKING:
    from textseg.network.weights import Domain

app = typer.Typer(
    help="List the models, or show what one of them can segment.", rich_markup_mode=None
)


@app.command("list")
def list_(as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """List the models that come with textseg, and those in your models folder."""
    from textseg.network.weights import find_model, list_models

    found = []
    for name in list_models():
        try:
            found.append(_described(find_model(name)))
        except ModelError as error:
            # one broken folder must not hide the models that work
            say(error.line())
    if as_json:
        print_json(found, indent=2)
        return
    table = make_table("model", "version", "licence", "MB", "concepts", "domains")
    for model in found:
        domains = ", ".join(domain["name"] for domain in model["domains"]) or "(text encoder)"
        size = _megabytes(model["size_bytes"])
        row = (model["name"], model["version"], model["licence"], size, str(model["num_concepts"]))
        table.add_row(*cells(*row, domains))
    print_rich(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name or folder.")],
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show a model: its weights, its domains with their working grids, and its concepts."""
    from textseg.network.weights import find_model

    model = _described(find_model(name))
    if as_json:
        print_json(model, indent=2)
        return
    facts = make_table("model", model["name"])
    facts.add_row(*cells("version", model["version"]))
    facts.add_row(*cells("licence", model["licence"]))
    facts.add_row(*cells("weights", f"{_megabytes(model['size_bytes'])} MB"))
    facts.add_row(*cells("sha256", model["sha256"]))
    facts.add_row(*cells("folder", model["folder"]))
    facts.add_row(*cells("concepts", str(model["num_concepts"])))
    print_rich(facts)
    for domain in model["domains"]:
        grid = " x ".join(f"{step:g}" for step in domain["spacing_mm"])
        kinds = " and ".join(domain["modalities"]).upper()
        title = f"{domain['name']}: {kinds} at {grid} mm, {len(domain['concepts'])} concepts"
        table = make_table("concept", "id")
        for concept in domain["concepts"]:
            table.add_row(*cells(concept["name"], concept["id"]))
        print_rich(table, title=title)


def _described(folder: Path) -> dict[str, Any]:
    """Everything the listing and the card say about a model."""
    from textseg.network.weights import WEIGHTS_FILE, read_model_manifest

    manifest = read_model_manifest(folder)
    weights = folder / WEIGHTS_FILE
    return {
        "name": manifest.name,
        "version": manifest.version,
        "licence": manifest.licence,
        "folder": str(folder),
        "size_bytes": weights.stat().st_size if weights.is_file() else None,
        "sha256": manifest.sha256,
        "num_concepts": len(manifest.supported),
        "domains": [_domain(domain) for domain in manifest.domains],
    }


def _domain(domain: Domain) -> dict[str, Any]:
    from textseg.knowledge import load_tree

    tree = load_tree()
    concepts = [{"id": i, "name": tree[i].name if i in tree else i} for i in domain.concepts]
    return {**domain.model_dump(mode="json"), "concepts": concepts}


def _megabytes(size: int | None) -> str:
    return "missing" if size is None else f"{size / 1e6:.1f}"
