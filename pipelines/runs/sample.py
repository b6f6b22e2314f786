"""Samples and completions of a run's model, written as pictures and levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from decoders.recorded import rebuild
from pipelines.data.levels import append_levels
from pipelines.data.sets import to_display
from pipelines.model import Model
from pipelines.runs import pictures
from pipelines.runs.find import find_run
from pipelines.runs.flags import Findings
from pipelines.runs.load import Run, open_run
from pipelines.runs.sample_plan import Complete, Grid, Plan, Wanted, make_plan
from pipelines.runtime.config import Accelerator, DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import CheckpointError, UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.output import free_name, refuse_existing
from pipelines.runtime.progress import Progress
from pipelines.training.weights import load_into


def sample(
    run: str | Path,
    *,
    trust: Sequence[str] = (),
    num: int = 64,
    temperature: float = 1.0,
    complete: Complete = "none",
    label: int | None = None,
    caption: str | None = None,
    out: Path | None = None,
    seed: int = 0,
    grid: Grid = "square",
    size: str = "",
    gif: bool = False,
    npy: Path | None = None,
    data_dir: str = "",
    accelerator: Accelerator = "auto",
    score_batch: int = 256,
) -> Findings:
    """Draw from a run's model, and write the files.

    The arguments are the flags of `pixel-decoders sample`.

    Raises:
        UserError: the arguments don't fit one another, the model or its images.
    """
    run_dir = find_run(run)
    opened = open_run(run_dir, trust)
    opened = opened._replace(model=resized(opened, size))
    if gif and not opened.model.decoder.autoregressive:
        raise UserError(
            "--gif shows pixel after pixel, and a "
            f"{type(opened.model.decoder).__name__} draws them all at once"
        )
    wanted = Wanted(num, complete, label, caption, grid, data_dir)
    png = out or free_name(run_dir, _stem(wanted, size, temperature, seed), ".png")
    animation = _animation(png, named=out is not None) if gif else None
    refuse_existing(png, animation, npy)
    opened.model.to(make_fabric(DeviceConfig(accelerator, "1")).device)
    generator = torch.Generator().manual_seed(seed)
    plan = make_plan(opened, wanted, generator)
    x = draw(opened.model, plan, temperature, score_batch, generator)
    levels = opened.spec.num_levels
    pictures.save(_canvas(to_display(x, levels), plan), png)
    if animation is not None:
        known = None if plan.known is None else plan.known[1]
        frames = [_canvas(frame, plan) for frame in generation(to_display(x, levels), known)]
        with whole_file(animation) as stream:
            pictures.save_gif(frames, stream)
    if npy is not None:
        with whole_file(npy) as stream:
            np.save(stream, x.numpy())
            append_levels(stream, levels)
    return Findings("", [file for file in (png, animation, npy) if file is not None])


def _animation(png: Path, *, named: bool) -> Path:
    """Return the name of the animation next to a picture, a new one unless the user named it."""
    return png.with_suffix(".gif") if named else free_name(png.parent, png.stem, ".gif")


def draw(
    model: Model, plan: Plan, temperature: float, batch_size: int, generator: torch.Generator
) -> Tensor:
    """Return the images of a plan on the CPU, drawn batch by batch with one progress display."""
    starts = range(0, plan.num, batch_size)
    drawn = []
    with Progress(len(starts) * model.decoder.image_shape[1], "sample", unit="row") as bar:
        for start in starts:
            part = slice(start, min(start + batch_size, plan.num))
            x = model.decoder.sample(
                None if plan.h is None else plan.h[part],
                num=part.stop - start,
                temperature=temperature,
                generator=generator,
                known=None if plan.known is None else (plan.known[0][part], plan.known[1][part]),
                progress=pictures.count_rows(bar),
            )
            drawn.append(x.cpu())
    return torch.cat(drawn)


def generation(x: Tensor, known: Tensor | None, frames: int = 60) -> Iterator[Tensor]:
    """Yield about `frames` stages of the generation, gray where nothing is drawn yet.

    A drawn sub-pixel never changes, so the finished images contain every stage.

    Args:
        x: finished images (N, C, H, W), as displayed.
        known: (N, C, H, W), True where a sub-pixel was known from the start.
        frames: number of stages.

    >>> [int((frame != 128).sum()) for frame in generation(torch.zeros(1, 1, 2, 2), None, 4)]
    [0, 1, 2, 3, 4]
    """
    height, width = x.shape[2:]
    place = rearrange(torch.arange(height * width), "(h w) -> 1 1 h w", h=height)
    steps = min(frames, height * width)
    shown = -1
    for step in range(steps + 1):
        done = place < height * width * step // steps
        done = (done if known is None else done | known).expand(x.shape)
        if int(done.sum()) > shown:  # kept parts do not change
            shown = int(done.sum())
            yield torch.where(done, x, torch.full_like(x, 128))


def resized(run: Run, size: str) -> Model:
    """Return the run's model with the same weights for another size, such as "48x64".

    Raises:
        UserError: it is not a size, or the weights or the conditioning do not allow another one.
    """
    if not size:
        return run.model
    numbers = size.lower().split("x")
    if len(numbers) != 2 or not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise UserError(f"expected --size HEIGHTxWIDTH, such as 48x64, got {size!r}")
    code_shape = run.model.decoder.cond_shape
    if len(code_shape) == 3:
        raise UserError(
            "--size is for models without conditioning or with a vector: this one's is a map of "
            f"{code_shape[1]}×{code_shape[2]}, drawn for images of {run.spec.image_shape[1]}×"
            f"{run.spec.image_shape[2]}"
        )
    shape = (run.spec.image_shape[0], int(numbers[0]), int(numbers[1]))
    described: Any = run.model.decoder.recorded
    try:
        arguments = {**described["arguments"], "image_shape": list(shape)}
        decoder: Any = rebuild({**described, "arguments": arguments}, None)
        load_into(decoder, run.model.decoder.state_dict(), Path("weights.safetensors"))
    except CheckpointError as error:
        raise UserError(
            f"--size {size}: a {type(decoder).__name__} has weights for each position of an image, "
            f"so it draws {run.spec.image_shape[1]}x{run.spec.image_shape[2]} only"
        ) from error
    return Model(decoder, run.model.encoder).eval()


def _canvas(shown: Tensor, plan: Plan) -> Tensor:
    """Return one picture of displayed images (N, C, H, W), in the layout of the plan."""
    if not plan.front:
        return pictures.grid(shown, 256, plan.columns)
    front = rearrange(list(plan.front), "col row c h w -> row col c h w")
    rows = rearrange(shown, "(row col) c h w -> row col c h w", col=plan.columns)
    rows = torch.cat([front, rows], dim=1)
    return pictures.grid(rearrange(rows, "row col c h w -> (row col) c h w"), 256, rows.shape[1])


def _stem(wanted: Wanted, size: str, temperature: float, seed: int) -> str:
    """Return a file name that describes the images, such as samples-label3-t0.9-seed1."""
    words = (
        "samples" if wanted.complete == "none" else f"complete-{wanted.complete}",
        "" if wanted.grid == "square" else wanted.grid,
        "" if wanted.label is None else f"label{wanted.label}",
        "" if wanted.caption is None else "caption",
        size,
        "" if temperature == 1 else f"t{temperature:g}",
        f"seed{seed}",
    )
    return "-".join(word for word in words if word)
