"""Flags of data sets: names, options that a data set honors, bounds."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from pipelines.data.config import DATA_NAMES, Condition, DataConfig
from pipelines.data.sets import DATA_SETS
from pipelines.runtime.errors import UserError


def test_every_name_has_a_reader():
    assert tuple(DATA_SETS) == DATA_NAMES


def test_every_condition_joins_known_annotations():
    known = {"label", "mask", "keypoints", "caption"}
    for condition in get_args(Condition):
        assert condition == "none" or set(condition.split("+")) <= known


def test_flags_are_read_without_torch_and_numpy():
    program = (
        "import sys, pipelines.data.config; "
        "print({'torch', 'numpy', 'sklearn'} & set(sys.modules) or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "light\n", done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"levels": -2}, "--levels must be at least 0, got -2"),
        ({"limit": -1}, "--limit must be at least 0, got -1"),
        ({"rgb": True}, "--rgb does not apply to digits: leave it out"),
        ({"image_size": 4}, "--image-size does not apply to digits"),
        ({"native_levels": 4}, "--native-levels does not apply"),
        ({"skip_damaged": True}, "--skip-damaged does not apply"),
        ({"background": "white"}, "--background does not apply"),
        ({"cache_dir": "x"}, "--cache-dir does not apply"),
        (
            {"data": "minst"},
            "--data minst is unknown: did you mean 'mnist'[?] Choose one",
        ),
        ({"data": "x"}, "--data x is unknown: choose one of digits"),
    ],
)
def test_what_a_data_set_does_not_honor_is_an_error(flags: dict, message: str):
    with pytest.raises(UserError, match=message):
        DataConfig(**flags)
