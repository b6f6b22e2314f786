"""What results/ promises: each file reads, names where it comes from, and is unlike the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.discovery import discover
from eval.results import read_result

RESULTS = Path(__file__).parent.parent / "results"
FILES = sorted(RESULTS.rglob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_committed_result_says_where_it_comes_from(file: Path) -> None:
    result = read_result(file)
    assert result.command is not None
    assert result.command.startswith("python -m pipelines.")
    assert result.commit is not None
    assert result.fingerprint
    assert result.count >= 1


def test_all_committed_results_can_stand_in_one_table() -> None:
    found, problems = discover([RESULTS])
    assert problems == []
    assert len(found) == len(FILES)
