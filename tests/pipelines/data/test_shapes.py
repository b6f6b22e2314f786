"""The drawn data sets are pure functions of (seed, index), and their annotations tell the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.data import noise, shapes

ALL = np.arange(2000)


def test_an_image_depends_on_its_index_and_the_seed_alone():
    many, few = shapes.draw(ALL, color=True), shapes.draw(ALL[70:60:-3], color=True)
    for whole, part in zip(many, few, strict=True):
        np.testing.assert_array_equal(np.asarray(whole)[70:60:-3], np.asarray(part))
    assert (shapes.draw(ALL, seed=1).pixels != shapes.draw(ALL).pixels).any()


@pytest.mark.parametrize(("color", "levels", "channels"), [(False, 2, 1), (True, 4, 3)])
def test_levels_mask_and_keypoints_fit_the_drawing(color: bool, levels: int, channels: int):
    drawn = shapes.draw(ALL, color=color)
    assert drawn.pixels.shape == (len(ALL), channels, 20, 20)
    assert drawn.pixels.dtype == drawn.mask.dtype == drawn.keypoints.dtype == np.uint8
    assert set(np.unique(drawn.pixels)) <= set(range(levels))
    drawn_on = drawn.pixels.any(1)
    np.testing.assert_array_equal(drawn.mask > 0, drawn_on)
    np.testing.assert_array_equal(drawn.mask.max((1, 2)), 1 + drawn.labels)
    assert (drawn.keypoints.sum((2, 3)) == 1).all()
    assert (drawn.keypoints <= drawn_on[:, None]).all(), "every keypoint lies on its shape"


def test_keypoints_are_the_extremes_of_the_shape():
    drawn = shapes.draw(ALL)
    rows, columns = drawn.pixels[:, 0].any(2), drawn.pixels[:, 0].any(1)
    where = {
        name: np.argwhere(drawn.keypoints[:, k])[:, 1:] for k, name in enumerate(shapes.KEYPOINTS)
    }
    np.testing.assert_array_equal(where["top"][:, 0], rows.argmax(1))
    np.testing.assert_array_equal(where["bottom"][:, 0], 19 - rows[:, ::-1].argmax(1))
    np.testing.assert_array_equal(where["left"][:, 1], columns.argmax(1))
    np.testing.assert_array_equal(where["right"][:, 1], 19 - columns[:, ::-1].argmax(1))


def test_captions_name_shape_size_color_and_place():
    drawn = shapes.draw(ALL, color=True)
    assert max(map(len, drawn.captions)) <= shapes.CAPTION_LENGTH
    for index, caption in enumerate(drawn.captions[:300]):
        words = caption.split()
        assert shapes.SHAPES[drawn.labels[index]] in words
        (color,) = set(words) & set(shapes.COLORS)
        tint = drawn.pixels[index].max((1, 2))
        assert tuple(tint.tolist()) == shapes.COLORS[color]
        height = int(drawn.pixels[index].any((0, 2)).sum())
        assert shapes.SIZES[height // 2] in words
        centre = np.argwhere(drawn.keypoints[index, 0])[0]
        assert ("top" in words) == (centre[0] < 20 / 3)
        assert ("right" in words) == (centre[1] >= 40 / 3)
    assert not set(" ".join(shapes.draw(ALL).captions).split()) & set(shapes.COLORS)


def test_entropy_counts_distinct_pictures():
    distinct = 0
    total = 0.0
    for radius in shapes.SIZES:
        places = (shapes.SIDE - 2 * radius) ** 2
        distinct += 3 * places
        total += math.log(3 * len(shapes.SIZES) * places) / len(shapes.SIZES)
    assert shapes.entropy() == pytest.approx(total)
    many = shapes.draw(np.arange(60_000)).pixels.reshape(60_000, -1)
    assert len(np.unique(np.packbits(many, axis=1), axis=0)) == distinct


def test_noise_is_uniform_and_independent_of_its_neighbors():
    draws = noise.uniform((3,), np.arange(100_000))
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8  # chi-squared, 19 degrees, p = 0.001
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(draws, noise.uniform((4,), np.arange(100_000)))[0, 1]) < 0.01


def test_noise_never_changes():
    """Fingerprints, fixed draws and resumed runs rest on these very numbers."""
    assert noise.bits((1, 2), np.arange(3)).tolist() == [
        17166181666573130602,
        5803727657181717140,
        2726225660025633217,
    ]
    assert noise.permutation((0, 0), 8).tolist() == [1, 3, 6, 5, 0, 7, 4, 2]
