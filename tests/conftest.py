"""Every test starts from one seed, so that it passes or fails every time."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
