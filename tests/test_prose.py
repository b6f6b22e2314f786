"""Docstrings open with a noun or a verb, and prose keeps to one spelling and one word per thing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("decoders", "encoders", "eval", "pipelines")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "weights/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]

OPENINGS = {
    *("What", "Which", "Whether", "How", "Who", "Why", "Where", "When"),
    *("Of", "In", "By", "From", "To", "For", "With", "At", "On"),
}
DROPPED = [
    r"\banew\b",
    r"\bto be had\b",
    r"\bto be seen\b",
    r"\bso many\b",
    r"\bat hand\b",
    r"\bgoes? on with\b",
    r"\bcomes? into being\b",
    r"\bstand-in\b",
    r"(?<!here )(?<!, )\b(is|are) no [a-z]+(,|\.|;|$)",
    r"(?i)\b\w*(colour|grey|neighbour|behaviour|centre|normalis|optimis|initialis|quantis|binaris)\w*",
]
# A renamed flag, a caption of the shapes, whose fingerprints stay, and names of results.
KEPT = ("--neighbours", '"centre"', "colours by groups", "colours by head")


def docstrings(path: Path) -> list[tuple[int, str]]:
    """Return the line and text of every docstring of a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                found.append((getattr(node, "lineno", 1), text))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_open_with_a_noun_or_a_verb(path: Path) -> None:
    opened = [(line, text.split()[0].strip(",.:")) for line, text in docstrings(path)]
    assert [(line, word) for line, word in opened if word in OPENINGS] == []


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_dropped_words_stay_dropped(path: Path) -> None:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for kept in KEPT:
            line = line.replace(kept, "")
        found += [(number, m[0]) for word in DROPPED for m in re.finditer(word, line)]
    assert found == []
