"""Grids of images, written as PNG or as an animation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipelines.data.sets import to_display
from pipelines.runtime.files import at_home, whole_file
from pipelines.runtime.progress import Progress

LONG_SIDE = 1200  # pixels that a grid is enlarged towards


def grid(x: Tensor, num_levels: int, columns: int, *, gap: int = 2) -> Tensor:
    """Return one picture (3, height, width), uint8, of images (N, C, H, W) of levels, row by row.

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
    """Return the image of a picture (3, height, width) of bytes, enlarged if it is small."""
    factor = max(1, long_side // max(canvas.shape[1:]))
    large = repeat(canvas, "c h w -> (h down) (w right) c", down=factor, right=factor)
    return Image.fromarray(large.contiguous().numpy())


def save(canvas: Tensor, file: str | Path, *, replace: bool = False) -> None:
    """Write a picture as PNG.

    Raises:
        WriteError: it can't be written, or, without `replace`, there is such a file.
    """
    with whole_file(at_home(file), replace=replace) as stream:
        to_image(canvas).save(stream, format="PNG")


def save_gif(
    canvases: Sequence[Tensor], stream: BinaryIO, *, palette_of: Tensor | None = None
) -> None:
    """Write pictures (3, height, width) as an animation of 4 seconds, then 2 for the last one.

    All frames share the palette of the picture `palette_of` (by default the last one): palettes of
    their own would flicker.
    """
    images = [to_image(canvas, LONG_SIDE // 2) for canvas in canvases]
    palette = (images[-1] if palette_of is None else to_image(palette_of, 1)).quantize(256)
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


def shade_field(field: Tensor, row: int, col: int) -> Tensor:
    """Return a picture (3, H, W) of bytes of a field (H, W) in 0..1, with one pixel in red."""
    picture = (field * 255).round().to(torch.uint8).expand(3, *field.shape).clone()
    picture[:, row, col] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    return picture


def count_rows(bar: Progress) -> Any:
    """Return a counter of drawn rows, on a progress display that spans several batches."""

    def wrap(rows: Iterable[int]) -> Iterator[int]:
        for row in rows:
            yield row
            bar.update()

    return wrap
