"""From flags to processes: the Fabric that every command runs in."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from pipelines.runtime.errors import UserError
from pipelines.training.config import TrainConfig

T = TypeVar("T")


def make_fabric(config: TrainConfig) -> Fabric:
    """The launched Fabric of a config: from here on every process of the run executes this code.

    Parse the command line before and write no file before: with several devices Fabric starts this
    very command again, once for each further one. Under torchrun the processes are there already,
    and `--devices auto` means those.

    Raises:
        ValueError: the devices, strategy or precision asked for are not to be had here.
    """
    devices, num_nodes = config.devices, config.num_nodes
    if "TORCHELASTIC_RUN_ID" in os.environ and devices == "auto":
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        devices, num_nodes = str(local), int(os.environ["WORLD_SIZE"]) // local
    if config.precision == "16-mixed" and not torch.cuda.is_available():
        raise ValueError("--precision 16-mixed needs a CUDA device; bf16-mixed works everywhere")
    strategy: Any = config.strategy
    if strategy == "fsdp":
        strategy = ModelParallelStrategy(_shard)
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
            precision=config.precision,
        )
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"--accelerator {config.accelerator} --devices {config.devices} is not to be had: "
            f"{str(error).splitlines()[0]}"
        ) from error
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """End gloo's threads before the interpreter does, which may abort a run that went well.

    Fabric does so for NCCL only.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def _shard(module: nn.Module, _: object) -> Any:
    """Lay a module's parameters out in pieces over all processes (FSDP2, in place)."""
    from torch.distributed.fsdp import fully_shard  # absent where torch has no distributed package

    return fully_shard(module)


def on_main(fabric: Fabric, do: Callable[[], T]) -> T:
    """Do something in the first process only, and give what it returns to all of them.

    Raises:
        UserError: in every process, if `do` raised it in the first: none is left
            waiting. In the others it has a true attribute `relayed`: it need not be told twice.
    """
    result, error = None, None
    if fabric.is_global_zero:
        try:
            result = do()
        except UserError as raised:
            error = raised
    result, error = fabric.broadcast((result, error))
    if error is not None:
        error.relayed = not fabric.is_global_zero  # pyright: ignore[reportAttributeAccessIssue]
        raise error
    return result  # pyright: ignore[reportReturnType]
