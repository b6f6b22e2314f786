"""Times of calls on a device, and the rate of its matrix products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(do: Callable[[], object], device: torch.device, *, repeats: int = 5) -> float:
    """Return the median time of `do` after two warm-up calls."""
    times = []
    for number in range(2 + repeats):
        wait(device)
        start = time.perf_counter()
        do()
        wait(device)
        if number >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Return operations per second of square matrix products of random numbers."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, device, repeats=10)


def once(do: Callable[[], object], device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    do()
    wait(device)
    return time.perf_counter() - start
