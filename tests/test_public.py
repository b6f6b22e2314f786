"""Prove what is public: the names and signatures of the four packages, and that examples use them.

`public.txt` holds each public name with its signature, or its methods. A change to it is a change
that users see: it belongs in the changelog.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SNAPSHOT = Path(__file__).with_name("public.txt")
PACKAGES = ("decoders", "encoders", "eval", "pipelines")
UPDATE = "python tests/test_public.py > tests/public.txt"
PRESETS = {"pipelines.autoencoder", "pipelines.pixelcnn", "pipelines.pixelvae"}


def signature(value: Any) -> str:
    """The signature of a function, without addresses of default values."""
    try:
        said = re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(value)))
        return re.sub(r"ForwardRef\((.*?)\)", r"\1", said)  # as versions of Python differ
    except (TypeError, ValueError):
        return ""


def described(name: str, value: Any) -> Iterator[str]:
    """Lines about one public name: its signature, and those of a class's own methods."""
    if isinstance(value, type):
        yield f"class {name}{signature(value)}"
        for key, method in sorted(vars(value).items()):
            if key.startswith("_") or not callable(getattr(value, key)):
                continue
            if isinstance(method, type):
                continue
            yield f"    {key}{signature(getattr(value, key))}"
    elif callable(value):
        yield f"{name}{signature(value)}"
    elif isinstance(value, ModuleType):
        yield f"{name}: module"
    else:
        yield f"{name}: {type(value).__name__}"


def snapshot() -> str:
    lines = []
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in sorted(module.__all__):
            lines += described(f"{package}.{name}", getattr(module, name))
    return "\n".join(lines) + "\n"


def test_public_names_and_signatures_are_those_of_the_snapshot() -> None:
    # In a process of its own: what other tests import, such as a command, changes nothing.
    done = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == SNAPSHOT.read_text(encoding="utf-8"), (
        f"the public API changed: if that is meant, run `{UPDATE}`, and tell users in CHANGELOG.md"
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_what_is_there_sorted_and_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        assert name in dir(module)
        assert value.__doc__, name
        assert isinstance(value, str) or (inspect.getdoc(value) or "").strip(), name


def test_the_face_of_pipelines_needs_no_torch() -> None:
    code = (
        "import sys, pipelines\nfrom pipelines import DataConfig, Pipeline, RunConfig\n"
        "from pipelines.pixelvae import PRESETS\nassert PRESETS['digits'].training.epochs\n"
        "assert not {'torch', 'lightning_fabric'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_another_name_of_pipelines_is_an_attribute_error() -> None:
    import pipelines

    with pytest.raises(AttributeError, match="'pipelines' has no attribute 'lode'"):
        pipelines.lode  # noqa: B018  # pyright: ignore


def test_evaluate_is_one_object_whoever_imports_it_first() -> None:
    """The command's module and the function share their name."""
    for first in ("import pipelines.evaluate", "from pipelines import evaluate"):
        code = (
            f"{first}\nfrom pipelines import evaluate\nimport pipelines\n"
            "assert evaluate is pipelines.evaluate\nassert callable(evaluate)\n"
            "assert callable(evaluate.main)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of everything that a file imports from the four packages."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem
)
def test_examples_import_public_names_alone(path: Path) -> None:
    for module, name in imports(path):
        if module.partition(".")[0] in PACKAGES and module not in PRESETS:
            assert module in PACKAGES, f"{path.name} imports from {module}"
            public = importlib.import_module(module).__all__
            assert not name or name in public, f"{path.name} imports {name} of {module}"


if __name__ == "__main__":
    sys.stdout.write(snapshot())
