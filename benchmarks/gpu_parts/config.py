"""Flags of `benchmarks/gpu.sh`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Record = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Config:
    """Flags of `benchmarks/gpu.sh`."""

    out: Path = Path("benchmarks/gpu.json")
    """File to write."""
    data_dir: Path | None = None
    """Folder that holds `binarized_mnist/` and `cifar10_npz/`, for the trainings to a score."""
    parts: tuple[str, ...] = ()
    """Parts to run (default: all)."""
    small: bool = False
    """Tiny sizes on any device, to test the script."""
    show: Path | None = None
    """Print an earlier file as Markdown tables, and measure nothing."""

    @property
    def device(self) -> torch.device:
        """Device to measure."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
