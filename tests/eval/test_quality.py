"""Prove the Fréchet distance against closed forms, and that copies of training images are found."""

from __future__ import annotations

import numpy as np
import pytest

from eval.quality import frechet_distance, nearest_neighbors


def test_the_distance_to_itself_is_zero_and_it_is_symmetric():
    noise = np.random.default_rng(0)
    a, b = noise.normal(size=(60, 5)), noise.normal(1.0, 2.0, size=(40, 5))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_a_shift_costs_its_square_and_a_rotation_nothing():
    noise = np.random.default_rng(1)
    a, b = noise.normal(size=(50, 3)), noise.normal(2.0, 1.5, size=(50, 3))
    assert frechet_distance(a, a + np.array([3.0, 0.0, 4.0])) == pytest.approx(25)
    turn = np.linalg.qr(noise.normal(size=(3, 3)))[0]
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b))


def test_diagonal_gaussians_have_their_closed_form():
    """Independent axes: the sum over axes of (σa - σb)² and (μa - μb)²."""
    a = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    b = a * [3.0, 0.5] + [1.0, 1.0]
    deviation = a.std(0, ddof=1)
    expected = 2 + ((deviation * [3.0, 0.5] - deviation) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_fewer_images_than_features_still_give_a_number():
    noise = np.random.default_rng(2)
    distance = frechet_distance(noise.normal(size=(5, 40)), noise.normal(size=(6, 40)))
    assert np.isfinite(distance)
    assert distance > 0


def test_bad_features_are_named():
    with pytest.raises(ValueError, match="same size, got 2 and 3"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="at least two images"):
        frechet_distance(np.zeros((1, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="NaN or infinities"):
        frechet_distance(np.full((4, 2), np.nan), np.zeros((4, 2)))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_neighbors_agree_with_brute_force_in_every_chunk(chunk):
    noise = np.random.default_rng(3)
    train = noise.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    samples = noise.integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    samples[2] = train[31]
    gaps = samples[:, None].astype(float) - train[None]
    brute = np.sqrt((gaps**2).mean(axis=(2, 3, 4)))
    found = nearest_neighbors(samples, train, k=3, chunk=chunk)
    np.testing.assert_array_equal(found.index, np.argsort(brute, axis=1, kind="stable")[:, :3])
    np.testing.assert_allclose(found.distance, np.sort(brute, axis=1)[:, :3])
    assert found.index[2, 0] == 31
    assert found.distance[2, 0] == 0.0


def test_neighbors_of_nothing_or_of_another_shape_are_refused():
    train = np.zeros((4, 1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="of shape \\[3, 2, 2\\]"):
        nearest_neighbors(np.zeros((2, 3, 2, 2), np.uint8), train)
    with pytest.raises(ValueError, match="got 0"):
        nearest_neighbors(train[:0], train)
    with pytest.raises(ValueError, match=r"1\.\.4"):
        nearest_neighbors(train, train, k=5)
