"""Training loop, the only one.

Step s of a run:

    indices = f(seed, s)  ->  this process's share, in `accumulate` parts  ->  for each part:
    seed(seed, s, rank, part)  ->  model(x, y): Terms  ->  surrogate  ->  backward
    ->  one sum over all processes: terms, gradient norm, signals  ->  all agree  ->  optimizer, EMA

A step is a function of its number and of the state in the previous checkpoint. A resumed run
therefore equals an uninterrupted one, bit for bit on a CPU, and any number of processes follows the
gradient of the same mean over the same global batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_fabric import Fabric
from torch import nn

from eval import NonFiniteScoreError
from pipelines.data.image_set import ImageSet
from pipelines.runtime.devices import on_main
from pipelines.runtime.errors import CheckpointError, WriteError
from pipelines.runtime.lock import hold
from pipelines.runtime.messages import say
from pipelines.runtime.progress import Progress
from pipelines.training import checkpoint, weights
from pipelines.training.comparison import check_same
from pipelines.training.config import MAY_DIFFER, TrainConfig
from pipelines.training.history import History
from pipelines.training.logs import NONFINITE, Logs
from pipelines.training.nonfinite import describe, refusal
from pipelines.training.profiling import profiler
from pipelines.training.run_directory import remove_leftovers
from pipelines.training.schedule import Work, ahead, work
from pipelines.training.signals import Interrupts, resume_command
from pipelines.training.step import Outcome, OwnOptimizer, Stepper

Evaluate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class FitResult:
    """Result of training, besides the files in its run directory.

    Attributes:
        model: with the averaged weights, in eval mode, plain and whole in every process.
        steps: optimizer steps, those of earlier parts of a resumed run included.
        seconds: of training, likewise.
        metrics: the last line of metrics written by this process; empty if none was.
    """

    model: nn.Module
    steps: int
    seconds: float
    metrics: dict[str, Any]


def fit(
    fabric: Fabric,
    model: nn.Module,
    images: ImageSet,
    config: TrainConfig,
    run_dir: Path | str,
    *,
    optimizer: OwnOptimizer | None = None,
    evaluate: Evaluate | None = None,
    label: str = "train",
    figure: Literal["bits/dim", "nats"] = "bits/dim",
    begun: Callable[[], object] = lambda: None,
) -> FitResult:
    """Train a model, or resume its training, until `config.total_steps` steps are done.

    Args:
        fabric: launched, as by `make_fabric`.
        model: a module whose `forward(x, y)` returns Terms; built alike in every process.
        images: the training set.
        config: how to train; with `resume`, from the newest valid checkpoint in `run_dir`, or from
            the start if the run was stopped before its first one.
        run_dir: an existing folder for weights, checkpoints, metrics and events. It is locked
            during training.
        optimizer: a torch optimizer of the model's parameters, or a function that makes one of
            them, in place of AdamW. Its own learning rates are the peaks of the schedule. Its state
            is part of the checkpoints, and resuming takes the same kind of optimizer again.
        evaluate: called in every process with the averaged model, every `config.eval_every` steps
            and at the end. It returns figures of the whole validation set, the same in every
            process; the lowest "bits_per_dim" among them decides which checkpoint is the best.
        label: label of the progress bar.
        figure: figure next to the bar: bits per sub-pixel, or nats per image.
        begun: called in the first process before the first step, once nothing can refuse the run
            any more.

    Raises:
        CheckpointError: nothing can be saved, or the checkpoint is of another run.
        LockedError: another process writes to the run directory.
        NonFiniteStepError: see `config.on_nonfinite`.
        SystemExit: 130 or 143 after a signal, with everything saved, in the first process; 0 in
            the others, since Fabric kills the first one as soon as another exits with an error.
    """
    if len(images) == 0:
        raise ValueError("the training set is empty; check --data-dir and --limit")
    stepper = Stepper(fabric, model, config, config.total_steps(len(images)), optimizer)
    training = _Training(fabric, stepper, images, config, Path(run_dir), evaluate)
    return training.run(label, figure, begun)


class _Training:
    """A run in progress: steps with logs, evaluations and checkpoints in between."""

    def __init__(
        self,
        fabric: Fabric,
        stepper: Stepper,
        images: ImageSet,
        config: TrainConfig,
        run_dir: Path,
        evaluate: Evaluate | None,
    ) -> None:
        self.fabric, self.images, self.config, self.run_dir = fabric, images, config, run_dir
        self.evaluate = evaluate
        self.main = fabric.is_global_zero
        self.stepper, self.total = stepper, stepper.total
        self.interrupts = Interrupts()
        self.history = History()
        self.saved = -1  # the step of the last checkpoint
        self.metrics: dict[str, Any] = {}

    @property
    def step(self) -> int:
        return self.stepper.step

    def run(
        self, label: str, figure: Literal["bits/dim", "nats"], begun: Callable[[], object]
    ) -> FitResult:
        with contextlib.ExitStack() as stack:
            self._begin(stack, begun)
            self.logs = stack.enter_context(Logs(self.run_dir, step=self.step, enabled=self.main))
            stack.enter_context(self.interrupts)
            traced = self.config.profile and self.main
            trace = stack.enter_context(profiler(self.run_dir)) if traced else None
            show = self.main and self.total > 0
            bar = Progress(self.total, label, initial=self.step, enabled=show)
            stack.enter_context(bar)
            self._evaluate_if_due()  # a signal may have come between a step and its evaluation
            for job in ahead(self._read, self.step, self.total):
                outcome = self.stepper.take(job, self.interrupts.flags)
                self._note(job, outcome)
                key = "bits_per_dim" if figure == "bits/dim" else figure
                bar.update(1, **({figure: self.metrics[key]} if key in self.metrics else {}))
                if trace is not None:
                    trace.step()
                if any(outcome.flags):
                    self._leave(130 if outcome.flags[0] else 143)
                if self._evaluate_if_due() or self._due(self.config.checkpoint_every):
                    self._save()
            if self.saved != self.step:
                self._save()
        return FitResult(self.stepper.averaged(), self.step, self.history.seconds, self.metrics)

    def _begin(self, stack: contextlib.ExitStack, begun: Callable[[], object]) -> None:
        """Lock the run directory, and restore its newest checkpoint if the run is resumed."""

        def claim() -> None:
            stack.enter_context(hold(self.run_dir))
            remove_leftovers(self.run_dir)

        on_main(self.fabric, claim)
        if self.config.resume:
            self._restore()
        on_main(self.fabric, begun)
        self.history.start()

    def _read(self, step: int) -> Work:
        return work(
            self.images,
            step,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            accumulate=self.config.accumulate,
        )

    def _due(self, every: int) -> bool:
        return every > 0 and self.step > 0 and self.step % every == 0

    # Logs

    def _note(self, job: Work, outcome: Outcome) -> None:
        """Log metrics if they are due, and a step that was not taken."""
        self.history.skipped.count(taken=outcome.status != "nonfinite")
        if outcome.status == "nonfinite":
            self._meet_nonfinite(job, outcome)
        if outcome.status == "taken":
            self.history.window.add(outcome.sums, outcome.norm, len(job.indices), outcome.auxiliary)
        due = self._due(self.config.log_every)
        if due or self.step == self.total:
            figures = self.history.window.figures(dims=job.parts[0].x[0].numel())
            figures |= {
                "learning_rate": self.stepper.learning_rate,
                "skipped": self.history.skipped.total,
                "seconds": self.history.seconds,
            }
            if self.config.soft_free_bits > 0:
                for level, scale in enumerate(self.stepper.scales):
                    figures[f"kl_scale_{level}"] = scale
            self.logs.write(self.step, figures)
            self.metrics = {"step": self.step, **figures}
        if due:  # not at the end, which may become the middle of a longer run
            self.history.window.clear()

    def _meet_nonfinite(self, job: Work, outcome: Outcome) -> None:
        """Log the step; then raise an error, or leave the step out."""
        last_good = self.step - self.history.skipped.in_a_row
        action = self.config.on_nonfinite
        record = describe(job, outcome, last_good=last_good, action=action)
        self.logs.nonfinite(self.step, record)
        if action == "skip" and not self.history.skipped.too_many:
            return
        self.stepper.step -= 1  # it was not taken: a resumed run tries it again
        self.history.skipped.take_back()
        self._save()
        raise refusal(self.step + 1, record, self.run_dir / NONFINITE)

    def _evaluate_if_due(self) -> bool:
        """Score the averaged model; return True if it is the best so far, to be saved."""
        every = self.config.eval_every
        due = self._due(every) or (every > 0 and self.step == self.total)
        if self.evaluate is None or not due or self.step == self.history.evaluated:
            return False
        model = self.stepper.averaged()
        try:
            scores = self.fabric.broadcast(dict(self.evaluate(model)))
        except NonFiniteScoreError:  # in every process
            self._save()
            raise
        self.logs.write(self.step, {f"valid/{name}": value for name, value in scores.items()})
        return self.history.evaluate(self.step, scores)

    # Checkpoints

    def _save(self) -> None:
        """Write a checkpoint and the averaged weights; an error is raised in every process."""
        state = self.stepper.state() | self.history.state()
        state |= {"config": asdict(self.config), "data": self.images.fingerprint}

        def write() -> None:
            self.logs.sync()
            keep, best = self.config.keep_checkpoints, self.history.best_step
            try:
                checkpoint.save_state(self.run_dir, state, keep=keep, best=best)
                weights.save_weights(self.run_dir, self.stepper.ema.module, step=self.step)
            except WriteError as error:
                raise CheckpointError(f"{error}, then resume with --resume") from error

        on_main(self.fabric, write)
        self.saved = self.step

    def _restore(self) -> None:
        """Restore the newest valid checkpoint, or start from the beginning if there is none yet."""
        path = on_main(self.fabric, lambda: checkpoint.newest_valid(self.run_dir))
        if path is None:
            self._say(f"{self.run_dir} has no checkpoint yet: starting at step 0")
            return
        state = checkpoint.read_state(path)
        check_same(
            {**state["config"], "training set": state["data"]},
            {**asdict(self.config), "training set": self.images.fingerprint},
            source=path,
            may_differ=MAY_DIFFER,
        )
        self.stepper.load(state, path)
        self.history.load(state)
        self._say(f"resuming from step {self.step} of {self.total} ({path})")

    def _leave(self, code: int) -> None:
        """Save and exit, after some process has received a signal."""
        self._save()
        self._say(
            f"stopped after step {self.step} of {self.total}, and saved; resume with\n"
            f"  {resume_command(self.run_dir)}"
        )
        raise SystemExit(code if self.main else 0)

    def _say(self, message: str) -> None:
        if self.main:
            say(message)
