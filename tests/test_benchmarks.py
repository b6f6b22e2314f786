"""Every benchmark starts and says how it is run, and the one that uses the coder's internals still
finds them. Nothing is timed.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

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


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names of benchmarks/gpu.py, which imports another benchmark."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))


def test_the_page_about_gpus_shows_the_measurements(gpu: dict[str, Any]) -> None:
    record = json.loads((ROOT / "benchmarks" / "gpu.json").read_text())
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    shown = page.split("<!-- gpu -->\n")[1].split("<!-- /gpu -->")[0]
    assert shown.strip() == gpu["tables"](record).strip()


def test_gpu_measures_the_parts_asked_for_and_keeps_the_others(
    gpu: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "gpu.json"
    out.write_text('{"quality": {"skipped": "no data"}}')
    gpu["main"](gpu["Config"](out=out, parts=("machine", "sampling"), small=True))
    record = json.loads(out.read_text())
    assert record["quality"] == {"skipped": "no data"}
    assert record["machine"]["bf16_matrix_rate"] > 0
    (case,) = record["sampling"]["cases"].values()
    assert [row["batch"] for row in case["batches"]] == [1, 4]
    assert "sampling 1×6×6" in gpu["tables"](record)


@pytest.mark.slow
def test_gpu_runs_every_part_without_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    subprocess.run(
        ["bash", "benchmarks/gpu.sh", "--small", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
    )
    record = json.loads(out.read_text())
    assert not [name for name, part in record.items() if "error" in part]
    assert len(record) == 8


def test_compression_finds_the_parts_of_the_coder(capsys: pytest.CaptureFixture[str]) -> None:
    """Decode either way of encoding: in float64 a tiny image's tables do not differ."""
    names = runpy.run_path(str(ROOT / "benchmarks" / "compression.py"))
    names["measure"]((1, 4, 4), 2, 2, torch.float64)
    printed = capsys.readouterr().out
    assert "tables differ, at once / scan 0.00%" in printed
    assert "encoded at once               exact" in printed
