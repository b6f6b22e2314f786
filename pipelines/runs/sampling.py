"""What `pipelines.sample` is asked for, and what that means for the model at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro
from torch import Tensor

from encoders import Annotation, Encoder
from encoders.base import repeat
from pipelines.data.sets import to_display
from pipelines.runs.scoring import move, part
from pipelines.model import Model
from pipelines.runs.load import Run, load_splits
from pipelines.runtime.errors import UserError

Part = Literal["top", "bottom", "left", "right", "center"]


@dataclass(frozen=True)
class Config:
    """Flags of `python -m pipelines.sample`."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """The directory of a finished run."""
    num: int = 64
    """How many images; where they come in rows, those are filled."""
    temperature: float = 1.0
    """Sharpens the distribution of each sub-pixel below 1, flattens it above; 0 takes its mode."""
    complete: Literal["none", "top", "bottom", "left", "right", "center"] = "none"
    """Keep this half (or the middle quarter) of test images, and draw the rest."""
    label: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Draw this label only."""
    caption: Annotated[str | None, tyro.conf.arg(metavar="STR")] = None
    """Draw what this caption says."""
    grid: Literal["square", "classes"] = "square"
    """How samples are laid out: nearly square, or one row for each class."""
    gif: bool = False
    """Also write an animation of the generation, pixel by pixel."""
    size: str = ""
    """Height and width of the samples, such as 48x64 (default: those of the training images)."""
    seed: int = 0
    """Decides the samples, together with the other flags."""
    batch_size: int = 256
    """Images drawn side by side."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """The picture to write (default: a new name in the run directory)."""
    npy: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npy")] = None
    """Also write the samples' levels (N, C, H, W), uint8, or int64 of more than 256; the file
    carries their number."""
    data_dir: str = ""
    """Where the data set is now, if test images are needed (default: where it was in training)."""
    device: str = "auto"
    """Where to draw: cpu, cuda, cuda:1; auto takes a GPU if there is one."""


class Plan(NamedTuple):
    """What to draw, and how to lay it out."""

    h: Tensor | None  # (N, *code_shape)
    num: int
    columns: int
    known: tuple[Tensor, Tensor] | None = None  # (N, C, H, W) each
    front: tuple[Tensor, ...] = ()  # pictures that stand before each row, (rows, C, H, W) of 0..255


def check(config: Config) -> None:
    """Raise a UserError for numbers that make no sense, whatever the model."""
    if config.num < 1:
        raise UserError(f"expected --num of at least 1, got {config.num}")
    if not 0 <= config.seed < 2**63:
        raise UserError(f"expected a --seed of at least 0 (and below 2^63), got {config.seed}")
    if config.batch_size < 1:
        raise UserError(f"expected --batch-size of at least 1, got {config.batch_size}")
    if not 0 <= config.temperature < math.inf:
        raise UserError(f"expected a --temperature of at least 0, got {config.temperature}")
    for flag, file, suffix in (("out", config.out, ".png"), ("npy", config.npy, ".npy")):
        if file is not None and file.suffix != suffix:
            raise UserError(f"expected --{flag} to end in {suffix}, got {file}")


def make_plan(run: Run, config: Config, generator: torch.Generator) -> Plan:
    """Decide what each image is drawn from: a prior, an annotation, a code, a part of an image.

    Raises:
        UserError: the flags don't fit the model.
    """
    _check_model(run, config)
    model, encoder = run.model, run.model.encoder
    captions = encoder is not None and encoder.reads_captions
    free = model.num_classes or (captions and config.caption is not None)
    if config.complete != "none" or (model.given and not free):
        return _plan_from_test(run, config, generator)
    num, columns = config.num, max(1, round(math.sqrt(config.num)))
    y = None
    if model.num_classes and config.label is None:
        classes = run.spec.num_classes
        columns = max(1, config.num // classes) if config.grid == "classes" else columns
        y = torch.arange(classes).repeat_interleave(-(-config.num // classes))[: config.num]
        if config.grid == "classes":
            y = torch.arange(classes).repeat_interleave(columns)
            num = len(y)
    elif encoder is not None and model.given:
        y = _asked(encoder, config, None, num)
    return Plan(_codes(model, num, None, y, generator), num, columns)


def _plan_from_test(run: Run, config: Config, generator: torch.Generator) -> Plan:
    """One row for each of some test images: drawn given its annotation, code or known part."""
    if run.model.decoder.image_shape != run.spec.image_shape and config.complete != "none":
        raise UserError("--complete keeps parts of test images, of their size: leave out --size")
    test = load_splits(run, data_dir=config.data_dir).test
    columns = max(1, round(math.sqrt(config.num)))
    rows = min(-(-config.num // columns), len(test))
    x, y = test.batch(part(test, rows))
    shown = to_display(x, test.num_levels)
    num = rows * columns
    x, y = repeat(x, columns), repeat(y, columns)
    if run.model.encoder is not None and run.model.given:
        y = _asked(run.model.encoder, config, y, num)
    h = _codes(run.model, num, x, y, generator)
    if config.complete == "none":
        same = tuple(shown.shape[1:]) == run.model.decoder.image_shape
        return Plan(h, num, columns, front=(shown,) if same else ())
    mask = kept(config.complete, test.image_shape)
    hidden = torch.where(mask, shown, torch.full_like(shown, 128))
    return Plan(h, num, columns, (x, mask.expand(x.shape)), (shown, hidden))


@torch.no_grad()
def _codes(
    model: Model, num: int, x: Tensor | None, y: Any, generator: torch.Generator
) -> Tensor | None:
    """The h of each image to draw."""
    device = next(model.parameters()).device
    if model.encoder is not None and model.encodes_images and not model.has_latents:
        assert x is not None
        return model.encoder(x.to(device), move(y, device)).h
    return model.prior_code(num, move(y, device), generator=generator)


def kept(part: Part, image_shape: tuple[int, int, int]) -> Tensor:
    """A mask (C, H, W), True where a test image is kept.

    >>> kept("top", (1, 3, 2)).int().tolist(), kept("right", (1, 1, 4)).int().tolist()
    ([[[1, 1], [0, 0], [0, 0]]], [[[0, 0, 1, 1]]])
    """
    _, height, width = image_shape
    rows, cols = {
        "top": (slice(0, height // 2), slice(None)),
        "bottom": (slice(height - height // 2, None), slice(None)),
        "left": (slice(None), slice(0, width // 2)),
        "right": (slice(None), slice(width - width // 2, None)),
        "center": (
            slice(height // 4, height - height // 4),
            slice(width // 4, width - width // 4),
        ),
    }[part]
    mask = torch.zeros(image_shape, dtype=torch.bool)
    mask[:, rows, cols] = True
    return mask


def _check_model(run: Run, config: Config) -> None:
    """Raise a UserError for flags that this model has no use for."""
    kind, classes = run.model.kind, run.spec.num_classes
    parts = () if run.model.encoder is None else run.model.encoder.parts
    if not any(part.num_classes for part in parts):
        if config.label is not None:
            raise UserError(f"--label is for a model given labels, this one is {kind!r}")
        if config.grid == "classes":
            raise UserError(f"--grid classes is for a model given labels, this one is {kind!r}")
    elif config.label is not None and not 0 <= config.label < classes:
        raise UserError(f"expected --label 0..{classes - 1}, got {config.label}")
    if config.grid == "classes" and (config.label is not None or config.complete != "none"):
        raise UserError("--grid classes draws every class: leave out --label and --complete")
    if config.caption is not None and not any(part.reads_captions for part in parts):
        raise UserError(f"--caption is for a model given captions, this one is {kind!r}")


def _asked(encoder: Encoder, config: Config, y: Annotation, num: int) -> Annotation:
    """Return the annotations y of `num` images, with the label or caption of the flags put in."""
    try:
        return encoder.annotation(num, y, label=config.label, caption=config.caption)
    except ValueError as error:
        raise UserError(f"--caption: {error}") from error
