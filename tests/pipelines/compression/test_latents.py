"""Latents popped by q(z|x) are draws from it, however narrow it is, and cost what they must."""

from __future__ import annotations

import math

import numpy as np
import pytest

from decoders import coding
from pipelines.compression.latents import COARSEST, FINEST, Cells, FirstGrid, Grid

COUNT = 200_000
WIDTHS = (1.0, 0.3, 1e-2, 1e-3, 1e-4)


def stack(words: int = 2 * COUNT) -> coding.AnsCoder:
    bits = np.random.default_rng(0).integers(1, 2**32, words, dtype=np.uint32)
    return coding.AnsCoder(bits, seal=True)


def posterior(std: float) -> tuple[np.ndarray, np.ndarray]:
    """Means as the prior has them, and deviations up to twice as large as `std`."""
    noise = np.random.default_rng(1)
    return noise.normal(size=COUNT), std * 2 ** noise.random(COUNT)


@pytest.mark.parametrize("std", WIDTHS)
def test_a_popped_latent_is_a_draw_from_its_posterior(std):
    mean, deviation = posterior(std)
    grid = Grid.fit(std)
    coder = stack()
    before = coder.num_bits()
    cells = grid.posterior(mean, deviation).pop(coder)
    drawn = (cells / grid.points - mean) / deviation
    assert abs(drawn.mean()) < 0.01
    assert drawn.std() == pytest.approx(1, abs=0.015)  # a cell is at most half a deviation
    # Its bits are the entropy of a Gaussian in cells, of half of one the variance 1/48 larger.
    entropy = np.log2(deviation * grid.points * math.sqrt(2 * math.pi * math.e)).mean()
    assert (before - coder.num_bits()) / COUNT == pytest.approx(entropy, abs=0.015)


@pytest.mark.parametrize("std", WIDTHS)
def test_hardly_any_latent_is_far_from_its_mean(std):
    """In the first version one in 2,000 was, and from anywhere in ±16."""
    mean, deviation = posterior(std)
    grid = Grid.fit(std)
    cells = grid.posterior(mean, deviation).pop(stack())
    distance = np.abs(cells / grid.points - mean) / deviation
    assert (distance > 6).sum() <= COUNT / 50_000
    if std < 1:
        first = FirstGrid().posterior(mean, deviation).pop(stack())
        strayed = np.abs(first / 256 - mean) > 8 * np.maximum(deviation, 1 / 256)
        assert strayed.sum() > COUNT / 4_000


def test_a_latent_costs_what_the_prior_says():
    z = np.random.default_rng(0).normal(size=COUNT)
    for points in (COARSEST, 32, 256, FINEST):
        cells = np.rint(z * points).astype(np.int32)
        coder = stack(10)
        before = coder.num_bits()
        Grid(points).prior(COUNT).push(coder, cells)
        expected = (z**2 / 2 / math.log(2) + math.log2(points * math.sqrt(2 * math.pi))).mean()
        assert (coder.num_bits() - before) / COUNT == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("grid", [*map(Grid, (8, 16, 256, FINEST)), FirstGrid()])
def test_popping_and_pushing_are_inverse_in_every_extreme(grid):
    """Means and deviations beyond the grid are brought within it, and p(z) has every cell."""
    mean = np.array([0, 0, 1e30, -1e30, 16, -16, 0.37, -5.2] * 50)
    std = np.array([1e-30, 1e30, 1e30, 1e30, 1e-9, 2, 0.2, 0.01] * 50)
    coder = stack(10_000)
    start = coder.get_compressed(unseal=True)
    taken = grid.posterior(mean, std)
    cells = taken.pop(coder)
    grid.prior(len(cells)).push(coder, cells)
    np.testing.assert_array_equal(grid.prior(len(cells)).pop(coder), cells)
    taken.push(coder, cells)
    np.testing.assert_array_equal(coder.get_compressed(unseal=True), start)


def test_the_outermost_steps_are_cells_of_the_prior_too():
    """However unlikely they are: the coder gives every symbol some probability."""
    for points in (8, 16, 256, FINEST):
        grid = Grid(points)
        for mean, std in ((16.0, 2.0), (-16.0, 2.0), (16.0, 1e-9), (-16.0, 1e-9)):
            taken = grid.posterior(np.array([mean]), np.array([std]))
            far = taken.anchor + np.sign(mean).astype(np.int32) * 72
            cells = far * taken.width + (taken.width - 1) * (mean > 0)
            coder = stack(100)
            prior = grid.prior(1)
            prior.push(coder, cells)
            np.testing.assert_array_equal(prior.pop(coder), cells)


def test_the_grid_is_as_fine_as_the_narrowest_posterior_asks():
    assert [Grid.fit(std).points for std in (0.19, 0.1, 1e-3, 1e9, 1e-9, 0.0)] == [
        *(16, 32, 2048, COARSEST, FINEST, FINEST)
    ]


def test_no_symbol_has_a_range_of_one(capfd):
    """The coder's `Uniform` would panic."""
    zeros, width = np.zeros(3, np.int32), np.array([1, 2, 1], np.int32)
    cells = Cells(Grid._near, np.zeros(3), np.ones(3), zeros, width)
    coder = stack(10)
    assert len(cells.pop(coder)) == 3
    assert capfd.readouterr().err == ""


def test_cells_that_a_posterior_does_not_have_are_an_error_of_coding():
    taken = Grid(16).posterior(np.zeros(3), np.full(3, 0.2))
    with pytest.raises(coding.CodingError, match="not of this posterior"):
        taken.push(stack(10), np.array([0, 500, 0], np.int32))
