"""What results/ promises: each file reads, names where it comes from, and is unlike the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval import read_result
from eval.discovery import discover
from eval.leaderboard import main

RESULTS = Path(__file__).parent.parent / "results"
FILES = sorted(RESULTS.rglob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_committed_result_says_where_it_comes_from(file: Path) -> None:
    result = read_result(file)
    assert result.command.startswith("python -m pipelines.")
    assert result.commit is not None
    assert result.fingerprint


def test_all_committed_results_can_stand_in_one_table() -> None:
    found, problems = discover([RESULTS])
    assert problems == []
    assert len(found) == len(FILES)


def test_the_readme_shows_the_leaderboard_of_these_results(tmp_path: Path) -> None:
    shown = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    page = tmp_path / "README.md"
    page.write_text(shown, encoding="utf-8")
    assert main([str(RESULTS), "--no-published", "--into", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == shown, "draw it anew: see README, Leaderboard"
