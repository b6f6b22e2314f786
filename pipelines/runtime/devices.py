"""Fabric of a command, made from its flags, and what its processes do together."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from pipelines.runtime.config import DeviceConfig, Precision
from pipelines.runtime.errors import RelayedError, UserError
from pipelines.runtime.messages import warn

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


def make_fabric(config: DeviceConfig, precision: Precision = "32-true") -> Fabric:
    """Launch Fabric: from here on every process of the run executes this code.

    Parse the command line before and write no file before: with several devices Fabric starts this
    very command again, once for each further one. Under torchrun the processes are there already,
    and `--devices auto` means those.

    Raises:
        UserError: the devices, strategy or precision are not available here.
    """
    devices, num_nodes = config.devices, config.num_nodes
    if "TORCHELASTIC_RUN_ID" in os.environ and devices == "auto":
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        devices, num_nodes = str(local), int(os.environ["WORLD_SIZE"]) // local
    if precision == "16-mixed" and not torch.cuda.is_available():
        raise UserError("--precision 16-mixed needs a CUDA device; bf16-mixed works everywhere")
    strategy: Any = config.strategy
    if strategy == "fsdp":
        strategy = ModelParallelStrategy(_shard)
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
            precision=precision,
        )
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"--accelerator {config.accelerator} --devices {config.devices} is not available: "
            f"{str(error).splitlines()[0]}"
        ) from error
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """End gloo's threads before the interpreter does, which might abort a finished run.

    Fabric does so for NCCL only.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def _shard(module: nn.Module, _: object) -> Any:
    """Lay a module's parameters out in pieces over all processes (FSDP2, in place)."""
    from torch.distributed.fsdp import fully_shard  # missing if torch has no distributed package

    return fully_shard(module)


def compiled(fabric: Fabric, module: M) -> M:
    """Compile a module with torch.compile, or return it unchanged if some process can't compile.

    A machine without a C++ compiler, or with an unsuited one, is worth a warning, not a run.
    """
    return cast(M, torch.compile(module)) if _can_compile(fabric) else module


@functools.lru_cache(maxsize=1)
def _can_compile(fabric: Fabric) -> bool:
    reason = _try_to_compile(fabric.device)
    failed: Any = fabric.all_reduce(torch.tensor(float(bool(reason))), reduce_op="sum")
    if failed and fabric.is_global_zero:
        reason = reason or "in another process"
        warn(f"torch.compile does not work here, so this run is not compiled and slower: {reason}")
    return not failed


def _try_to_compile(device: torch.device) -> str:
    """Compile something small, forward and backward; return why that fails, or nothing."""
    try:
        x = torch.ones(8, device=device, requires_grad=True)
        torch.compile(lambda x: (2 * x).sin().sum())(x).backward()
    except Exception as error:  # each backend and compiler has its own
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def on_main(fabric: Fabric, do: Callable[[], T]) -> T:
    """Do something in the first process only, and return its result in all of them.

    The others wait by asking the process group's store now and then. They take part in no
    collective meanwhile, so that `do` may outlast the group's timeout: it may pack a data set.

    Raises:
        Exception: in the first process, whatever `do` raised.
        RelayedError: in the others then, so that none is left waiting.
    """
    if fabric.world_size == 1:
        return do()
    result: Any = None
    raised: Exception | None = None
    key = f"on_main/{next(_calls)}"  # all processes make the same calls in the same order
    if fabric.is_global_zero:
        try:
            result = do()
        except Exception as error:
            raised = error
        _store().set(key, "done")
    _wait_for(key)
    result, reason = fabric.broadcast((result, None if raised is None else str(raised)))
    if raised is not None:
        raise raised
    if reason is not None:
        raise RelayedError(reason)
    return result


def wait_for_all(fabric: Fabric) -> None:
    """Wait until every process has come here, however long that takes, without a collective."""
    if fabric.world_size == 1:
        return
    key = f"wait_for_all/{next(_calls)}"
    if _store().add(key, 1) == fabric.world_size:
        _store().set(f"{key}/done", "done")
    _wait_for(f"{key}/done")


_calls = itertools.count()


def _store() -> Any:
    """Return the key-value store by which the processes found one another."""
    return torch.distributed.distributed_c10d._get_default_store()


def _wait_for(key: str) -> None:
    """Wait until a key is set, asking 20 times a second at first and then every second.

    Raises:
        RelayedError: the process that keeps the store is gone.
    """
    pause = 0.05
    try:
        while not _store().check([key]):
            time.sleep(pause)
            pause = min(1.0, pause * 1.1)
    except RuntimeError as error:
        raise RelayedError("the first process is gone") from error
