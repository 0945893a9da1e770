"""``textseg concepts``: what has a name, and by which names it may be asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from textseg import __version__
from textseg.cli import vocabularies
from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    cells,
    make_table,
    plain,
    print_json,
    print_rich,
    say,
    warn,
)
from textseg.errors import ResourceError, UnknownConcept

if TYPE_CHECKING:
    from rich.tree import Tree

    from textseg.knowledge import Concept, KnowledgeTree
    from textseg.knowledge.tree import Relation

Supported = frozenset[str]

_DEFAULT_COMMAND = "find"
_LEAST_SCORE = 0.6
_FOUND_BY_DEFAULT = 10
_LISTED_BY_DEFAULT = 200
_SHOWN_NEIGHBOURS = 12
_SORTS = {
    "abbreviations": "abbreviated",
    "latin": "Latin",
    "lay": "in lay words",
    "british": "British",
    "plurals": "plural",
}
_REVERSED: dict[str, Relation] = {
    "branches": "branch_of",
    "supplied_by": "supplies",
    "drained_by": "drains",
    "lesions": "site",
}
_BRANCHES = {
    "children": "kinds",
    "parts": "parts",
    "branch_of": "branch of",
    "branches": "branches",
    "supplies": "supplies",
    "supplied_by": "supplied by",
    "drains": "drains",
    "drained_by": "drained by",
    "site": "site",
    "contains": "contains",
    "lesions": "lesions and findings",
    "adjacent_to": "touches",
}


class _SearchGroup(TyperGroup):
    """Takes a first word that is no command of the group for a text to look up."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [_DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_SearchGroup,
    help=(
        "List, search, export and extend what has a name.\n\n"
        f"What follows is looked up: `textseg concepts kidney` is `textseg concepts "
        f"{_DEFAULT_COMMAND} kidney`."
    ),
    rich_markup_mode=None,
)


