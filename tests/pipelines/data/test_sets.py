"""Built-in data sets, and the order of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.data.config import DataConfig
from pipelines.data.sets import load, order
from tests.pipelines.data.samples import all_images


@pytest.mark.parametrize(
    ("name", "shape", "levels", "classes"),
    [
        ("digits", (1, 8, 8), 17, 10),
        ("shapes", (1, 20, 20), 2, 3),
        ("shapes_color", (3, 20, 20), 4, 3),
    ],
)
def test_built_in_sets(name, shape, levels, classes):
    splits = load(DataConfig(name, "/nowhere"))
    for images in (splits.train, splits.test):
        x = images.batch(np.arange(50)).x
        assert images.image_shape == tuple(x.shape[1:]) == shape
        assert x.dtype == torch.uint8
        assert images.num_levels == levels
        assert x.max() == levels - 1
        assert images.num_classes == classes
        assert images.labels is not None
        assert images.labels.shape == (len(images),)
        assert not images.is_subset
        assert images.variant == ""
    assert splits.valid is None


def test_digits_are_split_in_their_order():
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    splits = load(DataConfig("digits"))
    assert (len(splits.train), len(splits.test)) == (1437, 360)
    np.testing.assert_array_equal(all_images(splits.test).reshape(360, 64), rows[1437:])
    np.testing.assert_array_equal(splits.train.labels, labels[:1437])


def test_order_is_a_permutation_and_a_pure_function():
    first = order(1, 2, 1000)
    assert sorted(first.tolist()) == list(range(1000))
    np.testing.assert_array_equal(first, order(1, 2, 1000))
    for other in (order(1, 3, 1000), order(2, 2, 1000), order(2, 1, 1000)):
        assert (first != other).any()
    places = np.stack([order(seed, 0, 4) for seed in range(4000)])
    counts = np.stack([np.bincount(column, minlength=4) for column in places.T])
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9  # chi-squared, 9 degrees, p = 0.001
