"""Proves that every promise of docs/guarantees.md names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
PROOFS = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)


def test_every_promise_names_a_test() -> None:
    for item in re.split(r"^- ", PAGE, flags=re.MULTILINE)[1:]:
        assert "`tests/" in item, item


@pytest.mark.parametrize(("file", "test"), PROOFS)
def test_the_test_exists(file: str, test: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {test or 'test_'}", source, flags=re.MULTILINE)
