"""Compress images without loss with a run's model, and get them back.

`RUN encode IMAGES.npy FILE` writes a file, `RUN decode FILE IMAGES.npy` reads it, and
`RUN export IMAGES.npy` writes the run's test images, to try it on.

IMAGES.npy holds levels (N, C, H, W). A file can be decoded only with the architecture and weights
that encoded it; the run itself may have moved. In float64, another number of threads or another
machine can nearly always decode it. float32 is about twice as fast, but decoding needs the same
kernels as encoding. A checksum tells whether the decoded images are those that were encoded.

Examples:
  pixel-decoders compress runs/first export images.npy
  pixel-decoders compress runs/first encode images.npy images.pxl
  pixel-decoders compress runs/first decode images.pxl again.npy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pipelines.runs.find import find_run
from pipelines.runs.flags import DataFolder, RunFlags, Trust, hint, parse
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import Bounded, Count, Positive, flat
from pipelines.runtime.output import refuse_existing

ArrayFile = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES.npy")]
CompressedFile = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
LabelFile = Annotated[Path | None, hint("LABELS.npy", "none")]


@dataclass(frozen=True)
class Encode(Bounded):
    """Encode images, and print the sizes of the file and of other formats."""

    images: ArrayFile
    """Levels (N, C, H, W), uint8, or int64 for more than 256; (N, H, W) or (N, H, W, C) where that
    is the only possible reading."""
    file: CompressedFile
    """File to write."""
    labels: LabelFile = None
    """Labels (N,), for a model that is given labels. They are stored and counted in the size."""
    bits_back: bool = False
    """Code a model with latent variables by bits-back coding."""
    score_batch: Positive = 64
    """Images coded at once. In bits-back coding, fewer images need fewer initial bits."""
    precision: Literal["float64", "float32"] = "float64"
    """Precision of the network: float32 is faster, but harder to decode on another machine."""
    compare: bool = True
    """Show the sizes of PNG, WebP and JPEG XL."""


@dataclass(frozen=True)
class Decode(Bounded):
    """Decode a file to its images."""

    file: CompressedFile
    """File that encode wrote."""
    images: ArrayFile
    """File to write, in the layout that was encoded, with the number of levels."""
    labels: LabelFile = None
    """File for the labels."""


@dataclass(frozen=True)
class Export(Bounded):
    """Write the run's test images as a file to encode."""

    images: ArrayFile
    """File to write, with the number of levels."""
    labels: LabelFile = None
    """File for the labels."""
    num: Count = 0
    """Write the first N images of the test set (0: all)."""
    data_dir: DataFolder = ""
    """Folder of the run's data set."""


@dataclass(frozen=True)
class Config(RunFlags):
    """Flags of `pixel-decoders compress`."""

    action: (
        Annotated[Encode, tyro.conf.subcommand("encode")]
        | Annotated[Decode, tyro.conf.subcommand("decode")]
        | Annotated[Export, tyro.conf.subcommand("export")]
    )
    trust: Trust = ()
    """Module of your own to import for the run's decoder, pipeline or data. Without it, only the
    toolkit's own code runs. Can be given several times."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for an error that the user can fix."""
    with exit_codes():
        config = parse(Config, "pipelines.compress", __doc__, argv)
        find_run(config.run)
        action = config.action
        if isinstance(action, Encode):
            refuse_existing(action.file)
        else:
            refuse_existing(action.images, action.labels)
        from pipelines.runs import compress  # imports torch: flags first

        work = {Encode: compress.encode, Decode: compress.decode, Export: compress.export}
        work[type(action)](config.run, trust=config.trust, **flat(action)).show()


if __name__ == "__main__":
    main()
