"""Checks of arguments: counts, shapes, and whether a tensor's values can be read."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any

import torch
from torch import Tensor


def readable(x: Tensor) -> bool:
    """Return whether the values of a tensor can be read.

    They can't while a graph is recorded (compiling, exporting, tracing), in a transform of
    `torch.func`, or in a tensor without values (fake and meta tensors).
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() or x.is_meta:
        return False
    modes = torch._C._TorchDispatchModeKey  # pyright: ignore
    return not torch._C._functorch.is_functorch_wrapped_tensor(x) and not any(  # pyright: ignore
        torch._C._get_dispatch_mode(mode)  # pyright: ignore
        for mode in (modes.FAKE, modes.PROXY, modes.FUNCTIONAL)
    )


def check_count(value: Any, what: str, least: int = 1) -> int:
    """Return an integer (NumPy's too) of at least `least`, or raise a ValueError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"expected {what} to be an integer of at least {least}, got {value!r}")
    return int(value)


def check_shape(value: Any, form: str, lengths: Collection[int] = (3,)) -> tuple[int, ...]:
    """Return a shape as a tuple if it has one of the lengths, or raise a ValueError."""
    cure = "give integers of at least 1"
    if isinstance(value, Integral):
        cure = f"write ({value},)" if 1 in lengths else "give a tuple of three"
    elif isinstance(value, (tuple, list)) and len(value) in lengths:
        if all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 1 for n in value):
            return tuple(map(int, value))
        value = tuple(value)
    raise ValueError(f"expected {form}, got {value!r}: {cure}")
