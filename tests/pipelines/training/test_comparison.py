"""Settings of two runs are compared field by field."""

from pathlib import Path

import pytest

from pipelines.runtime.errors import CheckpointError
from pipelines.training.comparison import check_same


def test_another_configuration_is_listed_field_by_field():
    saved = {"data": "mnist", "model": {"layers": 3, "width": [4, 4]}, "out": "a"}
    now = {"data": "digits", "model": {"layers": 5, "width": (4, 4)}, "out": "b"}
    check_same(saved, saved, source=Path("run"))
    with pytest.raises(CheckpointError) as raised:
        check_same(saved, now, source=Path("run"), may_differ={"out"})
    message = str(raised.value)
    assert "data: 'mnist' there, 'digits' here; model.layers: 3 there, 5 here" in message
    assert "width" not in message
    assert "out:" not in message
