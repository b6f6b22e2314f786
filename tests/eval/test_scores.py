"""Prove that scores are averaged and converted as their units say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eval import Score, bits_per_dim


def test_bits_per_dim_by_hand():
    assert bits_per_dim(math.log(256) * 12, 12) == pytest.approx(8)
    assert bits_per_dim(2.6364, 1) == pytest.approx(3.80, abs=0.005)  # VDVAE's own conversion
    with pytest.raises(ValueError, match="dims=0"):
        bits_per_dim(1.0, 0)


def test_a_single_image_has_no_standard_error():
    assert math.isnan(Score(np.array([3.0])).stderr)
