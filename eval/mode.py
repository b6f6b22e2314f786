"""Evaluation mode, no gradients and float32 convolutions, while a model is scored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_lock = threading.Lock()
_before: dict[tuple[int, str], tuple[int, Any]] = {}
"""Number of holders of each attribute of an object, and its value before the first of them."""


@contextmanager
def scoring(model: Any) -> Iterator[None]:
    """Switch gradients off, put a module into eval mode, and restore both afterwards.

    In training mode a batch norm lets every pixel see every other, so the number is not a
    likelihood. A callable that is not an `nn.Module` must switch to eval mode itself. Convolutions
    on GPUs run in float32, not in TF32, to which PyTorch otherwise rounds their inputs.

    Several threads may score at once, even the same model. The last one restores the state.

    >>> model = nn.Dropout()
    >>> with scoring(model):
    ...     model.training, torch.is_grad_enabled()
    (False, False)
    >>> model.training
    True
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    held = [(module, "training", False) for module in modules]
    with _hold([*held, _float32_convolutions()]), torch.no_grad():
        yield


def _float32_convolutions() -> tuple[Any, str, Any]:
    """Return cuDNN's switch for TF32: a flag for convolutions since PyTorch 2.9, for all before."""
    cudnn: Any = torch.backends.cudnn
    if hasattr(cudnn, "conv"):
        return cudnn.conv, "fp32_precision", "ieee"
    return cudnn, "allow_tf32", False


@contextmanager
def _hold(attributes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Set attributes of objects, and restore them once nobody holds them any more."""
    with _lock:
        for owner, name, value in attributes:
            users, before = _before.get((id(owner), name), (0, getattr(owner, name)))
            _before[id(owner), name] = users + 1, before
            setattr(owner, name, value)
    try:
        yield
    finally:
        with _lock:
            for owner, name, _ in attributes:
                users, before = _before.pop((id(owner), name))
                if users > 1:
                    _before[id(owner), name] = users - 1, before
                else:
                    setattr(owner, name, before)
