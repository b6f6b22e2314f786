"""Show which sub-pixels a decoder's prediction depends on: is the mask right?

Of a finished run, or of a decoder that flags describe. What is shown is measured, by changing each
sub-pixel of an image and comparing distributions, not read off the masks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from decoders.checks import SubPixel, receptive_field, show_field
from pipelines.runs.decoders import DecoderConfig, refuse_other_parts
from pipelines.runs.load import open_run
from pipelines.runs.networks import checked, make_decoder
from pipelines.runs.pictures import shade_field, to_image
from pipelines.runs.record import ImageSpec
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import value_of
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.output import expanded, refuse_existing
from pipelines.runtime.provenance import prog


@dataclass(frozen=True)
class Config:
    """Flags of `python -m pipelines.receptive_field`."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    run_dir: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[RUN_DIR]")] = None
    """A run directory; without one, an untrained decoder of the flags below."""
    image_shape: tuple[int, int, int] = (1, 28, 28)
    """Channels, height and width, where there is no run directory."""
    levels: int = 2
    """Levels of a sub-pixel, likewise."""
    row: int = -1
    """Row of the sub-pixel that is predicted (-1: the middle one)."""
    col: int = -1
    """Its column, likewise."""
    channel: int = -1
    """Its channel (-1: the last one)."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Picture to write: seen in white, not seen in black, the target in red; a pixel of which only
    some channels are seen is as bright as their share."""


def measure(config: Config) -> None:
    """Measure the receptive field, print it, and write its picture."""
    refuse_existing(config.out)
    if config.run_dir is not None:
        decoder = open_run(config.run_dir).model.decoder
    else:
        spec = ImageSpec(config.image_shape, config.levels)
        torch.manual_seed(0)
        decoder = checked(make_decoder, config.decoder, spec)
    if not decoder.autoregressive:
        raise UserError(
            f"expected an autoregressive decoder, got {type(decoder).__name__}, whose pixels do "
            "not see one another"
        )
    target = _target(config, decoder.image_shape)
    field = receptive_field(decoder, target)
    before = _count_before(target, decoder.image_shape)
    print(show_field(field, target))
    print(
        f"{type(decoder).__name__}: sub-pixel (row {target.row}, column {target.col}, channel "
        f"{target.channel}) depends on {int(field.sum())} of the {before} sub-pixels before it"
    )
    if config.out is not None:
        share = field.double().mean(dim=-1)
        picture = to_image(shade_field(share, target.row, target.col))
        with whole_file(config.out) as stream:
            picture.save(stream, format="PNG")
        print(config.out)


def _target(config: Config, image_shape: tuple[int, int, int]) -> SubPixel:
    channels, height, width = image_shape
    target = SubPixel(
        height // 2 if config.row == -1 else config.row,
        width // 2 if config.col == -1 else config.col,
        channels - 1 if config.channel == -1 else config.channel,
    )
    inside = 0 <= target.row < height and 0 <= target.col < width and 0 <= target.channel < channels
    if not inside:
        raise UserError(
            f"expected a sub-pixel within {height} rows, {width} columns and {channels} channels, "
            f"got row {target.row}, column {target.col}, channel {target.channel}"
        )
    return target


def _count_before(target: SubPixel, image_shape: tuple[int, int, int]) -> int:
    channels, _, width = image_shape
    return (target.row * width + target.col) * channels + target.channel


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for what a user can fix."""
    with exit_codes():
        measure(expanded(parse(argv)))


def parse(argv: Sequence[str] | None = None) -> Config:
    """Return the configuration of a command line."""
    args = list(sys.argv[1:] if argv is None else argv)
    now = DecoderConfig()
    decoder = now.choosing(
        value_of(args, "decoder") or now.decoder, value_of(args, "likelihood") or now.likelihood
    )
    refuse_other_parts(decoder, args)
    return tyro.cli(
        tyro.conf.OmitArgPrefixes[Config],
        args=args,
        default=Config(decoder),
        prog=prog("pipelines.receptive_field"),
        description=__doc__,
    )


if __name__ == "__main__":
    main()
