"""Measure two training processes of one thread each against one process of two threads.

    python benchmarks/processes.py [--steps 60] [--rounds 3]

Both train the same decoder on the same global batches of `shapes`, with the toolkit's command.
The ratio of their training times shows whether exchanging gradients costs two processes more than
synchronizing threads in every operation. The best of some alternating rounds counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parents[1]


def train_seconds(processes: int, threads: int, steps: int, folder: Path) -> float:
    """Return the training time of `steps` steps, from the run's result file."""
    flags = {
        "data": "shapes", "limit": 2000, "steps": steps, "batch-size": 32, "num-layers": 8,
        "devices": processes, "accelerator": "cpu", "num-samples": 0, "out": folder,
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "pipelines.pixelcnn", *words]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return json.loads((folder / "result.json").read_text())["train_seconds"]


def main(steps: int = 60, rounds: int = 3) -> None:
    """Print the ratio.

    Args:
        steps: number of steps of each training.
        rounds: number of rounds; the best counts.
    """
    one, two = [], []
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds):
            one.append(train_seconds(1, 2, steps, Path(name) / f"one-{number}"))
            two.append(train_seconds(2, 1, steps, Path(name) / f"two-{number}"))
            print(f"one process: {one[-1]:.1f} s, two: {two[-1]:.1f} s for {steps} steps")
    ratio = min(one) / min(two)
    print(f"speed of two processes / of one with two threads: {ratio:.2f} (0.95 or more)")


if __name__ == "__main__":
    tyro.cli(main)
