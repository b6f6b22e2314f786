"""Proves that scoring leaves a model and the process as they were, whoever scores meanwhile."""

from __future__ import annotations

import threading

import torch
from torch import nn

from eval.mode import scoring


def state(model: nn.Module) -> tuple[bool, str]:
    return model.training, torch.backends.cudnn.conv.fp32_precision


def test_threads_that_score_share_the_mode_and_the_last_one_brings_it_back() -> None:
    model = nn.Sequential(nn.Dropout())
    before = state(model)
    begun, first_is_done = threading.Event(), threading.Event()
    seen = []

    def second() -> None:
        with scoring(model):
            begun.set()
            assert first_is_done.wait(10)
            seen.append(state(model))

    thread = threading.Thread(target=second)
    with scoring(model):
        thread.start()
        assert begun.wait(10)
    seen.append(state(model))
    first_is_done.set()
    thread.join()
    assert seen == [(False, "ieee")] * 2
    assert state(model) == before == (True, before[1])


def test_an_error_brings_the_mode_back_too() -> None:
    model = nn.Sequential(nn.Dropout())
    before = state(model)
    try:
        with scoring(model):
            assert state(model) == (False, "ieee")
            assert not torch.is_grad_enabled()
            raise KeyError
    except KeyError:
        pass
    assert state(model) == before
    assert torch.is_grad_enabled()
