"""History: what a checkpoint keeps of a run besides weights, average and optimizer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pipelines.training.logs import Window
from pipelines.training.nonfinite import Skipped

SCORE = "bits_per_dim"  # of an evaluation; the lowest value decides which checkpoint is the best


class History:
    """A run so far, earlier parts of a resumed run included.

    Attributes:
        window: sums since the last line of metrics.
        skipped: steps that were not taken.
        best: step and score of the best evaluation, None before the first one.
        evaluated: step of the last evaluation.

    >>> history = History()
    >>> [history.evaluate(step, {"bits_per_dim": score}) for step, score in ((1, 3.0), (2, 3.5))]
    [True, False]
    >>> history.best_step, history.evaluated
    (1, 2)
    """

    def __init__(self) -> None:
        self.window = Window()
        self.skipped = Skipped()
        self.best: dict[str, Any] | None = None
        self.evaluated = 0
        self._seconds = 0.0  # of earlier parts
        self._began = time.monotonic()

    def start(self) -> None:
        """Start the clock of this part of the run."""
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training."""
        return self._seconds + time.monotonic() - self._began

    @property
    def best_step(self) -> int | None:
        """Step of the best evaluation."""
        return self.best["step"] if self.best else None

    def evaluate(self, step: int, scores: Mapping[str, float]) -> bool:
        """Record an evaluation; return True if it is the best so far."""
        self.evaluated = step
        if self.best is not None and scores[SCORE] >= self.best[SCORE]:
            return False
        self.best = {"step": step, SCORE: float(scores[SCORE])}
        return True

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "window": self.window.state,
            "auxiliary": self.window.auxiliary,
            "best": self.best,
            "evaluated": self.evaluated,
            "skipped": [self.skipped.total, self.skipped.in_a_row],
            "seconds": self.seconds,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Resume from `state`."""
        self.window.state, self.best = state["window"], state["best"]
        self.window.auxiliary = state.get("auxiliary")  # older checkpoints have none
        self.evaluated, self._seconds = state["evaluated"], state["seconds"]
        self.skipped.total, self.skipped.in_a_row = state["skipped"]
