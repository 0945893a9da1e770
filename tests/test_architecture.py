"""The rules the code keeps about itself: layers, sizes, imports, and what is never said."""

from __future__ import annotations

import ast
import codecs
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from textseg.knowledge import validate_tree

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "textseg"
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "SimpleITK", "scipy", "matplotlib", "lightning", "monai", "pydicom", "nilearn"}


def in_every_source(*, except_for: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Runs a test once per file of the package, but for those modules or subpackages."""
    paths = {path.relative_to(PACKAGE): path for path in SOURCES}
    chosen = {str(p): paths[p] for p in paths if Path(p.parts[0]).stem not in except_for}
    return pytest.mark.parametrize("source", chosen.values(), ids=chosen.keys())


def parsed(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"), filename=str(source))


def dotted(node: ast.AST) -> str:
    """``os.environ`` for the expression that says so, "" for anything that is not a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def test_layers_import_downward_only(tmp_path):
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--cache-dir", tmp_path],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_knowledge_tree_has_no_fault():
    assert validate_tree() == ()


@in_every_source()
def test_a_file_has_at_most_400_lines(source):
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 400


@in_every_source()
def test_a_function_has_fewer_than_60_lines(source):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    # The signature of a command is the table of its options and that of a kernel lists its strides,
    # so only their bodies count.
    is_table = (PACKAGE / "cli") in source.parents or source.stem.endswith("_triton")
    long = [
        f"{node.name} at line {node.lineno}"
        for node in ast.walk(parsed(source))
        if isinstance(node, functions)
        and node.end_lineno - (node.body[0] if is_table else node).lineno + 1 >= 60
    ]
    assert long == []


@in_every_source(except_for=("cli",))
def test_only_the_command_line_prints_and_exits(source):
    tree = parsed(source)
    calls = {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    raised = {dotted(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit", "os.abort", "SystemExit"}
    assert (calls | raised) & forbidden == set()


@in_every_source(except_for=("cli", "resources"))
def test_only_the_edges_read_the_environment(source):
    names = {dotted(node) for node in ast.walk(parsed(source)) if isinstance(node, ast.Attribute)}
    assert names & {"os.environ", "os.environb", "os.getenv"} == set()


@in_every_source()
def test_no_except_catches_everything(source):
    handlers = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.ExceptHandler)]
    bare = [node.lineno for node in handlers if node.type is None]
    assert bare == []


def imported_packages(source: Path) -> set[str]:
    """Top-level names of everything the file imports, at once or later."""
    nodes = list(ast.walk(parsed(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    absolute = {node.module for node in nodes if isinstance(node, ast.ImportFrom) if not node.level}
    return {name.partition(".")[0] for name in plain | absolute}


def declared_packages() -> Iterator[str]:
    """Import names of the dependencies, those of the extras included."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    users = (extras[name] for name in extras if name != "dev")
    for requirement in [*project["dependencies"], *(r for extra in users for r in extra)]:
        name = re.match(r"[\w.-]+", requirement)[0].lower().replace("-", "_")
        yield {"pyyaml": "yaml", "simpleitk": "SimpleITK", "pillow": "PIL"}.get(name, name)


def test_every_import_is_a_declared_dependency():
    found = {name for source in SOURCES for name in imported_packages(source)}
    foreign = found - sys.stdlib_module_names - {"textseg"}
    assert foreign <= set(declared_packages())


def heavy_after(program: str) -> set[str]:
    """Which of the heavy packages a program has imported when it ends."""
    report = "import sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", f"{program}\n{report}"], capture_output=True, text=True, check=True
    )
    return HEAVY.intersection(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "textseg",
        "textseg.errors",
        "textseg.knowledge",
        "textseg.prompts",
        "textseg.network.weights",
    ],
)
def test_import_costs_nothing_heavy(module):
    assert heavy_after(f"import {module}") == set()


def test_resolving_a_prompt_needs_nothing_heavy():
    program = (
        "from textseg.knowledge import load_tree\n"
        "from textseg.prompts import resolve\n"
        "assert resolve('left kidney', load_tree()).concepts == ('kidney.left',)"
    )
    assert heavy_after(program) == set()


LIGHT_COMMANDS = ["--help", "predict --help", "resolve kidney", "concepts --help", "models list"]


@pytest.mark.parametrize("command", LIGHT_COMMANDS)
def test_a_light_command_imports_nothing_heavy(command):
    program = f"from textseg.cli import main; assert main({command.split()}) == 0"
    assert heavy_after(program) == set()


@pytest.mark.parametrize("command", LIGHT_COMMANDS)
def test_a_light_command_takes_little_more_than_its_libraries(command):
    # Half a second of processor time on an ordinary machine; this one may be slow, or busy. Side by
    # side, and each the best of five, because that changes from one moment to the next.
    libraries = "import pydantic, rapidfuzz, rich.table, typer; pydantic.BaseModel"
    ours = f"import sys; from textseg.cli import main; sys.exit(main({command.split()}))"
    pairs = [(processor_seconds(ours), processor_seconds(libraries)) for _ in range(5)]
    assert min(own for own, _ in pairs) < 4 * min(theirs for _, theirs in pairs)


def processor_seconds(program: str) -> float:
    """User and system time of one run of a Python program, which must succeed."""
    resource = pytest.importorskip("resource", reason="this system does not tell")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def project_files() -> list[Path]:
    """Every file that is, or would be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a checkout")
    paths = (CHECKOUT / name for name in listed.stdout.splitlines())
    return [path for path in paths if path.is_file()]


# In disguise, so that this file may be among those searched.
UNSAID_WORDS = "pynhqr|naguebcvp|bcranv|fhontragf?|yyzf?"
UNSAID_PLACES = "/jbex/|clcv.bet|clgubaubfgrq|qbjaybnq.clgbepu|ertvfgel.acz"


def test_the_project_speaks_of_itself_alone():
    words, places = (codecs.decode(text, "rot13") for text in (UNSAID_WORDS, UNSAID_PLACES))
    unsaid = re.compile(rf"\b({words})\b|{places}", re.IGNORECASE)
    found = [
        f"{path.relative_to(CHECKOUT)}: {match[0]}"
        for path in project_files()
        if path.suffix not in {".safetensors", ".png", ".gz"} and path != CHECKOUT / "LICENSE"
        for match in unsaid.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []


def test_version_control_holds_no_large_file():
    large = [
        str(path.relative_to(CHECKOUT))
        for path in project_files()
        if path.stat().st_size > (20 if path.suffix == ".safetensors" else 1) * 1024**2
    ]
    assert large == []
