"""The settings of a training run; each field is a flag of every training command."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from pipelines.training.schedule import steps_per_epoch

LARGEST = 1e30  # of any flag: float32 has room for what is computed from it


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    >>> TrainConfig(epochs=3, batch_size=4).total_steps(10)
    9
    >>> TrainConfig(steps=5).total_steps(10), TrainConfig(steps=5, epochs=0).total_steps(10)
    (5, 0)
    """

    steps: int = 0
    """Optimiser steps in all, before and after resuming; 0 to count in epochs."""
    epochs: int = 1
    """Passes over the training set, if --steps is 0; 0 for no training, whatever --steps."""
    batch_size: int = 64
    """Images per optimiser step, over all devices and accumulated parts together."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 0
    """Steps of linear learning-rate warm-up."""
    lr_decay: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or a half cosine to zero at the last step."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices and kernels; never of biases and gains."""
    grad_clip: float = 1.0
    """Largest norm of the whole gradient; 0 for no clipping."""
    ema: float = 0.999
    """Decay of the averaged weights, which are scored and sampled from; 0 for the newest ones."""
    seed: int = 0
    """Random seed of data order, noise and dropout."""
    kl_warmup: int = 0
    """Steps until the KL counts fully in the objective (what is reported is always the bound)."""
    kl_warmup_top: int = 0
    """Steps of an additional, slower warm-up for the top of several latent levels."""
    free_bits: float = 0.0
    """Nats per latent level, in the mean over a batch, that cost nothing to use."""
    soft_free_bits: float = 0.0
    """Nats per latent level that a factor on the KL, changed by 10 % a step, steers towards."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device."""
    devices: str = "auto"
    """Number of devices, a list such as 0,2, or auto."""
    num_nodes: int = 1
    """Number of machines."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Several devices: whole copies (ddp), or weights in pieces (fsdp) for models too large."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    """Arithmetic of training; scoring is in float32 whatever this is."""
    accumulate: int = 1
    """Parts that each device's share of a batch is split into, to save memory."""
    compile: bool = False
    """Compile the training step, and an estimate's decoder, by torch.compile."""
    log_every: int = 20
    """Steps between two lines of metrics."""
    eval_every: int = 0
    """Steps between two evaluations during training; 0 for none."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; 0 for one at the end only."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep; the best one stays besides."""
    on_nonfinite: Literal["raise", "skip"] = "raise"
    """When the loss or the gradient is not finite: stop, or leave that batch out."""
    profile: bool = False
    """Write a profiler's trace of a few steps to trace.json."""
    out: str = ""
    """Run directory; runs/<pipeline>-<data>-<time> if empty."""
    resume: bool = False
    """Go on with the run in --out, from its newest valid checkpoint."""

    def __post_init__(self) -> None:
        positive = ("batch_size", "learning_rate", "accumulate", "num_nodes", "log_every")
        for name in (*positive, "keep_checkpoints"):
            if not getattr(self, name) > 0:
                self._refuse(name, "more than 0")
        for name in (
            *("steps", "epochs", "warmup_steps", "weight_decay", "grad_clip", "seed", "kl_warmup"),
            *("kl_warmup_top", "free_bits", "soft_free_bits", "eval_every", "checkpoint_every"),
        ):
            if not getattr(self, name) >= 0:
                self._refuse(name, "0 or more")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not abs(value) <= LARGEST:
                self._refuse(field.name, f"finite, and at most {LARGEST:g}")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                self._refuse(field.name, "below 2^63")
        if self.accumulate > self.batch_size:
            self._refuse("accumulate", "at most --batch-size")
        if not 0 <= self.ema < 1:
            self._refuse("ema", "at least 0 and less than 1")
        if self.free_bits > 0 and self.soft_free_bits > 0:
            raise ValueError("--free-bits and --soft-free-bits exclude one another; choose one")

    def _refuse(self, name: str, expected: str) -> None:
        flag = "--" + name.replace("_", "-")
        raise ValueError(f"{flag} must be {expected}, got {getattr(self, name)}")

    def total_steps(self, count: int) -> int:
        """Optimiser steps of the whole run over a training set of `count` images."""
        if self.epochs == 0:
            return 0
        return self.steps or self.epochs * steps_per_epoch(count, self.batch_size)


# What a resumed run may change: how long, on what, how often; never what is computed.
MAY_DIFFER = frozenset(
    (
        *("steps", "epochs", "accelerator", "devices", "num_nodes", "strategy", "accumulate"),
        *("compile", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints"),
        *("on_nonfinite", "profile", "out", "resume", "data_dir", "cache_dir"),
    )
)
