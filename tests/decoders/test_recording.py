"""Prove without a GPU that a scan's row can be recorded once and replayed for the rows below it.

A CUDA graph repeats operations on the addresses that they had when they were recorded: whatever a
step reads from a Python number, or from a tensor made for one row alone, would be that of the
recorded row for ever. `Recording` repeats operations in the same way on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from decoders import DeconvDecoder, FactorizedDecoder, pixelsnail
from decoders import scan as scans

SHAPE = (2, 9, 2)  # of more rows than any scan's period


class Recording(TorchDispatchMode):
    """Keeps every operation, with the tensors that it read and wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        """Repeat them all, and put each result where it was."""
        for func, args, kwargs, out in self.done:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def recorded(step: Callable[[int], None], row: int) -> Callable[[int], None]:
    """As `recording.recorded`; but a graph does not run what it records, and this has to."""
    with Recording() as recording:
        step(row)
    return lambda current: None if current == row else recording.replay()


def sample(decoder: FactorizedDecoder, h: Tensor | None, draw: scans.Draw, record: bool) -> Tensor:
    with torch.inference_mode():
        scan = decoder.scan(h, 2)
        assert scan.row_period
        return scans.run(scan, draw, SHAPE, 2, torch.uint8, record=record)


def test_replayed_rows_draw_what_each_row_would(network, colors, cond_shape, inputs, monkeypatch):
    decoder = network(SHAPE, cond_shape=cond_shape, **colors(5)).eval()
    x, h = inputs(decoder, 2)
    known = x, torch.rand(2, *SHAPE) < 0.3
    draw = scans.Draw(decoder.likelihood, torch.rand(2, *SHAPE), known=known)
    for module in (scans, pixelsnail):
        monkeypatch.setattr(module, "can_record", lambda device: True)
    expected = sample(decoder, h, draw, record=False)
    monkeypatch.setattr(scans, "recorded", recorded)
    assert torch.equal(sample(decoder, h, draw, record=True), expected)


def test_replayed_rows_of_independent_pixels_draw_the_same(inputs, monkeypatch):
    decoder = DeconvDecoder(SHAPE, num_levels=5, cond_shape=(3,), hidden_channels=4).eval()
    h = inputs(decoder, 2)[1]
    draw = scans.Draw(decoder.likelihood, torch.rand(2, *SHAPE))
    expected = sample(decoder, h, draw, record=False)
    monkeypatch.setattr(scans, "can_record", lambda device: True)
    monkeypatch.setattr(scans, "recorded", recorded)
    assert torch.equal(sample(decoder, h, draw, record=True), expected)


def test_a_scan_whose_rows_differ_is_not_recorded(network, inputs, monkeypatch):
    """The plain scan picks its row out of the whole image by a Python number."""
    decoder = network(SHAPE, num_levels=4).eval()
    monkeypatch.setattr(scans, "can_record", lambda device: pytest.fail("recorded"))
    with torch.inference_mode():
        draw = scans.Draw(decoder.likelihood, torch.rand(2, *SHAPE))
        scans.run(scans.PlainScan(decoder, None, 2), draw, SHAPE, 2, torch.uint8)
