"""Survey of a folder's images: all problems in one message, with the command that solves them.

Packing stops early to report a problem soon. The survey finds the others: it decodes the first
images of every split and groups their problems.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import numpy as np

from pipelines.data.config import DataConfig
from pipelines.data.image_files import Problem, Rules, UnfitError, decode, open_upright
from pipelines.data.listing import DamagedError, Listing
from pipelines.runtime.errors import DataError
from pipelines.runtime.provenance import command

_FILES, _BYTES = 2000, 1 << 28  # decoded in each split
_SHOWN = 3  # more files that are named for each problem
_SIDE = 64  # largest size that is suggested for images of several sizes


_Groups = dict[tuple[str, str], list[tuple[str, Problem]]]  # with the names of the images


def survey(
    listings: Iterable[Listing],
    rules: Rules,
    flags: Container[str],
    found: DamagedError,
) -> DataError:
    """Return one error for all problems of the images.

    Args:
        listings: folders or tars of the splits that are not packed yet
        rules: shape of the images, and allowed conversions
        flags: those that the data set honors, such as "--rgb"
        found: the error that ended packing
    """
    looked = [(found.listing, {*_first(found.listing), *found.rows})]
    looked += [(listing, {*_first(listing)}) for listing in listings]
    groups: _Groups = {}
    for listing, rows in looked:
        for row in sorted(rows):
            try:
                decode(listing.read(row), rules)
            except UnfitError as error:
                for problem in error.problems:
                    key = (problem.kind, problem.reason if problem.kind == "color" else "")
                    groups.setdefault(key, []).append((listing.name(row), problem))
    lines = [_line(cases) for cases in groups.values()]
    named = {problem.flag for cases in groups.values() for _, problem in cases}
    cure = _cure({flag for flag in named if flag.split(" ")[0] in flags})
    if not lines:  # the problem that packing found is gone
        return found
    if len(lines) > 1:
        lines = ["the images have several problems:", *[f"  {line}" for line in lines]]
    return DataError("\n".join([*lines, *[f"to paste: {cure}"] * bool(cure)]))


def _first(listing: Listing) -> range:
    """Return the rows that can be decoded in seconds."""
    count = int(np.searchsorted(np.cumsum(listing.sizes), _BYTES)) + 1
    return range(min(count, _FILES, listing.count))


def _line(cases: list[tuple[str, Problem]]) -> str:
    (name, problem), others = cases[0], [name for name, _ in cases[1:]]
    if not others:
        return f"{name} {problem.reason}"
    named = ", ".join([*others[:_SHOWN], *["…"] * (len(others) > _SHOWN)])
    return f"{name} {problem.reason}; {len(others):,} more cannot be used: {named}"


def _cure(flags: set[str]) -> str:
    """Return the running command with these flags, and the smallest of several sizes."""
    sides = [int(flag.split(" ")[1]) for flag in flags if flag.startswith("--image-size ")]
    words = [word for flag in sorted(flags) if "size" not in flag for word in flag.split(" ")]
    if sides:
        words += ["--image-size", str(min(*sides, _SIDE))]
    return command(*words) if words else ""


def first_shape(listing: Listing, config: DataConfig) -> tuple[int, int, int]:
    """Return the shape of the first undamaged image, changed as the flags say."""
    image, first = None, ""
    for row in range(listing.count):
        try:
            image = open_upright(listing.read(row))
            break
        except UnfitError as error:
            first = first or f"{listing.name(row)} {error}"
    if image is None:
        raise DataError(f"no image in {listing.root} can be used: {first}")
    width, height = (config.image_size,) * 2 if config.image_size else image.size
    gray = config.gray or (image.mode in ("1", "L", "LA") and not config.rgb)
    return 1 if gray else 3, height, width
