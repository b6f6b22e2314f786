"""Parts of data sets: representative, and the same every time."""

import numpy as np
import pytest

from pipelines.data.subset import describe, draw

FIXED = [9, 853, 884, 925, 941]
FIXED_BY_LABEL = [9, 458, 631, 853, 941]


@pytest.mark.parametrize("labels", [None, np.arange(1000) // 100, np.arange(1000) % 7 - 1])
def test_draw_is_a_sorted_sample_without_replacement_and_the_same_every_time(labels):
    chosen = draw(1000, 90, labels)
    assert len(chosen) == 90
    assert (np.diff(chosen) > 0).all()
    assert set(chosen) <= set(range(1000))
    np.testing.assert_array_equal(chosen, draw(1000, 90, labels))
    assert set(chosen) != set(draw(1000, 90, labels, seed=1))


def test_every_class_keeps_its_share_of_a_sorted_set():
    sizes = [501, 250, 125, 124]
    labels = np.repeat(np.arange(4), sizes)
    for num in (8, 100, 777):
        drawn = np.bincount(labels[draw(1000, num, labels)], minlength=4)
        assert np.abs(drawn - num * np.array(sizes) / 1000).max() < 1


def test_a_plain_draw_comes_from_all_over_the_set():
    halves = draw(10_000, 1_000) // 5_000
    assert 400 < halves.sum() < 600


def test_a_smaller_draw_is_part_of_a_larger_one():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    assert set(draw(100, 9, labels)) < set(draw(100, 40, labels))


@pytest.mark.parametrize("num", [0, 5, 6])
def test_all_are_taken_where_there_are_no_more(num):
    assert draw(5, num).tolist() == [0, 1, 2, 3, 4]
    assert describe(5, num) == ""


def test_a_draw_is_fixed_forever():
    """Results name their draw by its seed, so the function must never change."""
    assert draw(1000, 5).tolist() == FIXED
    assert draw(1000, 5, np.arange(1000) // 250).tolist() == FIXED_BY_LABEL
