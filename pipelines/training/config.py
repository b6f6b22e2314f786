"""The settings of training; each field is a flag of every training command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from pipelines.runtime.config import (
    Amount,
    Bounded,
    Count,
    DeviceConfig,
    Fraction,
    Positive,
    PositiveFloat,
    Precision,
)
from pipelines.runtime.errors import ConfigError


@dataclass(frozen=True)
class TrainConfig(Bounded):
    """Flags of the training loop."""

    steps: Count = 0
    """Optimizer steps in all, before and after resuming (0: count in epochs)."""
    epochs: Count = 1
    """Passes over the training set, if --steps is 0. 0 trains nothing, for any --steps."""
    batch_size: Annotated[Positive, tyro.conf.arg(aliases=["--bs"])] = 64
    """Images per optimizer step, over all devices and micro-batches together."""
    learning_rate: Annotated[PositiveFloat, tyro.conf.arg(aliases=["--lr"])] = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: Count = 0
    """Steps of linear learning-rate warm-up."""
    lr_decay: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or a half cosine to zero at the last step."""
    weight_decay: Amount = 0.0
    """Decoupled weight decay of matrices and kernels, never of biases and gains."""
    grad_clip: Amount = 1.0
    """Largest norm of the whole gradient (0: no clipping)."""
    ema: Fraction = 0.999
    """Decay of the averaged weights, which are scored and sampled from (0: the newest weights)."""
    seed: Count = 0
    """Random seed of data order, noise and dropout."""
    kl_warmup: Count = 0
    """Steps until the KL counts fully in the objective. The bound that is reported always has it in
    full."""
    kl_warmup_top: Count = 0
    """Steps of an additional, slower warm-up for the top of several latent levels."""
    free_bits: Amount = 0.0
    """Nats per latent level, in the mean over a batch, that cost nothing to use."""
    soft_free_bits: Amount = 0.0
    """Nats per latent level that a factor on the KL, changed by 10 % a step, steers towards."""
    precision: Precision = "32-true"
    """Arithmetic of training. Scoring is in float32 whatever this is."""
    accumulate: Positive = 1
    """Micro-batches that each device's share of a batch is split into, to save memory."""
    compile: bool = False
    """Compile the training step, and an estimate's decoder, with torch.compile."""
    log_every: Positive = 20
    """Steps between two lines of metrics."""
    eval_every: Count = 0
    """Steps between two evaluations during training (0: none)."""
    checkpoint_every: Count = 1000
    """Steps between two checkpoints (0: one at the end only)."""
    keep_checkpoints: Positive = 2
    """Number of the newest checkpoints to keep; the best one is kept too."""
    on_nonfinite: Literal["raise", "skip"] = "raise"
    """When the loss or the gradient is not finite: stop, or leave that batch out."""
    profile: bool = False
    """Write a profiler's trace of a few steps to trace.json."""
    out: str = ""
    """Run directory (default: runs/<pipeline>-<data>-<time>)."""
    resume: bool = False
    """Resume the run in --out from its newest valid checkpoint."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"--accumulate must be at most --batch-size, {self.batch_size}, "
                f"got {self.accumulate}"
            )
        if self.free_bits > 0 and self.soft_free_bits > 0:
            raise ConfigError("--free-bits and --soft-free-bits exclude one another; choose one")

    def total_steps(self, count: int) -> int:
        """Return the optimizer steps of the whole run over a training set of `count` images.

        >>> TrainConfig(epochs=3, batch_size=4).total_steps(10)
        9
        >>> TrainConfig(steps=5).total_steps(10), TrainConfig(steps=5, epochs=0).total_steps(10)
        (5, 0)
        """
        if self.epochs == 0:
            return 0
        return self.steps or self.epochs * steps_per_epoch(count, self.batch_size)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the optimizer steps in an epoch; the last batch may be smaller.

    >>> steps_per_epoch(10, 4)
    3
    """
    return -(-count // batch_size)


# Flags that apply only to a model with latents.
OF_LATENTS = ("kl_warmup", "kl_warmup_top", "free_bits", "soft_free_bits")

# Fields that a resumed run may change: how long, where, how often; never what is computed.
# Checkpoints of earlier versions contain the devices too.
MAY_DIFFER = frozenset(
    (
        *("steps", "epochs", "accumulate", "compile", "log_every", "eval_every"),
        *("checkpoint_every", "keep_checkpoints", "on_nonfinite", "profile", "out", "resume"),
        *("data_dir", "cache_dir"),
        *DeviceConfig.__dataclass_fields__,
    )
)
