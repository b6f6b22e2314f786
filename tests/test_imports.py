"""Proves the design's import rules, read off the source without importing it.

decoders ─┐
encoders ─┼─> pipelines      the three on the left know nothing of each other, nor of pipelines
eval ─────┘
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
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


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The dotted names of all modules that a file imports, anywhere in it, by any spelling."""
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
    """What is known of a module's name that is put together at run time."""
    if isinstance(argument, ast.JoinedStr):
        argument = argument.values[0]
    value = argument.value if isinstance(argument, ast.Constant) else ""
    return value if isinstance(value, str) else ""


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
