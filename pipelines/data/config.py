"""Flags that choose a data set and its options.

Imports neither NumPy nor PyTorch, so that a command reads its flags before it loads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from pipelines.runtime.config import Bounded, Count, flag, suggestion
from pipelines.runtime.errors import UserError

_PACKED = frozenset({"cache_dir"})
_FILES = _PACKED | {"rgb", "background", "skip_damaged"}
_RESIZED = _FILES | {"image_size"}
_ARRAYS = frozenset({"native_levels"})
_SPECIAL = _RESIZED | _ARRAYS

# Every data set, and those special options that it honors; all honor the others.
OPTIONS: dict[str, frozenset[str]] = {
    "digits": frozenset(),
    "shapes": frozenset(),
    "shapes_color": frozenset(),
    "mnist": frozenset(),
    "mnist_color": frozenset(),
    "fashion_mnist": frozenset(),
    "kmnist": frozenset(),
    "emnist": frozenset(),
    "binarized_mnist": frozenset(),
    "omniglot": _PACKED | {"image_size"},
    "cifar10": frozenset(),
    "svhn": frozenset(),
    "celeba": _PACKED | {"image_size"},
    "imagenet32": _FILES,
    "imagenet64": _FILES,
    "folder": _RESIZED,
    "npz": _ARRAYS,
    "npy": _ARRAYS,
    "berkeley": _ARRAYS,
}
DATA_NAMES = tuple(OPTIONS)
_OWN = re.compile(r"\w+(\.\w+)*:\w+")  # package.module:function

Condition = Literal[
    "none",
    "label",
    "mask",
    "keypoints",
    "caption",
    "label+mask",
    "label+keypoints",
    "caption+mask",
    "caption+keypoints",
]

_DATA_HELP = (
    f"Data set: {', '.join(DATA_NAMES)}. Digits and shapes are built in, the others are read from "
    "--data-dir. package.module:function is your own function, which returns Splits, or a dict of "
    "split names to Images, torch data sets or arrays."
)


@dataclass(frozen=True)
class DataConfig(Bounded):
    """A data set and its options.

    Raises:
        UserError: no data set has this name, or it does not honor an option

    Example:
        >>> DataConfig(data="minst")
        Traceback (most recent call last):
        pipelines.runtime.errors.UserError: --data minst is unknown: did you mean 'mnist'? ...
    """

    data: Annotated[str, tyro.conf.arg(help=_DATA_HELP)] = "digits"
    """Name of the data set."""
    data_dir: str = "~/data"
    """Folder that holds the data set, or its file."""
    levels: Count = 0
    """Quantize to N levels, x * N // native (0: the data set's own number)."""
    binarize: Literal["none", "threshold", "dynamic"] = "none"
    """Make images binary: gray above half, or drawn with the gray level as probability. Training
    batches are drawn again each time, evaluation sets once."""
    limit: Count = 0
    """Use N images of each split (0: all), always the same ones: drawn with seed 0, stratified by
    label where there are labels."""
    condition: Condition = "none"
    """Annotation that the model is conditioned on; a plus joins two."""
    gray: bool = False
    """Convert color to gray (ITU-R 601), and image files of any mode."""
    rgb: bool = False
    """Convert gray, palette, RGBA and CMYK image files to RGB."""
    background: str = ""
    """Color under the transparent pixels of image files: white, black or r,g,b (default: refuse
    transparency)."""
    pad: Count = 0
    """Add N pixels of level 0 on every side."""
    image_size: Count = 0
    """Crop image files at the center and resize them to this side (0: all must have one size)."""
    native_levels: Count = 0
    """Number of levels of your own arrays (0: 256 for bytes, 4 for berkeley in color, otherwise
    one more than the highest level)."""
    cache_dir: str = ""
    """Folder for packed image files (default: .packed in the data folder, or if that is read-only
    $XDG_CACHE_HOME or ~/.cache)."""
    skip_damaged: bool = False
    """Leave out training images that can't be decoded, and list them. Evaluation never skips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_data_name(self.data)
        for option in sorted(_SPECIAL - OPTIONS.get(self.data, _ARRAYS)):
            if getattr(self, option):
                raise UserError(f"{flag(option)} does not apply to {self.data}: leave it out")


def check_data_name(name: str) -> None:
    """Raise a UserError unless a data set, or a function of the user's own, can have this name."""
    if name in OPTIONS or _OWN.fullmatch(name):
        return
    if ":" in name:
        raise UserError(f"--data {name}: expected package.module:function for your own data")
    guess = suggestion(name, DATA_NAMES)
    named = "" if guess.startswith(": choose") else f" Choose one of {', '.join(DATA_NAMES)}"
    raise UserError(f"--data {name} is unknown{guess}{named}")
