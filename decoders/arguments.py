"""Checks of arguments: types, shapes and values, refused in one form.

Each message says what was expected, what came, and the cure.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


class NonFiniteError(ValueError):
    """Parameters, codes or values are NaN or infinite, so that nothing can be drawn from them."""

    for_user = True  # a command prints the message alone, without a traceback


def readable(x: Tensor) -> bool:
    """Return True if the numbers of a tensor can be read.

    They cannot while a graph is built (compiling, exporting, tracing), within a transform of
    `torch.func`, or where there are only shapes (fake and meta tensors).
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() or x.is_meta:
        return False
    modes = torch._C._TorchDispatchModeKey  # pyright: ignore
    return not torch._C._functorch.is_functorch_wrapped_tensor(x) and not any(  # pyright: ignore
        torch._C._get_dispatch_mode(mode)  # pyright: ignore
        for mode in (modes.FAKE, modes.PROXY, modes.FUNCTIONAL)
    )


def check_tensor(x: Any, what: str, cure: str) -> Tensor:
    """Return x if it is a tensor, else raise a TypeError."""
    if not isinstance(x, Tensor):
        raise TypeError(f"expected {what} to be a tensor, got {shown(x)}: {cure}")
    return x


def check_count(value: Any, what: str, least: int = 1) -> int:
    """Return an integer, also of NumPy's, or raise a ValueError unless it is at least `least`.

    >>> check_count(2.5, "num_levels", 2)
    Traceback (most recent call last):
    ValueError: expected num_levels to be an integer of at least 2, got 2.5
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"expected {what} to be an integer of at least {least}, got {value!r}")
    return int(value)


def check_shape(value: Any, form: str, lengths: Collection[int]) -> tuple[int, ...]:
    """Return a shape as a tuple, or raise a ValueError unless it is of one of the lengths."""
    cure = "give integers of at least 1"
    if isinstance(value, Integral):
        cure = f"write ({value},)" if 1 in lengths else f"write (1, {value}, {value})"
    elif isinstance(value, (tuple, list)) and len(value) in lengths and all(map(_is_size, value)):
        return tuple(map(int, value))
    raise ValueError(f"expected {form}, got {shown(value)}: {cure}")


def _is_size(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def check_finite(h: Tensor | None) -> None:
    """Raise a NonFiniteError if the conditioning holds NaN or infinity, which would be drawn."""
    if h is not None and not bool(h.isfinite().all()):
        raise NonFiniteError(
            "expected a finite h, got NaN or infinity: look at the encoder and at what it was given"
        )


def check_temperature(temperature: float) -> None:
    """Raise a ValueError unless a temperature is a finite number of at least 0."""
    if not isinstance(temperature, (Real, Tensor)) or not 0 <= temperature < math.inf:
        raise ValueError(f"expected a finite temperature of at least 0, got {temperature!r}")


def check_noise(noise: Tensor, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless the noise has the shape, and is in [0, 1)."""
    if tuple(noise.shape) != shape:
        raise ValueError(f"expected noise of shape {shape}, got {tuple(noise.shape)}")
    if not bool(((noise >= 0) & (noise < 1)).all()):
        raise ValueError(
            "expected noise in [0, 1), got numbers outside or NaN: draw it with torch.rand"
        )


def check_known(known: Any) -> None:
    """Raise a TypeError unless `known` is two tensors, images and a mask."""
    is_pair = isinstance(known, (tuple, list)) and len(known) == 2
    if not is_pair or not all(isinstance(part, Tensor) for part in known):
        raise TypeError(
            "expected known=(images, mask), two tensors, the mask True where a sub-pixel is "
            f"kept, got {shown(known)}"
        )


def check_known_shape(image: Tensor, mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless known images and their mask fit the images to draw."""
    if mask.dtype != torch.bool:
        raise ValueError(f"expected a mask of type torch.bool, got {mask.dtype}")
    if tuple(image.shape) != shape or tuple(mask.shape) not in (shape, shape[1:]):
        raise ValueError(
            f"expected known images of shape {shape} and a mask of that shape or "
            f"{shape[1:]}, got {tuple(image.shape)} and {tuple(mask.shape)}"
        )


def shown(value: Any) -> str:
    """Return a value as messages show it: a plain one as it is, any other by its type."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (tuple, list)) and 0 < len(value) <= 4:
        parts = ", ".join(map(shown, value))
        return f"({parts},)" if len(value) == 1 else f"({parts})"
    return f"a {type(value).__name__}"
