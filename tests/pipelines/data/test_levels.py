"""An .npy file carries its number of levels, and stays one that np.load reads."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.data.arrays import map_npy
from pipelines.data.levels import append_levels, read_levels

IMAGES = np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2)


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:0]])
def test_levels_come_back_and_images_are_read_as_before(tmp_path, images):
    file = tmp_path / "x.npy"
    with file.open("wb") as stream:
        np.save(stream, images)
        append_levels(stream, 17)
    assert read_levels(file) == 17
    for read in (np.load(file), np.load(file, mmap_mode="r"), map_npy(file)):
        np.testing.assert_array_equal(read, images)


@pytest.mark.parametrize("tail", [b"", b"x" * 200, b"PK\x03\x04" + bytes(132)])
def test_other_files_carry_none(tmp_path, tail):
    file = tmp_path / "x.npy"
    with file.open("wb") as stream:
        np.save(stream, IMAGES)
        stream.write(tail)
    assert read_levels(file) is None


def test_a_second_array_of_the_users_own_is_not_taken_for_levels(tmp_path):
    for second in (np.int64(17), np.arange(9), np.array([(17,)], [("levels", "<i8")])):
        with (tmp_path / "x.npy").open("wb") as stream:
            np.save(stream, IMAGES)
            np.save(stream, second)
        assert read_levels(tmp_path / "x.npy") is None


def test_a_damaged_tail_is_not_taken_for_levels(tmp_path):
    """NumPy's reader of headers raises a dozen kinds of errors over a flipped bit."""
    file = tmp_path / "x.npy"
    with file.open("wb") as stream:
        np.save(stream, IMAGES)
        append_levels(stream, 17)
    sound = file.read_bytes()
    for bit in range(8 * 128):  # of the header, before the number itself
        content = bytearray(sound)
        content[bit // 8 - 136] ^= 1 << bit % 8
        file.write_bytes(content)
        assert read_levels(file) in (None, 17), bit
