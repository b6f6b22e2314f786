"""Score any images under a run's model, and compare them with its test set.

Images may be a picture, a folder of pictures, an .npy or .npz file of levels, or a data set's name.
They are prepared like the run's own: with the same number of levels, and binarized in the same way.
Writes a histogram, the comparison, and the score of every image as a table (CSV), as new files in
the run directory.

Images that differ from the training set need not cost more bits: see E. Nalisnick et al., "Do deep
generative models know what they don't know?", 2018, https://arxiv.org/abs/1810.09136.

Examples:
  pixel-decoders outliers runs/first --images photos/ --resize
  pixel-decoders outliers mnist-gated --images fashion_mnist --data-dir ~/data
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import tyro

from pipelines.runs.find import find_run
from pipelines.runs.flags import BatchFlags, RunFlags, hint, parse
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import Count, flat
from pipelines.runtime.errors import UserError


@dataclass(frozen=True)
class Config(RunFlags):
    """Flags of `pixel-decoders outliers`."""

    RENAMED: ClassVar[Mapping[str, str]] = {**RunFlags.RENAMED, "--num": "--limit"}

    images: Annotated[str, tyro.conf.arg(metavar="PICTURE|FOLDER|FILE.npy|FILE.npz|DATA")]
    """Images to score: a picture, a folder of pictures, an array of levels (in an .npz file `test`,
    `valid` or the only array of images), or the name of a data set (its test split)."""
    images_dir: Annotated[str, hint("DIR", "the run's")] = ""
    """Folder of that data set."""
    limit: Count = 1000
    """Score N images and N test images, stratified by class or folder (0: all)."""
    resize: bool = False
    """Crop and resize image files to the run's size."""
    background: Annotated[str, hint("COLOR", "the run's")] = ""
    """Background color of transparent pixels: white, black or r,g,b."""
    native_levels: Count = 0
    """Number of levels of an array (0: the number in the file, else that of the run's images)."""
    where: BatchFlags = field(default_factory=BatchFlags)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.native_levels == 1:
            raise UserError("expected --native-levels of at least 2, got 1")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for an error that the user can fix."""
    with exit_codes():
        config = parse(Config, "pipelines.outliers", __doc__, argv)
        find_run(config.run)
        from pipelines.runs.outliers import score_images  # imports torch: flags first

        score_images(**flat(config)).show()


if __name__ == "__main__":
    main()
