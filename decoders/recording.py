"""Rows of a scan recorded as CUDA graphs, and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch


def can_record(device: torch.device) -> bool:
    """Return True if operations on a device can be recorded as a CUDA graph now."""
    return (
        device.type == "cuda"
        and torch.cuda.is_available()
        and not torch.cuda.is_current_stream_capturing()
    )


def recorded(step: Callable[[int], None], row: int) -> Callable[[int], None]:
    """Record one row's work as a CUDA graph, and return its replay for any row like it.

    A step is dozens of operations of microseconds each: launched one by one they leave a GPU idle
    most of the time. Recording runs nothing. Where it fails, the steps are launched as before.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step(row)
    except RuntimeError as error:
        # A recording that broke off leaves the random generators waiting for one that ends well.
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            torch.zeros(1, device="cuda")
        warnings.warn(
            f"the scan could not be recorded as a CUDA graph ({str(error).splitlines()[0]}): "
            "sampling takes longer, and gives the same images",
            stacklevel=2,
        )
        return step
    return lambda _: graph.replay()
