"""Class labels of image files, from their folders or a column, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipelines.data.config import DataConfig
from pipelines.data.listing import Listing
from pipelines.runtime.errors import DataError
from pipelines.runtime.messages import warn

MOST_CLASSES = 1 << 16  # more need as many images: sparse ids would ask for terabytes


class Labels(NamedTuple):
    """The labels of all splits of a data set."""

    splits: dict[str, np.ndarray | None]  # (N,) int64, from 0; None for all or for none
    num_classes: int = 0  # 0 without labels
    missing: str = ""  # why there are no labels
    dropped: bool = False  # some images had labels

    def checked(self, config: DataConfig) -> Labels:
        """Return these labels; warn before packing if some were dropped.

        Raises:
            DataError: there are none, and `--condition` asks for them
        """
        if self.missing and "label" in config.condition.split("+"):
            raise DataError(
                f"--condition {config.condition}: {config.data} as found comes with nothing "
                f"({self.missing})"
            )
        if self.dropped:
            warn(f"the images get no labels: {self.missing}")
        return self


def from_folders(listings: Mapping[str, Listing]) -> Labels:
    """Number the first folder of every path; the folders of train are the classes."""
    names = {}
    for split, listing in listings.items():
        names[split] = np.array([_first_folder(path) for path in listing.paths])
    if not names["train"].any():
        return _none(listings, "train has no class folders", dropped=False)
    if len(np.unique(names["train"])) == 1:
        return _none(listings, "train has a single class folder", dropped=False)
    for split, found in names.items():
        stray = np.flatnonzero(found == "")
        if len(stray):
            name = listings[split].name(stray[0])
            return _none(listings, f"{name} is in no class folder, unlike other images")
    return _numbered(names, "folder")


def from_columns(found: Mapping[str, np.ndarray | str | None], num_classes: int) -> Labels:
    """Return the labels of all splits that `listing.list_parquet` read, with text numbered."""
    for split, labels in found.items():
        if isinstance(labels, str):
            return _none(found, labels)
        if labels is None:
            dropped = any(one is not None for one in found.values())
            return _none(found, f"{split} has no labels", dropped=dropped)
    labels = {split: one for split, one in found.items() if isinstance(one, np.ndarray)}
    kinds = {one.dtype.kind for one in labels.values()}
    if len(kinds) > 1:
        return _none(found, "labels are text in one split and integers in another")
    return _numbered(labels, "label") if kinds == {"U"} else Labels({**labels}, num_classes)


def _numbered(names: Mapping[str, np.ndarray], what: str) -> Labels:
    """Number names in alphabetical order; a class may be absent from any split but train."""
    classes = np.unique(names["train"])
    for split, found in names.items():
        unknown = np.setdiff1d(found, classes)
        if len(unknown):
            return _none(names, f"{split} has the {what} {unknown[0]!s}, which train does not")
    splits = {split: np.searchsorted(classes, found) for split, found in names.items()}
    return Labels({split: one.astype(np.int64) for split, one in splits.items()}, len(classes))


def _none(splits: Mapping[str, object], reason: str, *, dropped: bool = True) -> Labels:
    return Labels(dict.fromkeys(splits), missing=reason, dropped=dropped)


def _first_folder(path: str) -> str:
    return path.split("/", 1)[0] if "/" in path else ""
