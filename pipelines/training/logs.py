"""What training leaves on record: metrics.jsonl, nonfinite.jsonl and TensorBoard's events.

A resumed run appends. Lines of steps after the checkpoint that it goes on from are dropped first,
so that no step stands twice and an interrupted run's file equals an uninterrupted one's.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from eval.nll import bits_per_dim
from pipelines.runtime.files import write_text
from pipelines.training.checkpoint import CheckpointError

METRICS, NONFINITE, EVENTS = "metrics.jsonl", "nonfinite.jsonl", "tensorboard"


def drop_later_lines(path: Path, step: int) -> None:
    """Keep the lines of `path` up to a step; a line cut short by a crash goes too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if json.loads(line)["step"] > step or not line.endswith("\n"):
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
    write_text(path, "".join(kept))


class Logs:
    """The logs of one run, written by its first process; the others' do nothing.

    Args:
        run_dir: the run directory.
        step: the step that the run begins or goes on at.
        enabled: whether this process writes.
    """

    def __init__(self, run_dir: Path, *, step: int, enabled: bool) -> None:
        self.run_dir = run_dir
        self.events: SummaryWriter | None = None
        if enabled:
            for name in (METRICS, NONFINITE):
                drop_later_lines(run_dir / name, step)
            self.events = SummaryWriter(str(run_dir / EVENTS), purge_step=step + 1)

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """One line of metrics and its scalars."""
        if self.events is not None:
            append(self.run_dir / METRICS, {"step": step, **figures})
            for name, value in figures.items():
                if isinstance(value, (int, float)):
                    self.events.add_scalar(name, value, step)

    def nonfinite(self, step: int, record: Mapping[str, Any]) -> None:
        """One line about a step that was not taken; numbers that JSON lacks stand as strings."""
        if self.events is not None:
            append(self.run_dir / NONFINITE, {"step": step, **record})

    def sync(self) -> None:
        """Bring everything out of this process, before a checkpoint that counts on it."""
        if self.events is not None:
            self.events.flush()

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.events is not None:
            # on a full disk closing fails as well: the first error is the one to show
            with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
                self.events.close()


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line to a JSON-lines file, and see it to the disk.

    Raises:
        CheckpointError: it can't be written.
    """
    try:
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; the last checkpoint is untouched: "
            "make room or make the folder writable, then go on with --resume"
        ) from error


class Window:
    """Sums since the last line of metrics, and the line that they make.

    >>> window = Window()
    >>> window.add([10.0, 8.0, 4.0], norm=0.5, images=2)
    >>> figures = window.figures(dims=8)
    >>> [figures[name] for name in ("nats", "distortion", "rate", "objective", "grad_norm")]
    [6.0, 4.0, 2.0, 5.0, 0.5]
    """

    def __init__(self) -> None:
        self.state: list[float] = []  # surrogate, distortion, rates, norm, images, steps
        self.began = time.monotonic()

    def add(self, sums: Sequence[float], norm: float, images: int) -> None:
        """One step: sums over its images of surrogate, distortion and each level's rate (nats)."""
        new = [*sums, norm, float(images), 1.0]
        self.state = [a + b for a, b in zip(self.state or [0.0] * len(new), new, strict=True)]

    def figures(self, dims: int) -> dict[str, Any]:
        """The means, of the true bound and of what was minimised in its place.

        Args:
            dims: sub-pixels of an image, for bits/dim.
        """
        if not self.state:
            return {}
        objective, distortion, *rates, norm, images, steps = self.state
        nats = (distortion + sum(rates)) / images
        figures = {
            "nats": nats,
            "bits_per_dim": bits_per_dim(nats, dims),
            "distortion": distortion / images,
            "rate": sum(rates) / images,
            "objective": objective / images,
            "grad_norm": norm / steps,
            "images_per_second": images / max(time.monotonic() - self.began, 1e-9),
        }
        for level, rate in enumerate(rates if len(rates) > 1 else []):
            figures[f"rate_{level}"] = rate / images
        return figures

    def clear(self) -> None:
        """Begin anew, after a line."""
        self.state, self.began = [], time.monotonic()
