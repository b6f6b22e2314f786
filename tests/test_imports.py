"""Import rules of the design, read off the source without importing it.

decoders ─┐
encoders ─┼─> pipelines      the three on the left know nothing of each other, nor of pipelines
eval ─────┘

pipelines: commands > runs > training, compression > model > data > runtime
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("decoders", "encoders", "eval", "pipelines")
MAY_IMPORT = {
    "decoders": {"decoders"},
    "encoders": {"encoders"},
    "eval": {"eval"},
    "pipelines": set(PACKAGES),
}
# Lowest first. Parts of one floor do not import one another.
FLOORS = ("runtime",), ("data",), ("model",), ("training", "compression"), ("runs",)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of all modules that a file imports, anywhere and in any spelling."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level
            yield prefix + (node.module or "")
        elif isinstance(node, ast.Call) and _is_dynamic(node.func) and node.args:
            yield _constant_prefix(node.args[0])


def _is_dynamic(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__", "run_module")


def _constant_prefix(argument: ast.expr) -> str:
    """Return the known start of a module's name that is put together at run time."""
    if isinstance(argument, ast.JoinedStr):
        argument = argument.values[0]
    value = argument.value if isinstance(argument, ast.Constant) else ""
    return value if isinstance(value, str) else ""


def imports_among(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Return the modules that each one imports, inside functions and under TYPE_CHECKING too."""
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names} & modules.keys()
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found = names & modules.keys()
                whole = {str(node.module)} if len(found) < len(names) else set()
                graph[module] |= found | whole & modules.keys()
    return graph


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    """Return the part of pipelines of a module; "commands" for the files at the top."""
    name = module.partition(".")[2].partition(".")[0]
    return name if any(name in floor for floor in FLOORS) else "commands"


def floor_of(part: str) -> int:
    return next((n for n, floor in enumerate(FLOORS) if part in floor), len(FLOORS))


GRAPH = imports_among({module_of(path): path for path in sources(*PACKAGES)})


def test_no_import_runs_in_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_import_runs_to_a_higher_floor() -> None:
    for module, imports in GRAPH.items():
        for other in imports if module.startswith("pipelines") else ():
            if not other.startswith("pipelines"):
                continue
            here, there = part_of(module), part_of(other)
            below = floor_of(there) < floor_of(here)
            assert here == there or below, f"{module} must not import {other}"


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_what_they_may(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        top = name.split(".")[0]
        assert not name.startswith("."), f"{path}: write the import of {name} in full"
        assert top not in PACKAGES or top in MAY_IMPORT[package], f"{path} must not import {name}"
        assert top != "lightning_fabric" or package == "pipelines", f"{path} must not import {name}"
        assert top not in ("tests", "examples", "benchmarks"), f"{path} must not import {name}"


def test_the_lightning_umbrella_package_is_nowhere() -> None:
    folders = (*PACKAGES, "tests", "examples", "benchmarks")
    for path in sources(*folders):
        tops = {name.split(".")[0] for name in imported(path)}
        assert not tops & {"lightning", "pytorch_lightning"}, path


def test_imports_are_found_wherever_they_hide(tmp_path: Path) -> None:
    source = tmp_path / "hidden.py"
    source.write_text(
        "def f():\n    import a.b\n    from c import d\n    import_module('e.f')\n"
        "    importlib.import_module(f'g.{x}')\nfrom .h import i\n"
    )
    assert sorted(imported(source)) == [".h", "a.b", "c", "e.f", "g."]


def test_circles_and_submodules_are_found_wherever_they_hide(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("if TYPE_CHECKING:\n    from p import two\n")
    two.write_text("def f():\n    import p.one\n    from p.one import x\n")
    graph = imports_among({"p.one": one, "p.two": two})
    assert graph == {"p.one": {"p.two"}, "p.two": {"p.one"}}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


def test_there_is_no_fifth_package_and_no_drawer_for_oddments() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so that a user's own folders cannot be told from ours")
    paths = [Path(line) for line in listed.stdout.splitlines()]
    tops = {path.parts[0] for path in paths}
    assert tops <= {*PACKAGES, "tests", "examples", "benchmarks", ".ci"}
    assert not [path for path in paths if path.stem in ("utils", "util", "helpers", "misc")]
    assert not [path for path in paths if path.parts[0] == "tests" and path.name == "__init__.py"]
