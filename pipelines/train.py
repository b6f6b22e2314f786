"""The only training loop.

A step, s of a run:

    indices = f(seed, s)  ->  this process's share, in `accumulate` parts  ->  for each part:
    seed(seed, s, rank, part)  ->  model(x, y): Terms  ->  surrogate  ->  backward
    ->  one sum over all processes: terms, gradient norm, signals  ->  all agree  ->  optimiser, EMA

Everything that a step does is a function of its number and of the state in the checkpoint before
it. So a resumed run is the uninterrupted one, bit for bit on a CPU, and any number of processes
descends the gradient of the same mean over the same global batch.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

from eval.nll import bits_per_dim
from pipelines import checkpoint
from pipelines.config import MAY_DIFFER, TrainConfig
from pipelines.devices import make_fabric, on_main
from pipelines.ema import EMA, like, whole, whole_state
from pipelines.logs import Logs
from pipelines.objective import adjust, kl_weights, level_rates, surrogate
from pipelines.progress import Progress
from pipelines.schedule import TrainingImages, Work, ahead, learning_rate, seed_step, work
from pipelines.signals import Interrupts, resume_command

__all__ = ["FitResult", "NonFiniteError", "TrainConfig", "fit", "make_fabric", "on_main"]

Evaluate = Callable[[nn.Module], Mapping[str, float]]
Pictures = Callable[[nn.Module], Mapping[str, np.ndarray]]

SCORE = "bits_per_dim"  # in what `evaluate` returns: the lower, the better the checkpoint
MOST_SKIPS = 20  # non-finite steps in a row, after which leaving them out is no cure


class NonFiniteError(ValueError):
    """Training met a loss or a gradient that is no finite number; no weight was changed by it."""


@dataclass(frozen=True)
class FitResult:
    """What training leaves behind, besides the files in its run directory.

    Attributes:
        model: with the averaged weights, in eval mode, plain and whole in every process.
        steps: optimiser steps in all, of earlier parts of a resumed run too.
        seconds: of training in all, likewise.
        metrics: the last line of metrics written by this process; empty if none was.
        best: {"step": …, "bits_per_dim": …} of the best evaluation; None without one.
    """

    model: nn.Module
    steps: int
    seconds: float
    metrics: dict[str, Any]
    best: dict[str, Any] | None


def fit(
    fabric: Fabric,
    model: nn.Module,
    images: TrainingImages,
    config: TrainConfig,
    run_dir: Path | str,
    *,
    evaluate: Evaluate | None = None,
    pictures: Pictures | None = None,
) -> FitResult:
    """Train a model, or go on training it, until `config.total_steps` steps are done.

    Args:
        fabric: launched, as by `make_fabric`.
        model: a module whose `forward(x, y)` returns Terms; built alike in every process.
        images: the training set.
        config: how to train; with `resume`, from the newest valid checkpoint in `run_dir`, or from
            the beginning if the run was stopped before its first one.
        run_dir: an existing folder. It gets weights, checkpoints, metrics and events.
        evaluate: called in every process with the averaged model, each `config.eval_every` steps
            and at the end; returns figures of the whole validation set, alike in every process,
            among them "bits_per_dim", whose lowest value decides which checkpoint is the best.
        pictures: called after it in the first process only; returns pictures (C, H, W) uint8 by
            name, for TensorBoard.

    Raises:
        CheckpointError: nothing can be saved, or the checkpoint is of another run.
        NonFiniteError: see `config.on_nonfinite`.
        SystemExit: 130 or 143 after a signal, with everything saved, in the first process; 0 in
            the others, since Fabric kills the first one as soon as another exits with an error.
    """
    if len(images) == 0:
        raise ValueError("the training set is empty; check --data-dir and --limit")
    return _Training(fabric, model, images, config, Path(run_dir), evaluate, pictures).run()


class _Training:
    """A run in progress: what the checkpoint holds, and the step that carries it on."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        images: TrainingImages,
        config: TrainConfig,
        run_dir: Path,
        evaluate: Evaluate | None,
        pictures: Pictures | None,
    ) -> None:
        self.fabric, self.images, self.config, self.run_dir = fabric, images, config, run_dir
        self.evaluate, self.pictures = evaluate, pictures
        self.total = config.total_steps(len(images))
        self.ema = EMA(model, config.ema)
        self.ema.module.to(fabric.device)
        self.plain = model
        self.model = fabric.setup_module(torch.compile(model) if config.compile else model)
        self.optimizer = fabric.setup_optimizers(_optimizer(self.plain, config))
        self.ema.copy(self.plain)
        self.interrupts = Interrupts()
        # all that follows is in the checkpoint
        self.step = 0  # steps done
        self.window: list[float] = []  # sums since the last line of metrics
        self.scales: tuple[float, ...] = ()  # of soft free bits, one per level
        self.best: dict[str, Any] | None = None
        self.evaluated = 0  # the step of the last evaluation
        self.skipped = self.skipped_in_a_row = 0
        self.seconds = 0.0

    # The run

    def run(self) -> FitResult:
        if self.config.resume:
            self._restore()
        else:
            on_main(self.fabric, lambda: checkpoint.remove_leftovers(self.run_dir))
        main = self.fabric.is_global_zero
        self.began = time.monotonic() - self.seconds
        self.saved = self.step if self.step else -1
        self.metrics: dict[str, Any] = {}
        self.window_began = time.monotonic()
        with contextlib.ExitStack() as stack:
            self.logs = stack.enter_context(Logs(self.run_dir, step=self.step, enabled=main))
            stack.enter_context(self.interrupts)
            bar = stack.enter_context(
                Progress(self.total, "train", initial=self.step, enabled=main and self.total > 0)
            )
            profiler = self._profiler(stack) if self.config.profile and main else None
            self._evaluate_if_due()  # a signal may have come between a step and its evaluation
            for job in ahead(self._read, self.step, self.total):
                stop = self._take_step(job)
                self._log_if_due()
                bar.update(1, **self._figures_for_bar())
                if profiler is not None:
                    profiler.step()
                if stop:
                    self._leave(stop)
                if self._evaluate_if_due() or self._due(self.config.checkpoint_every):
                    self._save()
            if self.saved != self.step:
                self._save()
        on_main(self.fabric, self._save_weights)
        return FitResult(self.ema.module, self.step, self._time(), self.metrics, self.best)

    def _read(self, step: int) -> Work:
        config, fabric = self.config, self.fabric
        return work(
            self.images,
            step,
            seed=config.seed,
            batch_size=config.batch_size,
            rank=fabric.global_rank,
            world=fabric.world_size,
            accumulate=config.accumulate,
        )

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _time(self) -> float:
        return time.monotonic() - self.began

    def _profiler(self, stack: contextlib.ExitStack) -> torch.profiler.profile:
        path = self.run_dir / "trace.json"
        return stack.enter_context(
            torch.profiler.profile(
                schedule=torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1),
                on_trace_ready=lambda profile: profile.export_chrome_trace(str(path)),
            )
        )

    # One step

    def _take_step(self, job: Work) -> int:
        """Do one step. Returns the exit code if a signal says that it is the last, or 0."""
        sums = self._backward(job)
        norm = self._clip()
        flags = sums.new_tensor(self.interrupts.flags)
        mine = torch.cat([sums, norm.to(sums).reshape(1) / self.fabric.world_size, flags])
        *totals, norm_, interrupted, terminated = self._sum(mine).tolist()
        if all(map(math.isfinite, [*totals, norm_])):
            self._descend(totals, norm_, len(job.indices))
        elif all(map(math.isfinite, totals)) and self._lower_loss_scale():
            pass  # an overflow of float16's gradients, which the next step's lower scale avoids
        else:
            self._meet_nonfinite(job, totals, norm_)
        self.optimizer.zero_grad()
        self.step += 1
        return 143 if terminated else 130 if interrupted else 0

    def _backward(self, job: Work) -> Tensor:
        """Accumulate the gradient of the global batch's mean.

        Returns:
            float64 sums over this process's images: surrogate, distortion, rate of each level.
        """
        config, fabric = self.config, self.fabric
        self.model.train()
        means = self._mean_rates_ahead(job)
        sums: Any = 0.0
        for number, part in enumerate(job.parts):
            last = number == len(job.parts) - 1
            seed_step(config.seed, self.step, fabric.global_rank, number)
            x, y = fabric.to_device((part.x, part.y))
            with fabric.no_backward_sync(self.model, enabled=not last):
                terms = self.model(x, y)
                rates = level_rates(terms)
                if config.free_bits > 0 and means is None:
                    means = self._sum(self._exact(rates) * job.weight) / len(job.indices)
                loss = surrogate(
                    terms,
                    self._kl_weights(len(rates)),
                    free_bits=config.free_bits,
                    mean_rates=means,
                )
                # the processes' gradients are averaged, hence the factor world_size
                share = job.weight * fabric.world_size / len(job.indices)
                fabric.backward(loss.sum() * share)
            figures = torch.stack([loss.detach(), terms.distortion.detach(), *rates.detach()])
            sums = sums + self._exact(figures) * job.weight
        self._dims = x[0].numel()
        return sums

    def _mean_rates_ahead(self, job: Work) -> Tensor | None:
        """Each level's mean rate over the global batch, where free bits need it before backward.

        In a split batch no part knows it, so this takes one more forward pass of all of them.
        """
        if self.config.free_bits == 0 or self.config.accumulate == 1:
            return None
        sums: Any = 0.0
        for number, part in enumerate(job.parts):
            seed_step(self.config.seed, self.step, self.fabric.global_rank, number)
            x, y = self.fabric.to_device((part.x, part.y))
            with torch.no_grad():
                sums = sums + self._exact(level_rates(self.model(x, y))) * job.weight
        return self._sum(sums) / len(job.indices)

    def _exact(self, figures: Tensor) -> Tensor:
        """Sums over the examples of (…, B) figures, in float64 where the device has it."""
        dtype = torch.float32 if figures.device.type == "mps" else torch.float64
        return figures.detach().to(dtype).sum(-1)

    def _sum(self, tensor: Tensor) -> Tensor:
        return self.fabric.all_reduce(tensor, reduce_op="sum")  # pyright: ignore

    def _kl_weights(self, levels: int) -> list[float]:
        config = self.config
        if config.soft_free_bits > 0 and not self.scales:
            self.scales = (1.0,) * levels
        weights = kl_weights(self.step, levels, config.kl_warmup, config.kl_warmup_top)
        return [a * b for a, b in zip(weights, self.scales or (1.0,) * levels, strict=True)]

    def _clip(self) -> Tensor:
        """The norm of the whole gradient, which is then clipped."""
        norm = self.fabric.clip_gradients(
            self.model,
            self.optimizer,
            max_norm=self.config.grad_clip or math.inf,
            error_if_nonfinite=False,
        )
        assert norm is not None  # it is None only where Fabric clips by value
        return whole(norm)

    def _descend(self, totals: list[float], norm: float, size: int) -> None:
        config = self.config
        rate = learning_rate(
            self.step,
            self.total,
            peak=config.learning_rate,
            warmup=config.warmup_steps,
            decay=config.lr_decay,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.ema.update(self.plain)
        self.skipped_in_a_row = 0
        if config.soft_free_bits > 0:
            means = [total / size for total in totals[2:]]
            self.scales = adjust(self.scales, means, config.soft_free_bits)
        new = [*totals, norm, float(size), 1.0]
        self.window = [a + b for a, b in zip(self.window or [0.0] * len(new), new, strict=True)]

    def _lower_loss_scale(self) -> bool:
        """With float16, let the gradient scaler do its work; False if it has no room left."""
        precision = self.fabric.strategy.precision
        scaler = precision.scaler if isinstance(precision, MixedPrecision) else None
        if scaler is None or scaler.get_scale() < 1:
            return False
        self.optimizer.step()  # the scaler leaves the weights alone and lowers its scale
        return True

    def _meet_nonfinite(self, job: Work, totals: list[float], norm: float) -> None:
        """Put a step that can't be taken on record; then raise, or leave it out."""
        self.ema.restore_buffers(self.plain)  # the forward pass may have spoilt running statistics
        self.skipped += 1
        self.skipped_in_a_row += 1
        loss = totals[0] / len(job.indices)
        record = {
            "last_good_step": self.step - self.skipped_in_a_row + 1,
            "loss": loss if math.isfinite(loss) else str(loss),
            "grad_norm": norm if math.isfinite(norm) else str(norm),
            "indices": job.indices.tolist(),
            "action": self.config.on_nonfinite,
        }
        self.logs.nonfinite(self.step + 1, record)
        if self.config.on_nonfinite == "skip" and self.skipped_in_a_row < MOST_SKIPS:
            return
        self.optimizer.zero_grad()
        self._save()
        raise NonFiniteError(
            f"step {self.step + 1} has a loss of {loss} and a gradient of norm {norm}, so it was "
            f"not taken; the weights of step {self.step} are saved, and the batch is on record in "
            f"{self.run_dir / 'nonfinite.jsonl'}: lower --learning-rate, or go on with "
            "--resume --on-nonfinite skip"
        )

    # What is seen of it

    def _log_if_due(self) -> None:
        if not self._due(self.config.log_every) and self.step != self.total:
            return
        figures: dict[str, Any] = {"skipped": self.skipped} if self.skipped else {}
        if self.window:
            figures |= self._figures()
        figures["seconds"] = self._time()
        self.logs.write(self.step, figures)
        self.metrics = {"step": self.step, **figures}
        self.window, self.window_began = [], time.monotonic()

    def _figures(self) -> dict[str, Any]:
        """Means since the last line: the true bound, and what was minimised in its place."""
        loss, distortion, *rates, norm, count, steps = self.window
        nats = (distortion + sum(rates)) / count
        figures: dict[str, Any] = {
            "nats": nats,
            "bits_per_dim": bits_per_dim(nats, self._dims),
            "distortion": distortion / count,
            "rate": sum(rates) / count,
            "objective": loss / count,
            "grad_norm": norm / steps,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_second": count / max(time.monotonic() - self.window_began, 1e-9),
        }
        for level, rate in enumerate(rates if len(rates) > 1 else []):
            figures[f"rate_{level}"] = rate / count
        for level, scale in enumerate(self.scales):
            figures[f"kl_scale_{level}"] = scale
        return figures

    def _figures_for_bar(self) -> dict[str, float]:
        return {"bits/dim": self.metrics["bits_per_dim"]} if "bits_per_dim" in self.metrics else {}

    def _evaluate_if_due(self) -> bool:
        """Score the averaged model; True if it is the best so far, and so to be kept."""
        every = self.config.eval_every
        at_end = every > 0 and self.step == self.total
        if self.evaluate is None or self.step == self.evaluated:
            return False
        if not (self._due(every) or at_end):
            return False
        scores = self.fabric.broadcast(dict(self.evaluate(self.ema.module)))
        self.evaluated = self.step
        self.logs.write(self.step, {f"valid/{name}": value for name, value in scores.items()})
        if self.pictures is not None and self.fabric.is_global_zero:
            for name, image in self.pictures(self.ema.module).items():
                self.logs.picture(self.step, name, image)
        if self.best is not None and scores[SCORE] >= self.best[SCORE]:
            return False
        self.best = {"step": self.step, SCORE: float(scores[SCORE])}
        return True

    # What lasts

    def _state(self) -> dict[str, Any]:
        """The checkpoint; all processes put it together, for parameters that lie in pieces."""
        return {
            "step": self.step,
            "model": whole_state(self.plain.state_dict()),
            "ema": self.ema.module.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": whole_state(self.optimizer.state_dict()),
            "precision": self.fabric.strategy.precision.state_dict(),
            "window": self.window,
            "scales": list(self.scales),
            "best": self.best,
            "evaluated": self.evaluated,
            "skipped": [self.skipped, self.skipped_in_a_row],
            "seconds": self._time(),
            "config": asdict(self.config),
            "data": self.images.fingerprint,
        }

    def _save(self) -> None:
        """Write a checkpoint and the averaged weights; an error is raised in every process."""
        state = self._state()
        best = self.best["step"] if self.best else None

        def write() -> None:
            self.logs.sync()
            keep = self.config.keep_checkpoints
            checkpoint.save_state(self.run_dir, state, keep=keep, best=best)
            self._save_weights()

        on_main(self.fabric, write)
        self.saved = self.step

    def _save_weights(self) -> None:
        checkpoint.save_weights(self.run_dir, self.ema.module, step=self.step)

    def _restore(self) -> None:
        """Go on from the newest valid checkpoint, or from the beginning if there is none yet."""

        def find() -> Path | None:
            checkpoint.remove_leftovers(self.run_dir)
            return checkpoint.newest_valid(self.run_dir)

        path = on_main(self.fabric, find)
        if path is None:
            self._say(f"{self.run_dir} has no checkpoint yet: beginning at step 0")
            return
        state = checkpoint.read_state(path)
        checkpoint.check_same(
            {**state["config"], "training set": state["data"]},
            {**asdict(self.config), "training set": self.images.fingerprint},
            source=path,
            may_differ=MAY_DIFFER,
        )
        own = self.plain.state_dict()
        tensors = {
            name: like(tensor, own[name]) if name in own else tensor
            for name, tensor in state["model"].items()
        }
        checkpoint.load_into(self.plain, tensors, path)
        checkpoint.load_into(self.ema.module, state["ema"], path)
        self._load_optimizer(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.ema.updates, self.window = state["ema_updates"], state["window"]
        self.scales, self.best = tuple(state["scales"]), state["best"]
        self.evaluated = state["evaluated"]
        self.skipped, self.skipped_in_a_row = state["skipped"]
        self._say(f"resuming from step {self.step} of {self.total} ({path})")

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for number, slots in state["state"].items():
            parameter = parameters[number]
            for name, value in slots.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    slots[name] = like(value, parameter)
        self.optimizer.load_state_dict(state)

    def _leave(self, code: int) -> None:
        """Save and exit, after a signal that some process got."""
        self._save()
        self._say(
            f"stopped after step {self.step} of {self.total}, and saved; go on with\n"
            f"  {resume_command(self.run_dir)}"
        )
        raise SystemExit(code if self.fabric.is_global_zero else 0)

    def _say(self, message: str) -> None:
        if self.fabric.is_global_zero:
            print(message, file=sys.stderr, flush=True)


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], config.learning_rate)
