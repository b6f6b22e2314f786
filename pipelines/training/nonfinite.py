"""Steps that are not taken, because the loss or the gradient is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.training.schedule import Work
from pipelines.training.step import Outcome

MOST_IN_A_ROW = 20  # more non-finite steps than this are not bad luck


class NonFiniteStepError(UserError):
    """A loss or a gradient in training is not finite; it has changed no weight."""


class Skipped:
    """Count of the steps that were not taken.

    Attributes:
        total: in the whole run.
        in_a_row: up to the last step.

    >>> skipped = Skipped()
    >>> for taken in (False, True, False, False):
    ...     skipped.count(taken=taken)
    >>> skipped.total, skipped.in_a_row
    (3, 2)
    """

    def __init__(self) -> None:
        self.total = self.in_a_row = 0

    def count(self, *, taken: bool) -> None:
        """Count a step."""
        self.total += not taken
        self.in_a_row = 0 if taken else self.in_a_row + 1

    def take_back(self) -> None:
        """Forget the last step, which was not taken: a resumed run does it again."""
        self.total -= 1
        self.in_a_row -= 1

    @property
    def too_many(self) -> bool:
        """True if too many steps in a row were left out."""
        return self.in_a_row >= MOST_IN_A_ROW


def describe(job: Work, outcome: Outcome, *, last_good: int, action: str) -> dict[str, Any]:
    """Return the record of a step that is not taken, with strings for numbers that JSON lacks.

    Args:
        job: the step's images.
        outcome: of the step.
        last_good: the last step that was taken.
        action: the value of --on-nonfinite.
    """
    loss, norm = outcome.sums[0] / len(job.indices), outcome.norm
    return {
        "last_good_step": last_good,
        "loss": loss if math.isfinite(loss) else str(loss),
        "grad_norm": norm if math.isfinite(norm) else str(norm),
        "indices": job.indices.tolist(),
        "action": action,
    }


def refusal(step: int, record: Mapping[str, Any], file: Path) -> NonFiniteStepError:
    """Return the error that ends training at a step.

    Args:
        step: its number.
        record: from `describe`.
        file: that holds the record.
    """
    return NonFiniteStepError(
        f"step {step} has a loss of {record['loss']} and a gradient of norm "
        f"{record['grad_norm']}, so it was not taken. The weights of step "
        f"{record['last_good_step']} are saved, and {file} names the batch: lower --learning-rate "
        "in a new run, or resume with --resume --on-nonfinite skip"
    )
