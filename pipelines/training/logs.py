"""Logs of training: metrics.jsonl, nonfinite.jsonl and TensorBoard's events.

A resumed run appends. It first drops lines of steps after its checkpoint, so that no step appears
twice and an interrupted run's file equals an uninterrupted one's.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from torch.utils.tensorboard import SummaryWriter

from eval import bits_per_dim
from pipelines.runtime.errors import WriteError
from pipelines.runtime.files import whole_file
from pipelines.runtime.messages import warn

P = ParamSpec("P")

METRICS, NONFINITE, EVENTS = "metrics.jsonl", "nonfinite.jsonl", "tensorboard"


def drop_later_lines(path: Path, step: int) -> None:
    """Keep the lines of `path` up to a step, and drop one that a crash cut short."""
    if not path.is_file():
        return
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        kept = list(takewhile(partial(_is_up_to, step), lines))
        if kept != lines:
            with whole_file(path, replace=True) as stream:
                stream.writelines(kept)
    except (OSError, WriteError) as error:
        warn(f"{path} keeps lines of steps after step {step}: {error}")


def _is_up_to(step: int, line: bytes) -> bool:
    try:
        return json.loads(line)["step"] <= step and line.endswith(b"\n")
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


class Events:
    """TensorBoard's files of a run. If they can't be written, it warns once and stops.

    Args:
        run_dir: the run directory.
        options: further arguments of `SummaryWriter`.
    """

    def __init__(self, run_dir: Path, **options: Any) -> None:
        self.folder = run_dir / EVENTS
        self._writer: SummaryWriter | None = None
        # The writer's thread raises its error once more in this thread: once is enough.
        self._hook, threading.excepthook = threading.excepthook, self._thread_failed
        with self._watched():
            self._writer = SummaryWriter(str(self.folder), **options)

    def add(
        self, method: Callable[Concatenate[SummaryWriter, P], object], *args: P.args, **kw: P.kwargs
    ) -> None:
        """Call a method of the writer, such as `SummaryWriter.add_scalar`, while it can write."""
        with self._watched():
            if self._writer is not None:
                method(self._writer, *args, **kw)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that is not UTF-8
            warn(f"no more TensorBoard curves: cannot write to {self.folder}: {error}")
            writer, self._writer = self._writer, None
            _close(writer)

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        if not isinstance(failed.exc_value, OSError):
            self._hook(failed)

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.add(SummaryWriter.flush)
        _close(self._writer)
        threading.excepthook = self._hook


def _close(writer: SummaryWriter | None) -> None:
    """Close a writer, whose error has been reported."""
    if writer is not None:
        with contextlib.suppress(OSError):
            writer.close()


class Logs:
    """The logs of one run, written by its first process; those of the others do nothing.

    A log that can't be written does not end the run: it is lost, after a warning.

    Args:
        run_dir: the run directory.
        step: the step that the run starts or resumes at.
        enabled: whether this process writes.
    """

    def __init__(self, run_dir: Path, *, step: int, enabled: bool) -> None:
        self.run_dir = run_dir
        self.events: Events | None = None
        self._warned = False
        if enabled:
            for name in (METRICS, NONFINITE):
                drop_later_lines(run_dir / name, step)
            self.events = Events(run_dir, purge_step=step + 1)

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Write a line of metrics, and TensorBoard's scalars."""
        if self.events is not None:
            self._append(METRICS, {"step": step, **figures})
            for name, value in figures.items():
                if isinstance(value, (int, float)):
                    self.events.add(SummaryWriter.add_scalar, name, value, step)

    def nonfinite(self, step: int, record: Mapping[str, Any]) -> None:
        """Write a line about a step that was not taken."""
        if self.events is not None:
            self._append(NONFINITE, {"step": step, **record})

    def sync(self) -> None:
        """Flush everything, before a checkpoint that relies on it."""
        if self.events is not None:
            self.events.add(SummaryWriter.flush)

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        path = self.run_dir / name
        try:
            append(path, record)
        except OSError as error:
            if not self._warned:
                warn(f"cannot write {path}: {error.strerror or error}; training continues")
            self._warned = True

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: object) -> None:
        if self.events is not None:
            self.events.__exit__()


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Append one line to a JSON-lines file, whole or not at all, and sync it to disk.

    Raises:
        OSError: it can't be written.
    """
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            line = json.dumps(record).encode() + b"\n"
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)  # removes a part of the line
            raise


class Window:
    """Sums since the last line of metrics.

    >>> window = Window()
    >>> window.add([10.0, 8.0, 4.0], norm=0.5, images=2)
    >>> figures = window.figures(dims=8)
    >>> [figures[name] for name in ("nats", "distortion", "rate", "objective", "grad_norm")]
    [6.0, 4.0, 2.0, 5.0, 0.5]
    """

    def __init__(self) -> None:
        self.state: list[float] = []  # surrogate, distortion, rates, norm, images, steps
        self.auxiliary: float | None = None  # part of the surrogate; None if the model has none
        self.began = time.monotonic()

    def add(
        self, sums: Sequence[float], norm: float, images: int, auxiliary: float | None = None
    ) -> None:
        """Add a step: sums over images of surrogate, distortion and each level's rate (nats)."""
        new = [*sums, norm, float(images), 1.0]
        self.state = [a + b for a, b in zip(self.state or [0.0] * len(new), new, strict=True)]
        if auxiliary is not None:
            self.auxiliary = (self.auxiliary or 0.0) + auxiliary

    def figures(self, dims: int) -> dict[str, Any]:
        """Return the means of the bound, and of the objective minimized in its place.

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
        if self.auxiliary is not None:
            figures["auxiliary"] = self.auxiliary / images
        for level, rate in enumerate(rates if len(rates) > 1 else []):
            figures[f"rate_{level}"] = rate / images
        return figures

    def clear(self) -> None:
        """Start again, after a line."""
        self.state, self.auxiliary, self.began = [], None, time.monotonic()
