"""Numbers of flags: what nothing can be computed from is refused by name."""

from __future__ import annotations

import pytest

from pipelines.training.config import TrainConfig


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "free_bits", "soft_free_bits"])
@pytest.mark.parametrize("value", [1e38, 1e308, float("inf"), float("nan")])
def test_numbers_beyond_float32_are_refused(name, value):
    """A learning rate of 1e38, or free bits of 1e308, is a RuntimeError of PyTorch in a step."""
    flag = "--" + name.replace("_", "-")
    with pytest.raises(ValueError, match=f"{flag} must be"):
        TrainConfig(**{name: value})
