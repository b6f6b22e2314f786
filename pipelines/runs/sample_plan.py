"""Plans of samples: the code and the known part from which each image is drawn."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from encoders import Annotation, Encoder
from encoders.base import repeat
from pipelines.data.sets import to_display
from pipelines.model import Model
from pipelines.runs.load import Run, load_splits
from pipelines.runs.scoring import move, part
from pipelines.runtime.errors import UserError

Complete = Literal["none", "top", "bottom", "left", "right", "center"]
Grid = Literal["square", "classes"]


class Wanted(NamedTuple):
    """The images to draw, as the flags of `pixel-decoders sample` ask for them."""

    num: int
    complete: Complete
    label: int | None
    caption: str | None
    grid: Grid
    data_dir: str


class Plan(NamedTuple):
    """The codes and known parts to draw from, and the layout of the picture."""

    h: Tensor | None  # (N, *code_shape)
    num: int
    columns: int
    known: tuple[Tensor, Tensor] | None = None  # (N, C, H, W) each
    front: tuple[Tensor, ...] = ()  # at the front of each row, (rows, C, H, W) of 0..255


def make_plan(run: Run, wanted: Wanted, generator: torch.Generator) -> Plan:
    """Plan the source of each image: a prior, an annotation, a code or a known part.

    Raises:
        UserError: the flags don't fit one another or the model.
    """
    _check_model(run, wanted)
    model, encoder = run.model, run.model.encoder
    captions = encoder is not None and encoder.reads_captions
    free = model.num_classes or (captions and wanted.caption is not None)
    if wanted.complete != "none" or (model.given and not free):
        return _plan_from_test(run, wanted, generator)
    if wanted.data_dir:
        raise UserError("--data-dir is for test images, which are not needed here: leave it out")
    num, columns = wanted.num, max(1, round(math.sqrt(wanted.num)))
    y = None
    if model.num_classes and wanted.label is None:
        classes = run.spec.num_classes
        columns = max(1, wanted.num // classes) if wanted.grid == "classes" else columns
        y = torch.arange(classes).repeat_interleave(-(-wanted.num // classes))[: wanted.num]
        if wanted.grid == "classes":
            y = torch.arange(classes).repeat_interleave(columns)
            num = len(y)
    elif encoder is not None and model.given:
        y = _asked(encoder, wanted, None, num)
    return Plan(_codes(model, num, None, y, generator), num, columns)


def _plan_from_test(run: Run, wanted: Wanted, generator: torch.Generator) -> Plan:
    """Plan a row for each of some test images, given its annotation, code or known part."""
    if run.model.decoder.image_shape != run.spec.image_shape and wanted.complete != "none":
        raise UserError("--complete keeps parts of test images, at their size: leave out --size")
    test = load_splits(run, data_dir=wanted.data_dir).test
    columns = max(1, round(math.sqrt(wanted.num)))
    rows = min(-(-wanted.num // columns), len(test))
    x, y = test.batch(part(test, rows))
    shown = to_display(x, test.num_levels)
    num = rows * columns
    x, y = repeat(x, columns), repeat(y, columns)
    if run.model.encoder is not None and run.model.given:
        y = _asked(run.model.encoder, wanted, y, num)
    h = _codes(run.model, num, x, y, generator)
    if wanted.complete == "none":
        same = tuple(shown.shape[1:]) == run.model.decoder.image_shape
        return Plan(h, num, columns, front=(shown,) if same else ())
    mask = kept(wanted.complete, test.image_shape)
    hidden = torch.where(mask, shown, torch.full_like(shown, 128))
    return Plan(h, num, columns, (x, mask.expand(x.shape)), (shown, hidden))


@torch.no_grad()
def _codes(
    model: Model, num: int, x: Tensor | None, y: Any, generator: torch.Generator
) -> Tensor | None:
    """Return the h of each image to draw, (N, *code_shape); None without an encoder."""
    device = next(model.parameters()).device
    if model.encoder is not None and model.encodes_images and not model.has_latents:
        assert x is not None
        return model.encoder(x.to(device), move(y, device)).h
    return model.prior_code(num, move(y, device), generator=generator)


def kept(part: Complete, image_shape: tuple[int, int, int]) -> Tensor:
    """Return a mask (C, H, W), True where a test image is kept.

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


def _check_model(run: Run, wanted: Wanted) -> None:
    """Raise a UserError for flags that do not apply to the model or exclude one another."""
    kind, classes = run.model.kind, run.spec.num_classes
    parts = () if run.model.encoder is None else run.model.encoder.parts
    if not any(part.num_classes for part in parts):
        if wanted.label is not None:
            raise UserError(f"--label is for a model given labels, this one is {kind!r}")
        if wanted.grid == "classes":
            raise UserError(f"--grid classes is for a model given labels, this one is {kind!r}")
    elif wanted.label is not None and not 0 <= wanted.label < classes:
        raise UserError(f"expected --label 0..{classes - 1}, got {wanted.label}")
    if wanted.grid == "classes" and (wanted.label is not None or wanted.complete != "none"):
        raise UserError("--grid classes draws every class: leave out --label and --complete")
    if wanted.caption is not None and not any(part.reads_captions for part in parts):
        raise UserError(f"--caption is for a model given captions, this one is {kind!r}")


def _asked(encoder: Encoder, wanted: Wanted, y: Annotation, num: int) -> Annotation:
    """Return the annotations y of `num` images, with the label or caption of the flags."""
    try:
        return encoder.annotation(num, y, label=wanted.label, caption=wanted.caption)
    except ValueError as error:
        raise UserError(f"--caption: {error}") from error
