"""Encoded images of a source, in order: files in folders, members of tars, npz batches, parquet.

An entry that can't be read, such as a broken link, is listed with its fault: it is a damaged image
like any other, named in errors and left out with `--skip-damaged`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data import batches, parquet
from pipelines.data.decoding import read_file
from pipelines.data.image_files import EXTENSIONS, VERSION, Rules
from pipelines.runtime.errors import DataError
from pipelines.runtime.messages import warn

CHUNK = 256  # images per task: large enough to hide a worker's round trip


@dataclass(frozen=True)
class Listing:
    """Images of one split of a source, in columns: 1.28 million must fit in memory."""

    root: Path  # `paths` are relative to it; for a tar, the tar itself
    paths: list[str]
    sizes: np.ndarray  # bytes, int64
    times: np.ndarray  # modification times in ns, int64
    offsets: np.ndarray | None = None  # bytes, int64: where tar members begin
    rows: np.ndarray | None = None  # int64: images in every npz batch or parquet row group
    groups: np.ndarray | None = None  # int64: the row group's number in its parquet file
    faults: dict[str, str] = field(default_factory=dict)  # path -> why it can't be read
    taken: tuple[np.ndarray, ...] | None = None  # those images of every entry; None for all

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.paths) if self.rows is None else int(self._counts().sum())

    def _counts(self) -> np.ndarray:
        """Return the number of images of every npz batch or parquet row group."""
        assert self.rows is not None
        return self.rows if self.taken is None else np.array([len(one) for one in self.taken])

    def take(self, images: np.ndarray) -> Listing:
        """Return a listing of these images alone, by their sorted numbers in the whole listing."""
        if self.rows is not None:
            starts = np.cumsum(self.rows) - self.rows
            bounds = np.searchsorted(images, [*starts, self.count])
            parts = zip(starts, bounds[:-1], bounds[1:], strict=True)
            return replace(self, taken=tuple(images[begin:end] - at for at, begin, end in parts))
        offsets = None if self.offsets is None else self.offsets[images]
        paths = [self.paths[image] for image in images]
        sizes, times = self.sizes[images], self.times[images]
        return replace(self, paths=paths, sizes=sizes, times=times, offsets=offsets)

    def key(self, rules: Rules) -> str:
        """Return a hash that changes whenever the source or its decoding does."""
        digest = hashlib.sha256(json.dumps([VERSION, rules]).encode())
        digest.update(json.dumps(self.paths).encode())
        for column in (self.sizes, self.times, self.offsets, self.rows, self.groups):
            digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
        for rows in self.taken or ():
            digest.update(np.array([len(rows), *rows]).tobytes())
        return digest.hexdigest()

    def name(self, row: int) -> str:
        """Return the name of image `row` in messages: that of its file, and its place in it."""
        if self.offsets is not None:
            return f"{self.root}: {self.paths[row]}"
        if self.rows is None:
            return str(self.root / self.paths[row])
        ends = np.cumsum(self._counts())
        entry = int(np.searchsorted(ends, row, side="right"))
        path = self.paths[entry]
        if self.groups is None:
            return str(self.root / path)
        row -= int(ends[entry - 1]) if entry else 0
        row = row if self.taken is None else int(self.taken[entry][row])
        row += int(self.rows[self.paths.index(path) : entry].sum())
        return f"{self.root / path}: row {row}"

    def read(self, row: int) -> bytes:
        """Read encoded image `row` of a folder or tar.

        Raises:
            UnfitError: it can't be read
        """
        return read_file(*self._images(slice(row, row + 1))[0])

    def tasks(self) -> list[dict[str, Any]]:
        """Return the work in pieces for `decoding.fill`, each with its `count`."""
        tasks: list[dict[str, Any]]
        if self.rows is not None:
            counts = self._counts()
            starts = (np.cumsum(counts) - counts).tolist()
            files = [str(self.root / path) for path in self.paths]
            tasks = [{"start": s, "count": n} for s, n in zip(starts, counts.tolist(), strict=True)]
            for index, (task, file) in enumerate(zip(tasks, files, strict=True)):
                if self.groups is None:
                    task["batch"] = file
                else:
                    task |= {"parquet": file, "group": int(self.groups[index])}
                if self.taken is not None:
                    task["taken"] = self.taken[index].tolist()
            return [task for task in tasks if task["count"]]
        tasks = []
        for start in range(0, len(self.paths), CHUNK):
            images = self._images(slice(start, start + CHUNK))
            tasks.append({"start": start, "count": len(images), "images": images})
        return tasks

    def _images(self, chunk: slice) -> list[tuple[str, int, int, str]]:
        paths, sizes = self.paths[chunk], self.sizes[chunk].tolist()
        if self.offsets is None:
            files, offsets = [os.path.join(self.root, path) for path in paths], [0] * len(paths)
        else:
            files, offsets = [str(self.root)] * len(paths), self.offsets[chunk].tolist()
        faults = [self.faults.get(path, "") for path in paths]
        return list(zip(files, offsets, sizes, faults, strict=True))


class DamagedError(DataError):
    """Images can't be decoded, or don't fit.

    Attributes:
        listing: the images that were packed
        rows: numbers of the damaged ones that were found
    """

    def __init__(self, message: str, listing: Listing, rows: Sequence[int]) -> None:
        super().__init__(message, listing, rows)  # all arguments, so that it can be pickled
        self.listing = listing
        self.rows = rows

    def __str__(self) -> str:
        return str(self.args[0])


def list_files(root: Path, names: Sequence[str]) -> Listing:
    """List these files below `root`."""
    states = [(root / name).stat() for name in names]
    sizes, times = zip(*((s.st_size, s.st_mtime_ns) for s in states), strict=True)
    return Listing(root, list(names), np.array(sizes), np.array(times))


def list_folder(root: Path) -> Listing:
    """List all images below `root`, sorted by path; hidden files and folders are left out.

    Files of other kinds are counted on standard error.

    Raises:
        DataError: there is none, or `root` can't be read
    """
    found: list[tuple[str, int, int]] = []
    faults: dict[str, str] = {}
    others: Counter[str] = Counter()
    prefix = len(os.path.join(root, ""))
    for entry, fault in _walk(str(root), ()):
        path, ending = entry[prefix:], os.path.splitext(entry)[1].lower()
        if fault:
            faults[path] = fault
            found.append((path, 0, 0))
        elif ending in EXTENSIONS:
            try:
                status = os.stat(entry)
            except OSError as error:
                faults[path] = _unreadable(error)
                found.append((path, 0, 0))
                continue
            if not stat.S_ISREG(status.st_mode):
                faults[path] = "is not a regular file: remove it"
            found.append((path, status.st_size, status.st_mtime_ns))
        else:
            others[ending or "without an ending"] += 1
    say_left_out(root, others, len(found))
    found.sort()
    paths, sizes, times = zip(*found, strict=True)
    return Listing(root, list(paths), np.array(sizes), np.array(times), faults=faults)


def say_left_out(source: Path, others: Counter[str], count: int) -> None:
    """Report how many files are not read as images, by extension.

    Raises:
        DataError: there are no images
    """
    listed = ", ".join(f"{number:,} {ending}" for ending, number in others.most_common())
    if not count:
        has = f" (it has {listed})" if others else ""
        raise DataError(f"{source} holds no images{has}: expected files such as *.png in it")
    if others:
        warn(f"{source} also has files that are not read as images: {listed}")


def _walk(folder: str, around: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str]]:
    """Yield the files below a folder with an empty fault, and unreadable entries with theirs."""
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in around:
            yield folder, "is a link to a folder that contains it: remove it"
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    yield from _walk(entry.path, (*around, here))
                else:
                    yield entry.path, ""
    except OSError as error:
        if not around:
            raise DataError(f"{folder} {_unreadable(error)}") from error
        yield folder, _unreadable(error)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reading it says so
        return False


def _unreadable(error: OSError) -> str:
    return f"cannot be read ({error.strerror}): restore or delete it"


def list_batches(paths: Sequence[Path]) -> Listing:
    """List npz batches in the layout of the downsampled ImageNet release.

    Raises:
        DataError: a batch is damaged, or `data` is missing or of another kind
    """
    rows = [batches.shape(path)[0] for path in paths]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    states = [path.stat() for path in paths]
    return Listing(
        root,
        [str(path.relative_to(root)) for path in paths],
        np.array([state.st_size for state in states]),
        np.array([state.st_mtime_ns for state in states]),
        rows=np.array(rows),
    )


def list_parquet(paths: Sequence[Path]) -> tuple[Listing, np.ndarray | str | None]:
    """List parquet files with a column `image`, and read their column `label`.

    Returns:
        The listing, and the labels: (N,) int64 or text; None where no file has any; a sentence on
        what is wrong with them where they are not usable, or some files have none.

    Raises:
        DataError: pyarrow is not installed, or a file is damaged or has no images
    """
    entries, labels = [], {}
    for path in paths:
        file = parquet.open_file(path)
        labels[path.name] = parquet.read_labels(path, file)
        state = path.stat()
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            entries.append((path.name, state.st_size, state.st_mtime_ns, rows, group))
    if not entries:
        raise DataError(f"{paths[0]} holds no images: fetch it again")
    names, sizes, times, rows, groups = zip(*entries, strict=True)
    listing = Listing(
        paths[0].parent,
        list(names),
        np.array(sizes),
        np.array(times),
        rows=np.array(rows),
        groups=np.array(groups),
    )
    return listing, parquet.joined_labels(labels)
