"""Grids of images, and the pictures that a run leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.interpolation import Method, path
from pipelines.data import Images, to_display
from pipelines.model import Model
from pipelines.progress import Progress, progress
from pipelines.scoring import move

LONG_SIDE = 1200  # pixels that a grid is enlarged towards


def grid(x: Tensor, num_levels: int, columns: int, *, gap: int = 2) -> Tensor:
    """Images (N, C, H, W) of levels, row by row in one picture (3, height, width), uint8 0..255.

    >>> grid(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), 17, columns=2).shape
    torch.Size([3, 22, 22])
    """
    x = to_display(x.cpu(), num_levels)
    x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
    if x.shape[1] == 2:
        x = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    height, width = x.shape[2] + gap, x.shape[3] + gap
    rows = -(-len(x) // columns)
    canvas = torch.full((3, rows * height + gap, columns * width + gap), 128, dtype=torch.uint8)
    for n, image in enumerate(x):
        top, left = gap + n // columns * height, gap + n % columns * width
        canvas[:, top : top + x.shape[2], left : left + x.shape[3]] = image
    return canvas


def to_image(canvas: Tensor, long_side: int = LONG_SIDE) -> Image.Image:
    """A picture (3, height, width) of bytes, enlarged by a whole factor if it is small."""
    factor = max(1, long_side // max(canvas.shape[1:]))
    large = canvas.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
    return Image.fromarray(large.permute(1, 2, 0).contiguous().numpy())


def save(canvas: Tensor, file: Path) -> None:
    """Write a picture as PNG, beside its place first, so that it is never half there."""
    beside = file.with_name(f".{file.name}.tmp")
    to_image(canvas).save(beside, format="PNG")
    beside.replace(file)


def save_gif(canvases: Sequence[Tensor], stream: BinaryIO) -> None:
    """Write pictures (3, height, width) as an animation of some 4 seconds; the last one stays."""
    images = [to_image(canvas, LONG_SIDE // 2) for canvas in canvases]
    # One palette, that of the finished picture and the grey of what is not there yet, for all
    # frames: palettes of their own would flicker.
    palette = images[-1].quantize(256)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    step = max(20, 4000 // len(frames))
    durations = [step] * (len(frames) - 1) + [2000]
    frames[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
    )


def sample_grid(model: Model, images: Images, num: int, seed: int) -> Tensor:
    """Samples, about `num`: of the prior, or given what the model is given.

    Labels come in turn, one row each; other annotations, and codes, are those of the first test
    images, one row each, with that image in front.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, round(num**0.5))
    if not model.kind.startswith("given"):
        drawn = model.sample(rows * rows, generator=generator, progress=show_rows(images))
        return grid(drawn, images.num_levels, rows)
    if model.kind == "given label":
        columns = max(1, num // images.num_classes)
        y = torch.arange(images.num_classes).repeat_interleave(columns).to(device)
        drawn = model.sample(len(y), y, generator=generator, progress=show_rows(images))
        return grid(drawn, images.num_levels, columns)
    rows = min(rows, len(images))
    x, y = images.batch(np.arange(rows).repeat(rows))
    drawn = model.reconstruct(
        x.to(device), move(y, device), generator=generator, progress=show_rows(images)
    ).cpu()
    drawn[::rows] = x[::rows]
    return grid(drawn, images.num_levels, rows)


def reconstruction_grid(model: Model, images: Images, num: int, seed: int) -> Tensor:
    """Test images and, below each row of ten, draws from their codes."""
    device = next(model.parameters()).device
    num = min(num, len(images))
    x, y = images.batch(np.arange(num))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = model.reconstruct(
            x.to(device), move(y, device), generator=generator, progress=show_rows(images)
        )
    columns = min(num, 10)
    rows = num // columns * columns
    pairs = torch.stack([x[:rows], drawn.cpu()[:rows]]).unflatten(1, (-1, columns))
    return grid(pairs.transpose(0, 1).flatten(0, 2), images.num_levels, columns)


def interpolation_grid(
    model: Model, images: Images, pairs: int, steps: int, seed: int, method: Method = "slerp"
) -> Tensor:
    """Paths between the codes of pairs of test images, one row each, with the images at its ends.

    Each row is decoded with the same noise throughout (common random numbers), so that what changes
    along it is what the code changes.
    """
    device = next(model.parameters()).device
    pairs = min(pairs, len(images) // 2)
    ends = [images.batch(np.arange(pairs) + pairs * side) for side in (0, 1)]
    start, end = ((x.to(device), move(y, device)) for x, y in ends)
    h = code_path(model, start, end, steps, method)  # (steps, pairs, …)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand((pairs, *images.image_shape), generator=generator).repeat(steps, 1, 1, 1, 1)
    drawn = model.decoder.sample(
        h.flatten(0, 1), noise=noise.flatten(0, 1), progress=show_rows(images)
    )
    path_images = drawn.cpu().unflatten(0, (steps, pairs))
    rows = torch.cat([ends[0].x[None], path_images, ends[1].x[None]])
    return grid(rows.transpose(0, 1).flatten(0, 1), images.num_levels, steps + 2)


@torch.no_grad()
def code_path(
    model: Model, start: tuple[Tensor, Any], end: tuple[Tensor, Any], steps: int, method: Method
) -> Tensor:
    """Codes (steps, B, …) from those of the images and annotations `start` to those of `end`.

    Latents are interpolated, each level on its own, between their posterior means; any other code
    directly.
    """
    if model.encoder is None:
        raise TypeError("a model without an encoder has no codes to interpolate between")
    if model.kind != "bound":
        a, b = (model.encoder(*side).h for side in (start, end))
        return path(a, b, steps, method)
    first, last = (model.encoder.posterior(*side) for side in (start, end))
    levels = [path(a, b, steps, method) for (a, _), (b, _) in zip(first, last, strict=True)]
    return torch.stack(
        [model.encoder.to_h(tuple(level[n] for level in levels)) for n in range(steps)]
    )


def show_rows(images: Images, label: str = "sample") -> Any:
    """Progress over the rows of images being drawn."""
    return lambda rows: progress(rows, images.image_shape[1], label, unit="row")


def count_rows(bar: Progress) -> Any:
    """Rows being drawn, counted on a progress display that goes on over several batches."""

    def wrap(rows: Iterable[int]) -> Iterator[int]:
        for row in rows:
            yield row
            bar.update()

    return wrap
