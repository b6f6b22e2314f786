"""Grids of images, and the pictures that a run leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from decoders.checks import sensitivity
from pipelines.data.sets import Images, to_display
from pipelines.model import Model
from pipelines.runs.scoring import move, part
from pipelines.runtime.files import whole_file
from pipelines.runtime.progress import Progress, progress

LONG_SIDE = 1200  # pixels that a grid is enlarged towards


def grid(x: Tensor, num_levels: int, columns: int, *, gap: int = 2) -> Tensor:
    """Images (N, C, H, W) of levels, row by row in one picture (3, height, width), uint8 0..255.

    >>> grid(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), 17, columns=2).shape
    torch.Size([3, 22, 22])
    """
    cells = F.pad(in_color(to_display(x.cpu(), num_levels)), (gap, 0, gap, 0), value=128)
    blank = cells.new_full((-len(cells) % columns, *cells.shape[1:]), 128)
    cells = torch.cat([cells, blank])
    canvas = rearrange(cells, "(row col) c h w -> c (row h) (col w)", col=columns)
    return F.pad(canvas, (0, gap, 0, gap), value=128)


def in_color(x: Tensor) -> Tensor:
    """Return images (N, C, H, W) as (N, 3, H, W): gray is repeated, a second channel is green.

    >>> in_color(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 3, 8, 8])
    """
    if x.shape[1] == 1:
        return repeat(x, "n 1 h w -> n c h w", c=3)
    return F.pad(x[:, :3], (0, 0, 0, 0, 0, max(0, 3 - x.shape[1])))


def to_image(canvas: Tensor, long_side: int = LONG_SIDE) -> Image.Image:
    """A picture (3, height, width) of bytes, enlarged by a whole factor if it is small."""
    factor = max(1, long_side // max(canvas.shape[1:]))
    large = repeat(canvas, "c h w -> (h down) (w right) c", down=factor, right=factor)
    return Image.fromarray(large.contiguous().numpy())


def save(canvas: Tensor, file: Path, *, replace: bool = False) -> None:
    """Write a picture as PNG.

    Raises:
        WriteError: it can't be written, or, without `replace`, there is such a file.
    """
    with whole_file(file, replace=replace) as stream:
        to_image(canvas).save(stream, format="PNG")


def save_gif(
    canvases: Sequence[Tensor], stream: BinaryIO, *, colours: Tensor | None = None
) -> None:
    """Write pictures (3, height, width) as an animation of some 4 seconds; the last one stays.

    All frames share the palette of the picture `colours` (by default the last one): palettes of
    their own would flicker.
    """
    images = [to_image(canvas, LONG_SIDE // 2) for canvas in canvases]
    palette = (images[-1] if colours is None else to_image(colours, 1)).quantize(256)
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

    Labels come in turn, one row each; other annotations, and codes, are those of test images drawn
    from all, one row each, with that image in front.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, round(num**0.5))
    if not model.given:
        drawn = model.sample(rows * rows, generator=generator, progress=show_rows(images))
        return grid(drawn, images.num_levels, rows)
    if model.num_classes:
        columns = max(1, num // images.num_classes)
        y = torch.arange(images.num_classes).repeat_interleave(columns).to(device)
        drawn = model.sample(len(y), y, generator=generator, progress=show_rows(images))
        return grid(drawn, images.num_levels, columns)
    rows = min(rows, len(images))
    x, y = images.batch(part(images, rows).repeat(rows))
    drawn = model.reconstruct(
        x.to(device), move(y, device), generator=generator, progress=show_rows(images)
    ).cpu()
    drawn[::rows] = x[::rows]
    return grid(drawn, images.num_levels, rows)


def reconstruction_grid(model: Model, images: Images, num: int, seed: int) -> Tensor:
    """Test images, drawn from all, and below each row of ten draws from their codes."""
    device = next(model.parameters()).device
    num = min(num, len(images))
    x, y = images.batch(part(images, num))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = model.reconstruct(
            x.to(device), move(y, device), generator=generator, progress=show_rows(images)
        )
    columns = min(num, 10)
    rows = num // columns * columns
    pairs = [x[:rows], drawn.cpu()[:rows]]
    lines = rearrange(pairs, "pair (row col) c h w -> (row pair col) c h w", col=columns)
    return grid(lines, images.num_levels, columns)


def shade_field(field: Tensor, row: int, col: int) -> Tensor:
    """A field (H, W) from 0, black, to 1, white, and one pixel in red: (3, H, W) bytes."""
    picture = (field * 255).round().to(torch.uint8).expand(3, *field.shape).clone()
    picture[:, row, col] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    return picture


def field_picture(model: Model, images: Images, num: int = 16) -> Tensor:
    """What the middle pixel of test images depends on, as a picture (3, H, W) of bytes.

    The brighter, the more; black not at all; the pixel itself is red. Square roots are drawn:
    nearby pixels count for so much that nothing else would show.
    """
    device = next(model.parameters()).device
    x, y = images.batch(part(images, num))
    x, y = x.to(device), move(y, device)
    h = None
    if model.encoder is not None:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            h = model.encoder(x, y).h
    field = sensitivity(model.decoder, x, h).cpu()
    _, height, width = images.image_shape
    return shade_field((field / field.max().clamp(min=1e-30)).sqrt(), height // 2, width // 2)


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
