"""Proves that every benchmark starts and says how it is run, and that the one which reaches into
the coder still finds it; nothing is timed.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmark_starts_and_says_how_it_is_run(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path), "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout
    assert f"python benchmarks/{path.name}" in path.read_text(encoding="utf-8")


def test_compression_finds_the_parts_of_the_coder(capsys: pytest.CaptureFixture[str]) -> None:
    """In float64 a tiny image's tables do not differ, so that either way of encoding is decoded."""
    names = runpy.run_path(str(ROOT / "benchmarks" / "compression.py"))
    names["measure"]((1, 4, 4), 2, 2, torch.float64)
    printed = capsys.readouterr().out
    assert "tables differ, at once / scan 0.00%" in printed
    assert "encoded at once               exact" in printed
