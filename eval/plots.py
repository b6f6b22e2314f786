"""Figures of a report, as inline SVG in the page's text color, light or dark."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from eval.text import visible

# Placeholder for the page's text color, replaced by `currentColor` in the SVG.
INK = "#010203"
STYLE: Any = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "legend.frameon": False,
}
COLORS = {"train": "#8a8a8a", "valid": "#2f7ed8", "test": "#d9822b"}
_salts = itertools.count()
MOST_POINTS = 400
LARGEST = 1e30  # number that an axis can show


def to_svg(figure: Figure) -> str:
    """Return a figure as an `<svg>` element for a page with several figures."""
    text = io.StringIO()
    # A salt per figure keeps its ids apart from those of the other figures.
    style: Any = {**STYLE, "svg.hashsalt": f"figure{next(_salts)}"}
    with mpl.rc_context(style):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    stride = max(1, math.ceil(len(points) / MOST_POINTS))
    return [*points[:-1:stride], points[-1]]


def curves(metrics: Sequence[Mapping[str, Any]], across: str) -> Figure | None:
    """Draw bits/dim against steps or seconds, a line per split; None if there are no numbers.

    Args:
        metrics: records with "split", "bits_per_dim", and `across`.
        across: "step" or "seconds".
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.9, 2.6), layout="constrained")
        axes = figure.subplots()
        for split, color in COLORS.items():
            points = [
                (float(m[across]), float(m["bits_per_dim"]))
                for m in metrics
                if m.get("split") == split and _numeric(m, across, "bits_per_dim")
            ]
            if points:
                mark = "o" if len(points) < 30 else None
                style = {"color": color, "label": split, "marker": mark, "markersize": 3}
                axes.plot(*zip(*_thin(points), strict=True), linewidth=1.3, **style)
        if not axes.lines:
            return None
        axes.set_xlabel("steps" if across == "step" else across)
        axes.set_ylabel("bits/dim")
        axes.legend()
    return figure


def _numeric(record: Mapping[str, Any], *names: str) -> bool:
    values = [record.get(name) for name in names]
    return all(isinstance(value, (int, float)) and abs(value) < LARGEST for value in values)


def rate_distortion(
    names: Sequence[str], parts: Sequence[Mapping[str, float]], unit: str
) -> Figure:
    """Draw one stacked bar per run: distortion, then the rate of each level.

    Args:
        names: of the runs, (N,).
        parts: per run, the parts by name, in the order in which they are stacked.
        unit: what the numbers are.
    """
    shades = ["#9db8d2", "#d9822b", "#b5497b", "#5b8c5a", "#7a6fb0"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.6 + 0.42 * len(names)), layout="constrained")
        axes = figure.subplots()
        labels = list(dict.fromkeys(label for part in parts for label in part))
        left = np.zeros(len(names))
        for number, label in enumerate(labels):
            widths = np.array([part.get(label, 0.0) for part in parts])
            axes.barh(
                np.arange(len(names)),
                widths,
                left=left,
                height=0.6,
                label=label,
                color=shades[number % len(shades)],
            )
            left += widths
        axes.set_yticks(range(len(names)), [_plain(name) for name in names])
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        figure.legend(loc="outside upper right", ncols=len(labels))
    return figure


def importance(points: Sequence[tuple[int, float, float]], bound: float) -> Figure:
    """Draw importance-weighted NLL estimates against K with two standard errors, and the bound.

    Args:
        points: (K, nats, standard error), rising in K.
        bound: negative ELBO in nats.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 2.4), layout="constrained")
        axes = figure.subplots()
        ks, nats, errors = (list(column) for column in zip(*points, strict=True))
        axes.errorbar(
            ks, nats, [2 * error for error in errors], marker="o", markersize=3, capsize=2
        )
        axes.axhline(bound, linestyle="--", color="#d9822b", label="bound (ELBO)")
        axes.set_xscale("log")
        axes.set_xlabel("importance samples K")
        axes.set_ylabel("nats/image")
        axes.legend()
    return figure


def histogram(sets: Mapping[str, np.ndarray], unit: str = "bits/dim") -> Figure:
    """Draw the distribution of a per-image score for several sets of images, in common bins.

    Args:
        sets: (N,) scores by name of the set.
        unit: unit of the scores.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5, 2.6), layout="constrained")
        axes = figure.subplots()
        bins = np.histogram_bin_edges(np.concatenate(list(sets.values())), bins=40)
        for name, values in sets.items():
            axes.hist(values, bins=list(bins), density=True, alpha=0.55, label=_plain(name))
        axes.set_xlabel(unit)
        axes.set_yticks([])
        axes.legend()
    return figure


def _plain(text: str) -> str:
    """Escape a name that matplotlib would read as math or hide, and shorten it."""
    text = visible(" ".join(text.split())).replace("$", r"\$").lstrip("_")
    return text if len(text) <= 40 else text[:39] + "…"
