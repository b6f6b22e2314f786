"""Progress display of training, evaluation, packing and sampling.

On a terminal it is a tqdm bar. Elsewhere (a log file, a batch system, CI) it is one plain line
every few seconds, so that logs stay short and still show the speed and the time left.
Both go to standard error, since standard output is for results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

from pipelines.runtime.messages import write

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 5.0


def clock(seconds: float) -> str:
    """Return a duration in words that people read.

    >>> clock(9), clock(75), clock(3_661), clock(90_000)
    ('9s', '1m 15s', '1h 01m', '25h 00m')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


class _Kept:
    """Terminal that may close at any time; text that it doesn't take is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> None:
        write(self._stream, text)

    def flush(self) -> None:
        """Do nothing: every write is flushed."""

    def fileno(self) -> int:  # tqdm asks it for the width
        return self._stream.fileno()

    def isatty(self) -> bool:
        return True


class Progress:
    """Context manager that counts from `initial` to `total` and shows it.

    Args:
        total: number of units.
        label: name of the activity, such as "train".
        unit: name of what is counted, such as "step" or "image".
        initial: number of units done before (a resumed run); they don't count for the rate.
        enabled: False shows nothing, for every process but the first.
        stream: to write to; standard error if None.
        every: seconds between two lines if the stream is not a terminal.

    >>> import sys
    >>> with Progress(4, "score", unit="image", stream=sys.stdout, every=1e9) as bar:
    ...     bar.update(4, nats=1.5)  # doctest: +ELLIPSIS
    score  4/4 images  100%  ... images/s  took 0s  nats 1.5
    """

    def __init__(
        self,
        total: int,
        label: str,
        *,
        unit: str = "step",
        initial: int = 0,
        enabled: bool = True,
        stream: TextIO | None = None,
        every: float = SECONDS_BETWEEN_LINES,
    ) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.count = self.initial = initial
        self.stream = sys.stderr if stream is None else stream
        self.enabled, self.every = enabled, every
        self.figures: dict[str, float] = {}
        self.began = self.last_line = time.monotonic()
        self.bar: tqdm | None = None
        if enabled and self.stream is not None and self.stream.isatty():
            self.bar = tqdm(
                total=total, desc=label, unit=unit, initial=initial, file=_Kept(self.stream)
            )

    def update(self, count: int = 1, **figures: float) -> None:
        """Count more units as done; `figures` (such as loss=3.2) are shown next to the bar."""
        self.count += count
        self.figures.update(figures)
        if self.bar is not None:
            if self.figures:
                self.bar.set_postfix(
                    {name: f"{value:.4g}" for name, value in self.figures.items()}, refresh=False
                )
            self.bar.update(count)
        elif self.enabled:
            now = time.monotonic()
            if self.count >= self.total or now - self.last_line >= self.every:
                self.last_line = now
                write(self.stream, self.line(now - self.began) + "\n")

    def line(self, elapsed: float) -> str:
        """Return the plain line, `elapsed` seconds after the start."""
        rate = (self.count - self.initial) / max(elapsed, 1e-9)
        speed = f"{rate:.3g} {self.unit}s/s" if 0 < rate < 1e6 else f"- {self.unit}s/s"
        if self.count >= self.total:
            left = f"took {clock(elapsed)}"
        elif rate > 0:
            left = f"{clock((self.total - self.count) / rate)} left"
        else:
            left = "? left"
        parts = [
            self.label,
            f"{self.count}/{self.total} {self.unit}s",
            f"{100 * self.count // max(self.total, 1)}%",
            speed,
            left,
            *(f"{name} {value:.4g}" for name, value in self.figures.items()),
        ]
        return "  ".join(parts)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def progress(
    iterable: Iterable[T],
    total: int,
    label: str,
    *,
    unit: str = "step",
    enabled: bool = True,
) -> Iterator[T]:
    """Pass `iterable` through, one unit of progress for each item.

    >>> sum(progress([1, 2, 3], 3, "add", enabled=False))
    6
    """
    with Progress(total, label, unit=unit, enabled=enabled) as bar:
        for item in iterable:
            yield item
            bar.update()
