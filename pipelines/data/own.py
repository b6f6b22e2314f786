"""Data sets from a user's function: `--data package.module:function`.

The function takes no arguments and returns `Splits`, or a dict of split names ("train", and "test"
or "valid" or both) to `Images`, torch data sets, arrays, or pairs (images, labels) of arrays.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from pipelines.data.config import DataConfig
from pipelines.data.images import Images, Splits
from pipelines.data.raw import Raw
from pipelines.runtime.errors import DataError
from pipelines.runtime.user_modules import import_name

_SPLITS = ("train", "valid", "test")


def own(config: DataConfig) -> Raw:
    """Call the function that `--data` names, and check what it returns.

    Raises:
        UserError: there is no such module or function
        DataError: the function raised an error, or returned something else
    """
    name = config.data
    found = _call(name)
    images = {
        split: Images.of(value, name=f"{name}: {split}", num_levels=config.native_levels or None)
        for split, value in found.items()
    }
    native = max(one.num_levels for one in images.values())
    stated = {one.num_levels for split, one in images.items() if one is found[split]}
    stated |= {config.native_levels} - {0}
    if stated - {native}:
        numbers = " and ".join(map(str, sorted(stated | {native})))
        raise DataError(f"--data {name}: expected one number of levels, got {numbers}")
    classes = max(one.num_classes for one in images.values())
    return Raw(
        {split: one.raw_split() for split, one in images.items()},
        num_levels=native,
        num_classes=classes,
        variant=images["train"].variant,
    )


def _call(name: str) -> dict[str, Any]:
    """Return what the function returns, by split."""
    function = import_name(name, "--data")
    if not callable(function):
        raise DataError(f"--data {name} is a {type(function).__name__}, expected a function")
    try:
        found = function()
    except Exception as error:  # whatever a user's function does
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error}"
        raise DataError(f"--data {name} raised {said} ({last.filename}:{last.lineno})") from error
    found = Splits.named(found)
    wrong = ""
    if not isinstance(found, Mapping):
        wrong = f"a {type(found).__name__}"
    elif "train" not in found or set(found) == {"train"} or not set(found) <= {*_SPLITS}:
        wrong = ", ".join(map(str, found)) or "an empty dict"
    if wrong:
        raise DataError(
            f"--data {name} returned {wrong}, expected Splits, or a dict with train, and test or "
            "valid or both"
        )
    return dict(found)
