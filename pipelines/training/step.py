"""One optimizer step, and the state that persists: weights, average, optimizer, scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

from decoders.likelihoods import widest_float
from pipelines.runtime.devices import compiled
from pipelines.runtime.errors import CheckpointError, UserError
from pipelines.training.config import TrainConfig
from pipelines.training.ema import EMA, like, whole, whole_state
from pipelines.training.objective import adjust, kl_weights, level_rates, surrogate
from pipelines.training.schedule import Work, learning_rate, seed_step
from pipelines.training.weights import load_into


class Outcome(NamedTuple):
    """Outcome of a step, the same in every process.

    Attributes:
        status: "taken"; "nonfinite" if a loss or gradient of some process was not finite, and
            nothing was changed; "rescaled" if that was only float16's small range, and only the
            scale of the loss was changed.
        sums: over the global batch, in nats: surrogate, distortion, rate of each level.
        norm: of the whole gradient, before clipping.
        flags: the sums of the processes' flags.
        auxiliary: the sum of the auxiliary loss, which the surrogate contains; None without one.
    """

    status: Literal["taken", "rescaled", "nonfinite"]
    sums: list[float]
    norm: float
    flags: list[float]
    auxiliary: float | None = None


# A torch optimizer of the model's parameters, or a function that makes one of them.
OwnOptimizer = torch.optim.Optimizer | Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Stepper:
    """Optimizer steps of a run; everything that one step passes to the next is in `state`.

    Args:
        fabric: launched.
        model: a plain module, built alike in every process.
        config: of the run.
        total: steps of the whole run, for the decay of the learning rate.
        optimizer: AdamW unless given. Warm-up and decay scale its own learning rates.

    Attributes:
        step: the number of steps done, taken or skipped.
        ema: the averaged model.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        config: TrainConfig,
        total: int,
        optimizer: OwnOptimizer | None = None,
    ) -> None:
        self.fabric, self.config, self.total, self.plain = fabric, config, total, model
        self.ema = EMA(model, config.ema)
        self.ema.module.to(fabric.device)
        self.model = fabric.setup_module(compiled(fabric, model) if config.compile else model)
        self.ema.copy(model)  # after setup, which makes the processes' weights equal
        made = _adamw(model, config) if optimizer is None else _own(optimizer, model)
        self.kind = type(made).__name__
        self.peaks = [float(group["lr"]) for group in made.param_groups]
        self.optimizer: Any = fabric.setup_optimizers(made)
        self.step = 0
        self.scales: tuple[float, ...] = ()  # of soft free bits, one per level

    def take(self, job: Work, flags: Callable[[], list[float]]) -> Outcome:
        """Do one step, if loss and gradient are finite in every process.

        Args:
            job: this process's share of the global batch.
            flags: called once the gradient is there; its result is summed over the processes.
        """
        own, auxiliary = self._backward(job)
        norm = self._clip().to(own).reshape(1) / self.fabric.world_size
        parts = [own, norm, own.new_tensor(flags())]
        parts += [] if auxiliary is None else [auxiliary.reshape(1)]
        both = self._sum(torch.cat(parts)).tolist()
        extra = None if auxiliary is None else both.pop()
        sums, total_norm, total_flags = both[: len(own)], both[len(own)], both[len(own) + 1 :]
        if all(map(math.isfinite, [*sums, total_norm])):
            status = "taken"
            self._descend(sums, len(job.indices))
        elif all(map(math.isfinite, sums)) and self._lower_loss_scale():
            status = "rescaled"
        else:
            status = "nonfinite"
            if (scaler := self._scaler) is not None:
                scaler.update(scaler.get_scale())  # drops the gradient, and keeps the scale
            self.ema.restore_buffers(self.plain)  # forward may have spoiled running statistics
        self.optimizer.zero_grad()
        self.step += 1
        return Outcome(status, sums, total_norm, total_flags, extra)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step taken."""
        return self.optimizer.param_groups[0]["lr"]

    def averaged(self) -> nn.Module:
        """Return the averaged model, alike in every process: its buffers are the first one's."""
        if self.fabric.world_size > 1:
            for buffer in self.ema.module.buffers():
                buffer.copy_(self.fabric.broadcast(buffer))
        return self.ema.module

    def _backward(self, job: Work) -> tuple[Tensor, Tensor | None]:
        """Accumulate the gradient of the mean over the global batch.

        Returns:
            float64 sums over this process's images: surrogate, distortion, rate of each level; and
            the auxiliary loss, if the model has one.
        """
        fabric, size = self.fabric, len(job.indices)
        free_bits = self.config.free_bits
        self.model.train()
        means = self._mean_rates_ahead(job)
        sums: Any = 0.0
        auxiliary: Tensor | None = None
        for number in range(len(job.parts)):
            last = number == len(job.parts) - 1
            with fabric.no_backward_sync(self.model, enabled=not last):
                terms = self._forward(job, number)
                rates = level_rates(terms)
                if free_bits > 0 and means is None:
                    means = self._sum(_total(rates) * job.weights[number]) / size
                weights = self._kl_weights(len(rates))
                loss = surrogate(terms, weights, free_bits=free_bits, mean_rates=means)
                # the gradients are averaged over the processes, hence the factor world_size
                weight = job.weights[number]
                fabric.backward(loss.sum() * (weight * fabric.world_size / size))
            sums = sums + _total(torch.stack([loss, terms.distortion, *rates])) * weight
            if terms.auxiliary is not None:
                total = _total(terms.auxiliary) * weight
                auxiliary = total if auxiliary is None else auxiliary + total
        return sums, auxiliary

    def _forward(self, job: Work, number: int) -> Any:
        seed_step(self.config.seed, self.step, self.fabric.global_rank, number)
        part = job.parts[number]
        return self.model(*self.fabric.to_device((part.x, part.y)))

    def _mean_rates_ahead(self, job: Work) -> Tensor | None:
        """Return the mean rate of each level over the global batch, if free bits need it.

        A micro-batch can't know it, so this takes another forward pass of all of them.
        """
        if self.config.free_bits == 0 or self.config.accumulate == 1:
            return None
        sums: Any = 0.0
        for number in range(len(job.parts)):
            with torch.no_grad():
                rates = level_rates(self._forward(job, number))
                sums = sums + _total(rates) * job.weights[number]
        return self._sum(sums) / len(job.indices)

    def _sum(self, tensor: Tensor) -> Tensor:
        """Sum over the processes."""
        return self.fabric.all_reduce(tensor, reduce_op="sum")  # pyright: ignore[reportReturnType]

    def _kl_weights(self, levels: int) -> list[float]:
        config = self.config
        self.scales = self.scales or (1.0,) * levels
        weights = kl_weights(self.step, levels, config.kl_warmup, config.kl_warmup_top)
        return [weight * scale for weight, scale in zip(weights, self.scales, strict=True)]

    def _clip(self) -> Tensor:
        """Clip the gradient; return its norm before that."""
        norm = self.fabric.clip_gradients(
            self.model,
            self.optimizer,
            max_norm=self.config.grad_clip or math.inf,
            error_if_nonfinite=False,
        )
        assert norm is not None  # Fabric returns None only where it clips by value
        return whole(norm)

    def _descend(self, sums: list[float], size: int) -> None:
        config = self.config
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = learning_rate(
                self.step, self.total, peak=peak, warmup=config.warmup_steps, decay=config.lr_decay
            )
        self.optimizer.step()
        self.ema.update(self.plain)
        if self.config.soft_free_bits > 0:
            means = [rate / size for rate in sums[2:]]
            self.scales = adjust(self.scales, means, self.config.soft_free_bits)

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        precision = self.fabric.strategy.precision
        return precision.scaler if isinstance(precision, MixedPrecision) else None

    def _lower_loss_scale(self) -> bool:
        """Let float16's gradient scaler handle an overflow; False without one or if it can't."""
        scaler = self._scaler
        if scaler is None or scaler.get_scale() < 1:
            return False
        self.optimizer.step()  # the scaler leaves the weights alone and lowers its scale
        return True

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint; all processes call it: parameters may be sharded."""
        return {
            "step": self.step,
            "model": whole_state(self.plain.state_dict()),
            "ema": self.ema.module.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": whole_state(self.optimizer.state_dict()),
            "optimizer_kind": self.kind,
            "precision": self.fabric.strategy.precision.state_dict(),
            "scales": list(self.scales),
        }

    def load(self, state: dict[str, Any], source: Path) -> None:
        """Resume from `state`.

        Raises:
            CheckpointError: it belongs to another model.
        """
        own = self.plain.state_dict()
        tensors = {
            name: like(tensor, own[name]) if name in own else tensor
            for name, tensor in state["model"].items()
        }
        load_into(self.plain, tensors, source)
        kind = state.get("optimizer_kind", "AdamW")  # earlier versions had no other
        groups = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
        if (kind, groups) != (self.kind, [len(g["params"]) for g in self.optimizer.param_groups]):
            raise CheckpointError(
                f"{source} was trained with another {kind}, not with this {self.kind}: give the "
                "optimizer that the run began with"
            )
        load_into(self.ema.module, state["ema"], source)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for number, slots in state["optimizer"]["state"].items():
            for name, value in slots.items():
                if isinstance(value, Tensor) and value.shape == parameters[number].shape:
                    slots[name] = like(value, parameters[number])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.ema.updates = state["step"], state["ema_updates"]
        self.scales = tuple(state["scales"])


def _total(figures: Tensor) -> Tensor:
    """Sum (…, B) figures over the examples, in float64 if the device has it."""
    return figures.detach().to(widest_float(figures.device)).sum(-1)


def _adamw(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], config.learning_rate)


def _own(optimizer: OwnOptimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Return a user's optimizer, made of the model's parameters if it is a function.

    Raises:
        UserError: it is not an optimizer, or one of other parameters.
    """
    known = [p for p in model.parameters() if p.requires_grad]
    made = optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer(known)
    if not isinstance(made, torch.optim.Optimizer):
        raise UserError(
            "expected optimizer to be a torch optimizer, or a function that makes one of the "
            f"parameters, got a {type(made).__name__}"
        )
    ids = {id(p) for p in known}
    if not all(id(p) in ids for group in made.param_groups for p in group["params"]):
        raise UserError(
            "expected an optimizer of the model's own parameters, got one of others: give a "
            "function, such as lambda parameters: torch.optim.SGD(parameters, lr=0.1)"
        )
    return made
