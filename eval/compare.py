"""Two runs on the same images: `python -m eval.compare RUN_A RUN_B`.

The difference is taken image by image, so that what makes an image hard for both cancels, and its
standard error is far below that of either mean.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from eval.discovery import check_output
from eval.errors import ResultError
from eval.files import at_home, is_own_file, read_array
from eval.leaderboard import emit
from eval.pages import page
from eval.pictures import data_uri, pictures
from eval.results import Result, read_result, read_scores
from eval.scores import Score, bits_per_dim
from eval.text import exit_code, say

SAME = ("data", "variant", "split", "count", "fingerprint", "image_shape", "levels", "binarize")


@dataclass(frozen=True)
class Config:
    """Compare two runs image by image."""

    run_a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_A")]
    """A run directory with result.json and nll.npy, or a result file with its scores beside it."""
    run_b: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_B")]
    """Another, scored on the same images."""
    most: int = 8
    """How many of the images that they differ on most to show, each way."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None
    """Write a page with the pictures of both to this file too."""


@dataclass(frozen=True)
class Comparison:
    """Run A less run B, in nats per image: negative where A is better."""

    a: Result
    b: Result
    difference: Score

    @property
    def deviations(self) -> float:
        """The mean difference in standard errors."""
        mean, stderr = self.difference.mean, self.difference.stderr
        if mean == 0:
            return 0.0
        return mean / stderr if stderr else float(np.copysign(np.inf, mean))

    def best(self, most: int) -> np.ndarray:
        """Return the images on which A gains most over B, the largest gain first."""
        order = np.argsort(self.difference.values, kind="stable")[:most]
        return order[self.difference.values[order] < 0]

    def worst(self, most: int) -> np.ndarray:
        """Return the images on which B gains most over A, the largest gain first."""
        order = np.argsort(-self.difference.values, kind="stable")[:most]
        return order[self.difference.values[order] > 0]

    @property
    def verdict(self) -> str:
        """Say which run is better, and how surely."""
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
    """Compare two run directories image by image.

    Raises:
        ResultError: a run has no scores, or the two were scored on different images or under
            different conditions.
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
    """Warn where the two numbers are of different kinds; empty where they aren't."""
    a, b = comparison.a, comparison.b
    if (a.kind, a.condition) == (b.kind, b.condition):
        return ""
    return (
        f"A is {a.kind} (condition {a.condition}), B is {b.kind} (condition {b.condition}): "
        "the difference mixes the models with what their numbers mean."
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
    """Write the comparison for a terminal."""
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
        lines.append(f"Images that {name} gains most on (nats): {gains}")
    return "\n".join(lines)


def _image(run_dirs: Sequence[Path], place: int) -> str:
    """Return one scored image as a `data:` address, from the first run with `images.npy`."""
    for path in (folder / "images.npy" for folder in run_dirs):
        if not is_own_file(path):
            continue
        images = read_array(path)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ResultError(f"{path} must hold uint8 (N, 1 or 3, H, W), got {images.shape}")
        if place < len(images):
            pixels = np.moveaxis(np.asarray(images[place]), 0, -1)
            return data_uri(
                Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
            )
    return ""


def to_html(
    comparison: Comparison, run_dirs: Sequence[Path], most: int, *, show_images: bool = True
) -> str:
    """Write the comparison as a self-contained page with both runs' pictures side by side.

    The images they differ on most come from `images.npy`, uint8 (N, C, H, W) for display in the
    order of `nll.npy`, where one of the run directories has it; `show_images` is False where the
    compared results are not those that it belongs to.
    """
    image_dirs = run_dirs if show_images else ()
    values = comparison.difference.values
    extremes = {
        name: [(int(p), abs(float(values[p])), _image(image_dirs, int(p))) for p in places]
        for name, places in (("A", comparison.best(most)), ("B", comparison.worst(most)))
    }
    shown = [{p["title"]: p["address"] for p in pictures(folder)} for folder in run_dirs]
    titles = [title for title in shown[0] if title in shown[1] and shown[0][title]]
    return page(
        "compare",
        comparison=comparison,
        warning=kinds(comparison),
        wins=int((values < 0).sum()),
        settings=settings(comparison),
        extremes=extremes,
        pairs=[(title, shown[0][title], shown[1].get(title, "")) for title in titles],
    )


def show(config: Config) -> int:
    """Print the comparison, and write its page; returns the exit code."""
    if config.most < 1:
        raise ResultError(f"--most must be at least 1, got {config.most}")
    runs = at_home(config.run_a), at_home(config.run_b)
    check_output(config.out, runs)
    comparison = compare(*runs)
    say(to_text(comparison, config.most))
    if config.out is not None:
        folders = [run if run.is_dir() else run.parent for run in runs]
        # images.npy goes with result.json; another result may be of another split.
        own = all(run.is_dir() or run.name == "result.json" for run in runs)
        text = to_html(comparison, folders, config.most, show_images=own)
        emit(text, config.out)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prog = "python -m eval.compare"
    return exit_code(lambda: show(tyro.cli(Config, prog=prog, args=argv)))


if __name__ == "__main__":
    sys.exit(main())
