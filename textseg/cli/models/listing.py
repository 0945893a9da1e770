"""``textseg models list`` and ``show``: what is here, and what could be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textseg.cli.terminal import DebugFlag, JsonFlag, cells, make_table, print_json, print_rich, say
from textseg.errors import ModelError

if TYPE_CHECKING:
    from textseg.knowledge import KnowledgeTree
    from textseg.network.weights import Domain
    from textseg.zoo import Entry

_STATES = {
    "embedded": "embedded",
    "installed": "installed",
    "downloadable": "can be downloaded",
}


def list_(as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """List the models: those that come with textseg, your own, and those you can download."""
    from textseg.network.weights import find_model, list_models
    from textseg.zoo.entries import ENTRIES

    found = []
    for name in list_models():
        try:
            found.append(_described(find_model(name)))
        except ModelError as error:
            # one broken folder must not hide the models that work
            say(error.line())
    here = set(list_models())
    found += [_offered(entry) for entry in ENTRIES if entry.name not in here]
    if as_json:
        print_json(found, indent=2)
        return
    table = make_table("model", "version", "licence", "MB", "concepts", "state", "domains")
    for model in found:
        domains = ", ".join(domain["name"] for domain in model["domains"])
        if not domains:
            domains = "" if model["state"] == "downloadable" else "(text encoder)"
        concepts = "" if model["num_concepts"] is None else str(model["num_concepts"])
        size = _megabytes(model["size_bytes"])
        row = (model["name"], model["version"], model["licence"], size, concepts)
        table.add_row(*cells(*row, _STATES[model["state"]], domains))
    print_rich(table)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name or folder.")],
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show a model: its weights, its domains with their working grids, and its concepts.

    Of one that is not installed: its files, where they come from, and their licences.
    """
    from textseg.network.weights import find_model
    from textseg.zoo import find_entry

    entry = find_entry(name)
    try:
        model = _described(find_model(name))
    except ModelError as error:
        if entry is None or error.code != "E401":
            raise
        model = _offered(entry)
    if as_json:
        print_json(model, indent=2)
    elif entry is not None and model["state"] == "downloadable":
        _print_offer(entry)
    else:
        _print_model(model)


def _print_model(model: dict[str, Any]) -> None:
    facts = make_table("model", model["name"])
    facts.add_row(*cells("version", model["version"]))
    facts.add_row(*cells("licence", model["licence"]))
    facts.add_row(*cells("weights", f"{_megabytes(model['size_bytes'])} MB"))
    facts.add_row(*cells("sha256", model["sha256"]))
    facts.add_row(*cells("folder", model["folder"]))
    facts.add_row(*cells("concepts", str(model["num_concepts"])))
    if model["channels"]:
        facts.add_row(*cells("channels", ", ".join(model["channels"])))
    if model["reads_reports"]:
        facts.add_row(*cells("reports", "reads them"))
    for file in model["files"]:
        source = f"{file['path']} of {file['repo']}@{file['revision'][:12]}"
        facts.add_row(*cells("made from", source))
    print_rich(facts)
    for domain in model["domains"]:
        grid = " x ".join(f"{step:g}" for step in domain["spacing_mm"])
        kinds = " and ".join(domain["modalities"]).upper()
        title = f"{domain['name']}: {kinds} at {grid} mm, {len(domain['concepts'])} concepts"
        table = make_table("concept", "id")
        for concept in domain["concepts"]:
            table.add_row(*cells(concept["name"], concept["id"]))
        print_rich(table, title=title)


def _print_offer(entry: Entry) -> None:
    facts = make_table("model", entry.name)
    facts.add_row(*cells("what", entry.title))
    for licence in entry.licences:
        facts.add_row(*cells("licence", f"{licence.id} ({licence.covers}). {licence.text}"))
    facts.add_row(*cells("homepage", entry.homepage))
    facts.add_row(*cells("please cite", entry.citation))
    facts.add_row(*cells("to install it", f"textseg models download {entry.name}"))
    print_rich(facts)
    files = make_table("file", "about MB", "repository", "revision", numbers=("about MB",))
    for file in entry.files:
        size = _megabytes(file.about_bytes)
        files.add_row(*cells(file.path, size, file.repo, file.revision))
    print_rich(files, title=f"{len(entry.files)} files to download")


def _described(folder: Path) -> dict[str, Any]:
    """Everything the listing and the card say about a model that is here."""
    from textseg.knowledge import load_model_tree, load_tree
    from textseg.network.weights import WEIGHTS_FILE, read_model_manifest
    from textseg.resources import models_folder
    from textseg.zoo.installed import read_record

    manifest = read_model_manifest(folder)
    # what the model is called does not depend on vocabularies, one of which may be damaged
    tree = load_model_tree(folder, beside=load_tree())
    record = read_record(folder)
    weights = folder / WEIGHTS_FILE
    return {
        "name": manifest.name,
        "state": "embedded" if folder.parent == models_folder() else "installed",
        "version": manifest.version,
        "licence": manifest.licence,
        "folder": str(folder),
        "size_bytes": weights.stat().st_size if weights.is_file() else None,
        "sha256": manifest.sha256,
        "num_concepts": len(manifest.supported),
        "channels": list(manifest.channels),
        "reads_reports": manifest.reads_reports,
        "domains": [_domain(domain, tree) for domain in manifest.domains],
        "files": [] if record is None else [file.model_dump() for file in record.files],
    }


def _offered(entry: Entry) -> dict[str, Any]:
    """The same of a model that can be downloaded, and its terms; its sizes are rough."""
    return {
        "name": entry.name,
        "state": "downloadable",
        "version": entry.version,
        "licence": entry.licence,
        "folder": None,
        "size_bytes": entry.about_bytes,
        "sha256": None,
        "num_concepts": None,
        "domains": [],
        "title": entry.title,
        "licences": [asdict(licence) for licence in entry.licences],
        "homepage": entry.homepage,
        "citation": entry.citation,
        "files": [
            {
                "repo": file.repo,
                "revision": file.revision,
                "path": file.path,
                "sha256": file.sha256,
                "size_bytes": file.about_bytes,
            }
            for file in entry.files
        ],
    }


def _domain(domain: Domain, tree: KnowledgeTree) -> dict[str, Any]:
    concepts = [{"id": i, "name": tree[i].name if i in tree else i} for i in domain.concepts]
    return {**domain.model_dump(mode="json"), "concepts": concepts}


def _megabytes(size: int | None) -> str:
    return "missing" if size is None else f"{size / 1e6:.1f}"
