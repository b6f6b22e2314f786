"""Exponential moving average of the weights, which is scored, sampled from and saved."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that is sharded over devices as a whole one, and any other as it is.

    It is a collective: all processes must call it.
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(state: Any) -> Any:
    """Return the state_dict of a module or an optimizer with `whole` tensors."""
    if isinstance(state, Tensor):
        return whole(state.detach())
    if isinstance(state, Mapping):
        return {key: whole_state(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [whole_state(value) for value in state]
    return state


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return a whole tensor, sharded over the devices as `model` is."""
    if isinstance(model, DTensor):
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor


class EMA:
    """A copy of a module whose parameters follow the original's slowly.

    After the t-th update each averaged parameter is d · itself + (1 - d) · the original, with
    d = min(decay, (1 + t) / (10 + t)), so that the average soon forgets the random
    initialization. Buffers are copied as they are. The average is in float32 if the original is in
    half precision: a small (1 - d) would be lost in bfloat16's rounding.

    Args:
        model: a plain module, not one wrapped for training.
        decay: 0 keeps an exact copy of the newest weights.

    Attributes:
        module: the averaged module, in eval mode: for scores, samples and weights.safetensors.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> ema = EMA(layer, 0.9)
    >>> with torch.no_grad():
    ...     _ = ema.module.weight.fill_(0.0), layer.weight.fill_(10.0)
    >>> ema.update(layer)  # t = 0: d = 0.1
    >>> round(ema.module.weight.item(), 4)
    9.0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        for tensor in self.module.parameters():
            if tensor.dtype in (torch.float16, torch.bfloat16):
                tensor.data = tensor.data.float()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's weights, after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        own: list[Tensor] = list(self.module.parameters())
        theirs = [
            whole(new.detach()).to(old.dtype)
            for old, new in zip(own, model.parameters(), strict=True)
        ]
        get_ema_multi_avg_fn(decay)(own, theirs, self.updates)
        self._copy_buffers(model, self.module)

    @torch.no_grad()
    def copy(self, model: nn.Module) -> None:
        """Restart at the model's weights."""
        self.updates = 0
        for old, new in zip(self.module.parameters(), model.parameters(), strict=True):
            old.copy_(whole(new.detach()))
        self._copy_buffers(model, self.module)

    @torch.no_grad()
    def restore_buffers(self, model: nn.Module) -> None:
        """Copy the buffers of the last step taken to the model, after a step that was not taken."""
        self._copy_buffers(self.module, model)

    @staticmethod
    def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
        for old, new in zip(target.buffers(), source.buffers(), strict=True):
            old.copy_(new)