@app.command(_DEFAULT_COMMAND)
def concepts(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="A name, or something like it.")
    ] = None,
    supported: Annotated[
        bool, typer.Option("--supported", help="Only what the model can segment.")
    ] = False,
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or folder.")] = "nano",
    region: Annotated[str | None, typer.Option(help="Only this body region, e.g. abdomen.")] = None,
    system: Annotated[
        str | None, typer.Option(help="Only this organ system, e.g. urinary.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, e.g. bone.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most rows to show; 10 for a search, 200 for a list of all."),
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List or search what has a name.

    An exact name shows its card; anything else lists what is called much like it.
    """
    from textseg.knowledge import load_model_tree
    from textseg.network.weights import find_model

    tree = load_model_tree(find_model(model))
    able = supported_by(model)
    keep = _filter(tree, {"region": region, "system": system, "kind": kind}, able, supported)
    if text is None:
        found = [concept for concept in tree if keep(concept)]
        most = limit or (None if as_json or supported else _LISTED_BY_DEFAULT)
        _print_list(tree, found[:most], able, total=len(found), as_json=as_json)
        return
    exact = [concept for concept in tree.lookup(text) if keep(concept)]
    if len(exact) == 1:
        _print_card(tree, exact[0], able, model=model, as_json=as_json)
        return
    near = _search(tree, text, keep, limit=limit or _FOUND_BY_DEFAULT)
    _print_list(tree, exact or near, able, total=len(exact or near), as_json=as_json)


@app.command()
def export(
    format_: Annotated[
        Literal["json", "obo"], typer.Option("--format", "-f", help="How to write it.")
    ] = "json",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of stdout.")
    ] = None,
    debug: DebugFlag = False,
) -> None:
    """Write the whole tree, installed vocabularies included, for another program."""
    from textseg.knowledge import load_user_tree, to_json, to_obo

    tree = load_user_tree()
    if format_ == "obo":
        text = to_obo(tree, version=__version__)
    else:
        text = json.dumps(to_json(tree), indent=1, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        cause = f"cannot be written ({error.strerror})."
        raise ResourceError(cause, code="E503", path=output) from error
    say(f"{len(tree)} concepts written to {output}")


@app.command()
def stats(as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Count concepts, names and relations of the tree that comes with textseg."""
    from textseg.knowledge import load_tree, tree_statistics

    counts = asdict(tree_statistics(load_tree()))
    if as_json:
        print_json(counts)
        return
    table = make_table("what", "number", numbers=("number",))
    for name, number in counts.items():
        table.add_row(*cells(name.replace("_", " "), f"{number:,}"))
    print_rich(table)


app.command("import")(vocabularies.import_)
app.command("vocabularies")(vocabularies.vocabularies)


def supported_by(model: str) -> Supported:
    """Ids of the concepts a model was trained on."""
    from textseg.network.weights import find_model, read_model_manifest

    return read_model_manifest(find_model(model)).supported


def _filter(
    tree: KnowledgeTree, wanted: Mapping[str, str | None], able: Supported, supported: bool
) -> Callable[[Concept], bool]:
    """Whether a concept is wanted; an unknown region or kind is a usage error that lists them."""
    given = {field: value for field, value in wanted.items() if value is not None}
    for field, value in given.items():
        known = {getattr(concept, field) for concept in tree}
        if value not in known:
            raise UsageError(f"--{field} {value!r} is none of {', '.join(sorted(known))}.")

    def keep(concept: Concept) -> bool:
        return all(getattr(concept, field) == value for field, value in given.items()) and (
            not supported or bool(tree.leaves(concept.id, able))
        )

    return keep


def _search(
    tree: KnowledgeTree, text: str, keep: Callable[[Concept], bool], *, limit: int
) -> list[Concept]:
    from textseg.knowledge import search

    # what the filters drop must not take the places of what they keep
    matches = search(tree, text, limit=10 * limit)
    found = [m.concept for m in matches if m.score >= _LEAST_SCORE and keep(m.concept)][:limit]
    if not found:
        remedy = "List all with `textseg concepts`, what a model knows with --supported."
        raise UnknownConcept(f"nothing is called {text!r} or much like it.", remedy=remedy)
    return found


def _print_list(
    tree: KnowledgeTree, found: Sequence[Concept], able: Supported, *, total: int, as_json: bool
) -> None:
    if as_json:
        print_json([_card(tree, concept, able) for concept in found], indent=2)
        return
    table = make_table("name", "id", "kind", "region", "model")
    for concept in found:
        how = _support(tree, concept, able)
        table.add_row(*cells(concept.name, concept.id, concept.kind, concept.region, how))
    print_rich(table)
    if len(found) < total:
        warn(f"{len(found)} of {total} shown; raise --limit for more.")


def _support(tree: KnowledgeTree, concept: Concept, able: Supported) -> str:
    """How the model segments a concept: as itself, as a union, or not at all."""
    leaves = tree.leaves(concept.id, able)
    if leaves == (concept.id,):
        return "yes"
    return f"as {len(leaves)} parts" if len(leaves) > 1 else "yes" if leaves else "-"


def _card(tree: KnowledgeTree, concept: Concept, able: Supported) -> dict[str, Any]:
    """Everything there is to say about a concept, in JSON's own types."""
    fields = asdict(concept)
    del fields["base"], fields["ambiguous"]
    return {
        **fields,
        "definition": tree.definition(concept.id),
        "children": tree.children(concept.id),
        "parts": tree.parts(concept.id),
        "counterpart": tree.counterpart(concept.id),
        **{name: tree.referring(concept.id, relation) for name, relation in _REVERSED.items()},
        "segmented_as": tree.leaves(concept.id, able),
    }


def _print_card(
    tree: KnowledgeTree, concept: Concept, able: Supported, *, model: str, as_json: bool
) -> None:
    card = _card(tree, concept, able)
    if as_json:
        print_json(card, indent=2)
        return
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text.assemble((plain(concept.name), "bold"), f"  {concept.id}"))
    for line in _facts(concept, card["definition"]):
        root.add(Text(plain(line)))
    counterpart = (card["counterpart"],) if card["counterpart"] else ()
    for title, ids in (
        ("a kind of", concept.is_a),
        ("part of", concept.part_of),
        ("other side", counterpart),
        *((title, card[key]) for key, title in _BRANCHES.items()),
        (f"{model} segments it as", card["segmented_as"]),
    ):
        _add_branch(root, title, ids, tree)
    if not card["segmented_as"]:
        root.add(Text(f"{plain(model)} cannot segment it"))
    print_rich(root)


def _facts(concept: Concept, definition: str) -> Iterator[str]:
    """What a card says before it names other concepts."""
    place = [concept.kind, concept.region, concept.system, f"{concept.side or 'no'} side"]
    yield ", ".join(word.replace("_", " ") for word in place)
    yield definition
    if concept.volume_ml is not None:
        yield f"about {concept.volume_ml:g} ml"
    sorts = {name: sort for sort in _SORTS for name in getattr(concept, sort)}
    plain_names = [name for name in concept.synonyms if name not in sorts]
    named = (("also", plain_names), *((_SORTS[sort], getattr(concept, sort)) for sort in _SORTS))
    for title, names in (*named, ("adjective", concept.adjectives)):
        if names:
            yield f"{title}: {', '.join(names)}"
    if concept.xrefs:
        yield f"known as: {', '.join(concept.xrefs)}"


def _add_branch(root: Tree, title: str, ids: Sequence[str], tree: KnowledgeTree) -> None:
    from rich.text import Text

    if not ids:
        return
    branch = root.add(Text(plain(title), style="cyan"))
    for concept_id in ids[:_SHOWN_NEIGHBOURS]:
        branch.add(Text.assemble(plain(tree[concept_id].name), (f"  {concept_id}", "dim")))
    if len(ids) > _SHOWN_NEIGHBOURS:
        branch.add(Text(f"and {len(ids) - _SHOWN_NEIGHBOURS} more"))
