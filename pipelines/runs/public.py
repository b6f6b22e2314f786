"""Functions of `pipelines`: load a model, train one of your own, score it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoders import Decoder
from decoders.pretrained import WEIGHTS, Pretrained, described_model
from decoders.recorded import classes_in
from eval import Result, bits_per_dim
from pipelines.model import Model
from pipelines.runs import results
from pipelines.runs.config import ReportConfig
from pipelines.runs.find import find_run
from pipelines.runs.load import open_run
from pipelines.runs.own import OwnConfig, pipeline_of
from pipelines.runs.own_images import keep, own_images, own_splits
from pipelines.runs.train import train_on
from pipelines.runtime.config import DeviceConfig, flat, suggestion
from pipelines.runtime.devices import make_fabric, on_main
from pipelines.runtime.errors import ConfigError, UserError
from pipelines.runtime.files import at_home
from pipelines.runtime.messages import warn
from pipelines.training.config import TrainConfig
from pipelines.training.step import OwnOptimizer

OF_ADAMW = ("learning_rate", "weight_decay")  # of no use to another optimizer


def load(run_or_name: str | Path, *, trust: Sequence[str] = ()) -> Model:
    """Load a model, with its averaged weights, in evaluation mode, on the CPU.

    Args:
        run_or_name: a run directory, a folder that `save_pretrained` wrote, or the name of a model
            that comes with the toolkit, such as "mnist-gated".
        trust: modules of your own that may be imported. Without them no code is run but the
            toolkit's.

    Raises:
        UserError: there is no such run, or it is damaged.
        PretrainedError: the saved model is damaged.

    >>> load("mnist-gated").kind
    'exact'
    """
    trusted = [trust] if isinstance(trust, str) else list(trust)
    folder = at_home(run_or_name)
    if not (folder / WEIGHTS).is_file():
        return open_run(find_run(run_or_name), trusted).model
    return as_model(Pretrained.from_pretrained(folder, trust=trusted)).eval()


def as_model(model: Any) -> Model:
    """Return a model as it is, and a decoder alone as an unconditional model.

    Raises:
        UserError: it is neither, or a decoder that needs an encoder.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, Decoder):
        raise UserError(f"expected a Model or a decoder, got a {type(model).__name__}")
    if model.cond_shape:
        raise UserError(
            f"expected a Model for a decoder with cond_shape={model.cond_shape}: give it the "
            "encoder that makes h, as in Model(decoder, encoder)"
        )
    return Model(model)


def train(
    model: Model | Decoder,
    train_set: Any,
    valid_set: Any = None,
    *,
    out: str | Path,
    steps: int = 0,
    optimizer: OwnOptimizer | None = None,
    data_name: str = "own",
    **flags: Any,
) -> Result | None:
    """Train a model, score it, and leave a run directory that every command opens.

    Args:
        model: it is trained in place; the run keeps its averaged weights, which `load` returns. A
            decoder alone is an unconditional model.
        train_set: a torch data set of x or (x, y), `Images`, an array, or a pair of arrays. x has
            the levels of the decoder, or is made of floats in [0, 1]; y is a label.
        valid_set: the same, to be scored; None to hold out a tenth of the training set.
        out: the run directory, new or empty.
        steps: optimizer steps (0: count in epochs, as in `epochs=10`).
        optimizer: a torch optimizer of the model's parameters, or a function that makes one of
            them, in place of AdamW.
        data_name: name of the images in results.
        flags: flags of the training commands: of training (batch_size, learning_rate, ...), of the
            report (importance_samples, num_samples, name, ...), and of devices.

    Returns:
        The result, as in the run's result.json; None in all processes but the first.

    Raises:
        UserError: the data sets don't fit the model, a flag is unknown, or `out` is not empty.
        PretrainedError: the model can't be built again from its constructor's arguments.
    """
    began, began_at = time.monotonic(), time.strftime("%Y%m%d-%H%M%S")
    _check_flags(flags, optimizer)
    model = as_model(model)
    described, _ = described_model(model)
    config = OwnConfig.of(**flags, out=str(out), steps=steps, data_name=data_name, model=described)
    splits, data = own_splits(model, train_set, valid_set, data_name)
    config = config.but(**flat(data))
    for name in classes_in(described):
        if name.startswith("__main__:"):
            warn(
                f"{name.partition(':')[2]} is defined in a script, so that commands can't open "
                "the run: move it to a module, and name that with --trust"
            )
    fabric = make_fabric(config.devices, config.training.precision)
    result = train_on(
        fabric,
        pipeline_of(model),
        config,
        splits,
        began=began,
        began_at=began_at,
        optimizer=optimizer,
    )
    on_main(fabric, lambda: keep(at_home(config.training.out), splits))
    return result


def _check_flags(flags: dict[str, Any], optimizer: OwnOptimizer | None) -> None:
    """Raise a ConfigError for a flag that training one's own model has no use for."""
    known = [name for part in (TrainConfig, ReportConfig, DeviceConfig) for name in flat(part())]
    for name in flags:
        if name not in known:
            raise ConfigError(f"train has no argument {name!r}{suggestion(name, known)}")
        if optimizer is not None and name in OF_ADAMW:
            raise ConfigError(f"{name} means nothing with an optimizer of your own: leave it out")


@dataclass(frozen=True)
class Measured:
    """Score of a model on a data set.

    Attributes:
        nats: mean per image.
        bits_per_dim: the same in bits per sub-pixel.
        stderr: standard error of the mean, in nats.
        kind: "exact", "bound", or what was given, such as "given label".
        count: number of images.
        estimate: importance-weighted estimate in nats, next to a bound; None without one.
    """

    nats: float
    bits_per_dim: float
    stderr: float
    kind: str
    count: int
    estimate: float | None = None


def evaluate(
    model: Model | Decoder, dataset: Any, *, importance_samples: int = 0, batch_size: int = 64
) -> Measured:
    """Score every image of a data set, in evaluation mode and float32.

    Args:
        model: a decoder alone is an unconditional model.
        dataset: as for `train`.
        importance_samples: K of the importance-weighted estimate next to a bound (0: none).
        batch_size: images scored at once. The score does not depend on it.

    Raises:
        UserError: the images are not those that the model is for.

    >>> import torch
    >>> from decoders import PixelCNN
    >>> images = torch.randint(2, (10, 8, 8), dtype=torch.uint8)
    >>> found = evaluate(PixelCNN((1, 8, 8), num_levels=2, num_layers=1), images)
    >>> found.kind, found.count, 0 < found.bits_per_dim < 2
    ('exact', 10, True)
    """
    if batch_size < 1 or importance_samples < 0:
        raise UserError(
            "expected batch_size of at least 1 and importance_samples of at least 0, got "
            f"{batch_size} and {importance_samples}"
        )
    model = as_model(model)
    images = own_images(model, dataset, "the data set")
    device = next(model.parameters()).device
    fabric = make_fabric(DeviceConfig(devices="1"))
    try:
        evaluation, estimates = results.score(
            fabric, model, images, batch_size=batch_size, importance_samples=importance_samples
        )
    finally:
        model.to(device)
    nll = evaluation.nll
    return Measured(
        nats=nll.mean,
        bits_per_dim=bits_per_dim(nll.mean, evaluation.dims),
        stderr=nll.stderr,
        kind=model.kind,
        count=nll.count,
        estimate=estimates[max(estimates)].mean if estimates else None,
    )
