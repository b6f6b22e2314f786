"""Arguments of this package's functions: counts, shapes, and whether values can be looked at."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any

import torch
from torch import Tensor


def readable(x: Tensor) -> bool:
    """Whether the numbers of a tensor can be looked at.

    Not while a graph is made of what is done with it (compiling, exporting, tracing), within a
    transform of `torch.func`, or where it only follows shapes (fake and meta tensors).
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() or x.is_meta:
        return False
    modes = torch._C._TorchDispatchModeKey  # pyright: ignore
    return not torch._C._functorch.is_functorch_wrapped_tensor(x) and not any(  # pyright: ignore
        torch._C._get_dispatch_mode(mode)  # pyright: ignore
        for mode in (modes.FAKE, modes.PROXY, modes.FUNCTIONAL)
    )


def check_count(value: Any, what: str, least: int = 1) -> int:
    """Return an integer, also of NumPy's, or raise a ValueError unless it is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"expected {what} to be an integer of at least {least}, got {value!r}")
    return int(value)


def check_shape(value: Any, form: str, lengths: Collection[int] = (3,)) -> tuple[int, ...]:
    """Return a shape as a tuple, or raise a ValueError unless it is of one of the lengths."""
    cure = "give integers of at least 1"
    if isinstance(value, Integral):
        cure = f"write ({value},)" if 1 in lengths else "give a tuple of three"
    elif isinstance(value, (tuple, list)) and len(value) in lengths:
        if all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 1 for n in value):
            return tuple(map(int, value))
        value = tuple(value)
    raise ValueError(f"expected {form}, got {value!r}: {cure}")
