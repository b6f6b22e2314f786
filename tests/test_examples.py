"""Proves that every example runs: two steps each, up to its pictures."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

TUTORIAL = Path(__file__).parent.parent / "examples" / "tutorial.py"
EXAMPLES = sorted(set(TUTORIAL.parent.glob("*.py")) - {TUTORIAL})


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_draws(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.random.fork_rng():
        load(path).main(steps=2, out=tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert len(picture.getcolors(2**20) or ()) > 2
    assert "picture.png" in capsys.readouterr().out
    assert f"python examples/{path.name}" in path.read_text(encoding="utf-8")


def test_tutorial_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    environment = {**os.environ, "TUTORIAL_STEPS": "2"}
    done = subprocess.run(
        [sys.executable, str(TUTORIAL)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "estimate with K = 50" in done.stdout
    pictures = {
        f"tutorial-{name}.png" for name in ["samples", "labels", "interpolation", "completion"]
    }
    assert {path.name for path in tmp_path.iterdir()} == pictures
