"""Show which sub-pixels a decoder's prediction depends on.

The receptive field is measured by changing each sub-pixel of an image and comparing distributions.
It is not read off the masks. Without a run, the flags describe an untrained decoder.

Examples:
  pixel-decoders receptive-field runs/first --out field.png
  pixel-decoders receptive-field --decoder pixelcnn --num-layers 4 --image-shape 1 15 15
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from msgspec import Meta

from pipelines.runs.decoders import DecoderConfig, refuse_other_parts
from pipelines.runs.find import find_run
from pipelines.runs.flags import Flags, Trust, check_suffix, hint, parse
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import Bounded, flag, flat, is_given, value_of
from pipelines.runtime.errors import UserError
from pipelines.runtime.output import refuse_existing

Place = Annotated[int | None, Meta(ge=0), hint("INT", "the middle one")]
Channel = Annotated[int | None, Meta(ge=0), hint("INT", "the last one")]


@dataclass(frozen=True)
class ImageFlags(Bounded):
    """The images of an untrained decoder."""

    image_shape: tuple[int, int, int] = (1, 28, 28)
    """Channels, height and width."""
    levels: Annotated[int, Meta(ge=2)] = 2
    """Levels of a sub-pixel."""


@dataclass(frozen=True)
class Config(Flags):
    """Flags of `pixel-decoders receptive-field`."""

    run: Annotated[tyro.conf.Positional[str | None], hint("[RUN]", "an untrained decoder")] = None
    """A run directory, or the name of a model that comes with the toolkit, such as mnist-gated."""
    row: Place = None
    """Row of the sub-pixel that is predicted."""
    col: Place = None
    """Column of the sub-pixel."""
    channel: Channel = None
    """Channel of the sub-pixel."""
    out: Annotated[Path | None, hint("FILE.png", "none")] = None
    """Picture to write: white for seen pixels, black for unseen ones, red for the target. A pixel
    with only some seen channels is gray."""
    trust: Trust = ()
    """Module of your own to import for the run. Can be given several times."""
    untrained: ImageFlags = field(default_factory=ImageFlags)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


def read(argv: Sequence[str] | None = None) -> Config:
    """Read the flags; those of the network depend on the decoder.

    Raises:
        UserError: a flag belongs to another decoder, or describes one next to a run.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    now = DecoderConfig()
    decoder = now.choosing(
        value_of(words, "decoder") or now.decoder, value_of(words, "likelihood") or now.likelihood
    )
    refuse_other_parts(decoder, words)
    default = Config(decoder=decoder)
    config = parse(Config, "pipelines.receptive_field", __doc__, words, default)
    for name in flat(config.decoder) | flat(config.untrained):
        if config.run is not None and is_given(words, name):
            raise UserError(
                f"{flag(name)} is for an untrained decoder: leave out the flag or the run"
            )
    return config


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for an error that the user can fix."""
    with exit_codes():
        config = read(argv)
        if config.run is not None:
            find_run(config.run)
        check_suffix("--out", config.out, ".png")
        refuse_existing(config.out)
        from pipelines.runs import receptive_field as work  # imports torch: flags first

        if config.run is not None:
            decoder = work.decoder_of(config.run, config.trust)
        else:
            untrained = config.untrained
            decoder = work.untrained(config.decoder, untrained.image_shape, untrained.levels)
        place = (config.row, config.col, config.channel)
        work.show_receptive_field(decoder, *place, out=config.out).show()


if __name__ == "__main__":
    main()
