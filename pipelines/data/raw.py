"""Raw data that readers return."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.data.config import DataConfig
from pipelines.data.subset import Rows
from pipelines.runtime.errors import DataError


class RawSplit(NamedTuple):
    """One split: images and their annotations."""

    pixels: np.ndarray | Rows  # (N, C, H, W) integers, in memory or memory-mapped
    labels: np.ndarray | None = None  # (N,) integers, from 0
    mask: np.ndarray | None = None  # (N, H, W) uint8 class ids
    keypoints: np.ndarray | None = None  # (N, K, H, W) uint8, 0 or 1
    captions: list[str] | None = None
    count: int = 0  # images in the source, if `pixels` are only some of them


class Raw(NamedTuple):
    """A data set as it is in its source."""

    splits: dict[str, RawSplit]  # "train", "test" or "valid" or both
    num_levels: int  # every level is below it
    num_classes: int = 0
    num_mask_classes: int = 0
    caption_length: int = 0
    variant: str = ""  # "" | "old" | "new" | "subset: …"


def data_path(config: DataConfig) -> Path:
    """Return the path that `--data-dir` names, which may not exist.

    Raises:
        DataError: it begins with ~, and there is no home
    """
    try:
        return Path(config.data_dir).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"--data-dir {config.data_dir}: there is no home folder, name a full path"
        ) from error


def source_of(config: DataConfig) -> Path:
    """Return the folder or file that `--data-dir` names.

    Raises:
        DataError: it does not exist, or is an empty folder
    """
    root = data_path(config)
    if not root.exists():
        raise DataError(f"--data-dir {root} does not exist: name the folder that holds the data")
    if root.is_dir() and not any(root.iterdir()):
        raise DataError(f"--data-dir {root} is empty: name the folder that holds the data")
    return root


def folder_of(config: DataConfig) -> Path:
    """Return the folder that `--data-dir` names.

    Raises:
        DataError: it does not exist, is empty, or is a file
    """
    root = source_of(config)
    if not root.is_dir():
        raise DataError(f"--data-dir {root} is a file: name the folder that contains it")
    return root
