"""A tiny training run that tests start as real processes, and whose parts they use in their own.

Run as a script it trains, with the flags of TrainConfig and these of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[3]))

from eval import Terms
from pipelines.data.sets import Batch
from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.training.config import TrainConfig
from pipelines.training.fit import fit
from pipelines.training.schedule import work
from pipelines.training.step import Stepper


class ToyImages:
    """Images (1, 4, 4) of 5 levels; the batch of an index is a function of it and the seed."""

    fingerprint = "toy"

    def __init__(self, count=10):
        self.count = count

    def __len__(self):
        return self.count

    def batch(self, indices, *, noise_seed):
        rows = [np.random.default_rng((int(i), 1)).integers(0, 5, (1, 4, 4)) for i in indices]
        return Batch(torch.from_numpy(np.stack(rows).astype(np.uint8)), torch.from_numpy(indices))


class Toy(nn.Module):
    """Two latent levels, dropout and running statistics: all that a checkpoint must hold.

    Image `nan_index` has a loss that is no number; the process kills itself in forward `die_at`.
    """

    def __init__(self, *, noise=1.0, nan_index=-1, die_at=-1, delay=0.0):
        super().__init__()
        self.norm = nn.BatchNorm1d(16, affine=False) if noise else nn.Identity()
        self.encode = nn.Linear(16, 6)
        self.decode = nn.Linear(6, 16)
        self.dropout = nn.Dropout(0.1 if noise else 0.0)
        self.noise, self.nan_index, self.die_at, self.delay = noise, nan_index, die_at, delay
        self.calls = 0

    def forward(self, x, y=None):
        self.calls += self.training
        if self.calls == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.delay:
            time.sleep(self.delay)
        v = x.to(self.decode.weight.dtype).flatten(1) / 4
        if self.training and len(v) > 1:
            v = self.norm(v)
        mean = self.encode(v)
        z = mean + self.noise * torch.randn_like(mean)
        distortion = (self.decode(self.dropout(z)) - v).square().sum(1)
        if y is not None:
            distortion = torch.where(y == self.nan_index, float("nan"), 1.0) * distortion
        kl = 0.5 * mean.square()
        return Terms(distortion, kl.sum(1), -kl.sum(1), (kl[:, :2], kl[:, 2:]))


def build(**options):
    torch.manual_seed(1)
    return Toy(**options)


@dataclass(frozen=True)
class Settings(DeviceConfig, TrainConfig):
    count: int = 10
    """Images."""
    nan_index: int = -1
    """See Toy."""
    die_at: int = -1
    """See Toy."""
    delay: float = 0.0
    """Seconds that each forward takes."""
    gradients: str = ""
    """Write the gradients of some first steps to this file, and don't train."""

    @property
    def training(self):
        names = [field.name for field in fields(TrainConfig)]
        return TrainConfig(**{name: getattr(self, name) for name in names})


CASES = [
    {"batch_size": size, "accumulate": parts, "free_bits": free}
    for size in (6, 5, 3, 1)
    for parts in (1, 2)
    for free in (0.0, 0.3)
    if parts <= size
]


def gradients(fabric):
    """Return the gradient of one step for each of CASES, on float64 weights and without noise."""
    found = []
    for case in CASES:
        config = TrainConfig(**case)
        stepper = Stepper(fabric, build(noise=0.0).double(), config, total=1)
        job = work(
            ToyImages(),
            0,
            seed=0,
            batch_size=config.batch_size,
            rank=fabric.global_rank,
            world=fabric.world_size,
            accumulate=config.accumulate,
        )
        stepper._backward(job)
        grads = {name: p.grad for name, p in stepper.plain.named_parameters()}
        found.append({name: train_whole(grad) for name, grad in grads.items()})
    return found


def train_whole(grad):
    from pipelines.training.ema import whole

    return whole(grad).clone()


def main():
    import tyro

    settings = tyro.cli(Settings)
    fabric = make_fabric(settings, settings.precision)
    if settings.gradients:
        found = gradients(fabric)
        if fabric.is_global_zero:
            torch.save(found, settings.gradients)
        return
    model = build(nan_index=settings.nan_index, die_at=settings.die_at, delay=settings.delay)
    fit(
        fabric,
        model,
        ToyImages(settings.count),
        settings.training,
        settings.out,
        evaluate=lambda model: {"bits_per_dim": float(model.decode.weight.abs().sum())},
    )


if __name__ == "__main__":
    main()
