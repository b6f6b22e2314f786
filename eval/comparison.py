"""Paired comparison of two results.

Pairing the scores cancels what makes an image hard for both models, so the standard error of the
difference is far below that of either mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.errors import ResultError
from eval.result_files import read_result, read_scores
from eval.results import Result
from eval.scores import Score, bits_per_dim

SAME = ("data", "variant", "split", "count", "fingerprint", "image_shape", "levels", "binarize")


@dataclass(frozen=True)
class Comparison:
    """Run A minus run B, in nats per image: negative if A is better."""

    a: Result
    b: Result
    difference: Score

    @property
    def deviations(self) -> float:
        """Mean difference, in standard errors."""
        mean, stderr = self.difference.mean, self.difference.stderr
        if mean == 0:
            return 0.0
        return mean / stderr if stderr else float(np.copysign(np.inf, mean))

    def best(self, most: int) -> np.ndarray:
        """Return the images on which A is better than B, the largest gains first."""
        order = np.argsort(self.difference.values, kind="stable")[:most]
        return order[self.difference.values[order] < 0]

    def worst(self, most: int) -> np.ndarray:
        """Return the images on which B is better than A, the largest gains first."""
        order = np.argsort(-self.difference.values, kind="stable")[:most]
        return order[self.difference.values[order] > 0]

    @property
    def verdict(self) -> str:
        """Sentence that says which run is better, and how significantly."""
        mean, stderr = self.difference.mean, self.difference.stderr
        bits = bits_per_dim(abs(mean), self.a.dims)
        gap = f"{abs(mean):.3f} ± {stderr:.3f} nats/image ({bits:.5f} bits/dim)"
        if not abs(self.deviations) > 2:
            return f"No difference beyond two standard errors: {gap}."
        better = "A" if mean < 0 else "B"
        return f"{better} is better by {gap}, {abs(self.deviations):.1f} standard errors."


def _scores(run: Path) -> tuple[Result, np.ndarray]:
    """Read a run's result and its per-image scores."""
    if not run.exists():
        raise ResultError(f"{run} does not exist: name a run directory or a result file")
    result = read_result(run)
    return result, read_scores(run / "result.json" if run.is_dir() else run, result)


def compare(run_a: Path, run_b: Path) -> Comparison:
    """Compare two runs image by image.

    Raises:
        ResultError: a run has no scores, or the two were scored on different images.
    """
    (a, scores_a), (b, scores_b) = _scores(run_a), _scores(run_b)
    for name in SAME:
        if getattr(a, name) != getattr(b, name):
            raise ResultError(
                f"the runs differ in {name} ({getattr(a, name)} and {getattr(b, name)}): "
                "only scores of the same images can be compared"
            )
    return Comparison(a, b, Score(scores_a - scores_b))


def kinds(comparison: Comparison) -> str:
    """Return a warning if the two numbers are of different kinds, else an empty string."""
    a, b = comparison.a, comparison.b
    if (a.kind, a.condition) == (b.kind, b.condition):
        return ""
    return (
        f"A is {a.kind} (condition {a.condition}), B is {b.kind} (condition {b.condition}): "
        "the difference reflects more than the models."
    )


def settings(comparison: Comparison) -> list[tuple[str, str, str]]:
    """List the settings in which the runs differ: name, A's, B's."""
    a, b = comparison.a.config, comparison.b.config
    names = sorted(set(a) | set(b))
    return [
        (name, str(a.get(name, "–")), str(b.get(name, "–")))
        for name in names
        if a.get(name) != b.get(name)
    ]


def to_text(comparison: Comparison, most: int) -> str:
    """Return the comparison as text for a terminal."""
    lines = []
    for name, result in (("A", comparison.a), ("B", comparison.b)):
        bits = f"{result.bits_per_dim:.4f} bits/dim"
        lines.append(
            f"{name}  {result.value:10.3f} nats/image  {bits}  {result.kind}, {result.name}"
        )
    lines += ["", comparison.verdict]
    if kinds(comparison):
        lines.append(kinds(comparison))
    values = comparison.difference.values
    wins = int((values < 0).sum())
    lines.append(f"A is better on {wins:,} of {len(values):,} images.")
    for name, places in (("A", comparison.best(most)), ("B", comparison.worst(most))):
        gains = ", ".join(f"#{place} ({abs(values[place]):.2f})" for place in places) or "none"
        lines.append(f"Images on which {name} gains most (nats): {gains}")
    return "\n".join(lines)
