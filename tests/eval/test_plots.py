"""Prove that figures show any numbers that a run may have logged."""

from __future__ import annotations

import numpy as np

from eval import plots


def test_long_and_non_finite_curves_stay_small_and_drawn():
    metrics = [
        {"split": "train", "step": s, "bits_per_dim": float("nan") if s % 7 == 0 else 1.0}
        for s in range(20000)
    ]
    figure = plots.curves(metrics, "step")
    assert figure is not None
    line = figure.axes[0].lines[0]
    assert len(np.asarray(line.get_xdata())) <= plots.MOST_POINTS + 1
    assert np.asarray(line.get_xdata())[-1] == 19998
    assert plots.curves(metrics, "seconds") is None


def test_a_histogram_shows_every_set_on_common_bins():
    figure = plots.histogram({"test": np.zeros(5), "$other_$": np.ones(9) * 4})
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == [
        "test",
        r"\$other_\$",
    ]
    assert plots.to_svg(figure).startswith("<svg")


def test_numbers_that_no_axis_shows_are_not_drawn():
    metrics = [{"split": "train", "step": step, "bits_per_dim": 1.0} for step in (1, 10**400)]
    figure = plots.curves(metrics, "step")
    assert figure is not None
    assert len(np.asarray(figure.axes[0].lines[0].get_xdata())) == 1
