"""A module that is evaluated for a while gets its mode back, whoever else evaluates it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from decoders import GatedPixelCNN
from decoders.scan import evaluating


def build() -> Any:
    return GatedPixelCNN((1, 3, 4), num_levels=4, hidden_channels=8, num_layers=1, dropout=0.5)


def test_threads_that_sample_leave_the_mode_as_it_was():
    """The one that came first leaves first, while the other is still at it."""
    decoder = build().train()
    decoder.layers[0].eval()
    before = [part.training for part in decoder.modules()]
    entered, left = threading.Event(), threading.Event()
    while_other_stays = []

    def first() -> None:
        with evaluating(decoder):
            entered.wait(10)
        left.set()

    def second() -> None:
        with evaluating(decoder):
            entered.set()
            left.wait(10)
            while_other_stays.extend(part.training for part in decoder.modules())

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left.is_set()
    assert not any(while_other_stays)
    assert [part.training for part in decoder.modules()] == before


def test_a_mode_comes_back_from_within_and_after_an_error():
    decoder = build().train()
    with evaluating(decoder.head):
        with pytest.raises(KeyError), evaluating(decoder):
            raise KeyError
        assert decoder.layers[0].training
        assert not decoder.head.training
    assert all(part.training for part in decoder.modules())
