"""What encoded images a source holds, in order: files in folders, tars, npz batches, parquet."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data import decoding
from pipelines.data.decoding import Rules
from pipelines.data.raw import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
CHUNK = 256  # images per task: large enough to hide a worker's round trip


@dataclass(frozen=True)
class Listing:
    """The images of one split of a source, in columns: 1.28 million must fit in memory."""

    root: Path  # `paths` are relative to it; for a tar, the tar itself
    paths: list[str]
    sizes: np.ndarray  # bytes, int64
    times: np.ndarray  # modification times in ns, int64
    offsets: np.ndarray | None = None  # bytes, int64: where tar members begin
    rows: np.ndarray | None = None  # int64: images in every npz batch or parquet row group
    groups: np.ndarray | None = None  # int64: the row group's number in its parquet file

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.paths) if self.rows is None else int(self.rows.sum())

    def first(self, count: int) -> Listing:
        """As few entries as hold the first `count` images."""
        if self.rows is not None:
            count = int(np.searchsorted(np.cumsum(self.rows), count)) + 1
        paths, sizes, times = self.paths[:count], self.sizes[:count], self.times[:count]
        optional = (self.offsets, self.rows, self.groups)
        cut = [None if column is None else column[:count] for column in optional]
        return Listing(self.root, paths, sizes, times, *cut)

    def key(self, rules: Rules) -> str:
        """A hash that changes whenever the source, or the way of decoding it, does."""
        digest = hashlib.sha256(json.dumps(rules).encode())
        digest.update("\n".join(self.paths).encode(errors="surrogateescape"))
        for column in (self.sizes, self.times, self.offsets, self.rows, self.groups):
            digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def name(self, row: int) -> str:
        """What a message calls the file in which image `row` lies."""
        if self.offsets is not None:
            return f"{self.root}: {self.paths[row]}"
        if self.rows is not None:
            row = int(np.searchsorted(np.cumsum(self.rows), row, side="right"))
        return str(self.root / self.paths[row])

    def tasks(self) -> list[dict[str, Any]]:
        """The work in the pieces that `decoding.fill` understands, each with its `count`."""
        tasks: list[dict[str, Any]]
        if self.rows is not None:
            starts = (np.cumsum(self.rows) - self.rows).tolist()
            files = [str(self.root / path) for path in self.paths]
            tasks = [
                {"start": s, "count": n} for s, n in zip(starts, self.rows.tolist(), strict=True)
            ]
            for index, (task, file) in enumerate(zip(tasks, files, strict=True)):
                if self.groups is None:
                    task["batch"] = file
                else:
                    task |= {"parquet": file, "group": int(self.groups[index])}
            return tasks
        tasks = []
        for start in range(0, len(self.paths), CHUNK):
            images = self._images(slice(start, start + CHUNK))
            tasks.append({"start": start, "count": len(images), "images": images})
        return tasks

    def _images(self, chunk: slice) -> list[tuple[str, int, int]]:
        paths, sizes = self.paths[chunk], self.sizes[chunk].tolist()
        if self.offsets is None:
            return [(os.path.join(self.root, p), 0, n) for p, n in zip(paths, sizes, strict=True)]
        offsets = self.offsets[chunk].tolist()
        return [(str(self.root), begin, n) for begin, n in zip(offsets, sizes, strict=True)]


def list_folder(root: Path) -> Listing:
    """All images below `root`, sorted by path; hidden files and folders are not looked at.

    Raises:
        DataError: there is none
    """
    found: list[tuple[str, int, int]] = []
    folders, prefix = [str(root)], os.path.join(root, "")
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                elif entry.name.lower().endswith(EXTENSIONS):
                    status = entry.stat()
                    name = entry.path[len(prefix) :]
                    found.append((name, status.st_size, status.st_mtime_ns))
    if not found:
        raise DataError(f"{root} holds no images: expected files such as *.png below it")
    found.sort()
    paths, sizes, times = zip(*found, strict=True)
    return Listing(root, list(paths), np.array(sizes), np.array(times))


def list_tar(path: Path, index: Path) -> Listing:
    """The images in an uncompressed tar, which stays as it is; `index` remembers where they lie.

    Raises:
        DataError: the tar is compressed or damaged, or holds no images
    """
    status = path.stat()
    stamp = np.array([status.st_size, status.st_mtime_ns])
    if not index.exists() or (np.load(index)["stamp"] != stamp).any():
        _write_index(path, index, stamp)
    with np.load(index, allow_pickle=False) as archive:
        names = archive["names"].tobytes().decode().split("\n")
        sizes, offsets = archive["sizes"], archive["offsets"]
    return Listing(path, names, sizes, np.full(len(names), stamp[1]), offsets)


def _write_index(path: Path, index: Path, stamp: np.ndarray) -> None:
    try:
        with tarfile.open(path, "r:") as tar:
            members = sorted(
                (member.name, member.size, member.offset_data)
                for member in tar
                if member.isfile() and member.name.lower().endswith(EXTENSIONS)
            )
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{path} is not a whole, uncompressed tar ({error}): fetch it again or unpack it"
        ) from error
    if not members:
        raise DataError(f"{path} holds no images: expected members such as *.png")
    names, sizes, offsets = zip(*members, strict=True)
    index.parent.mkdir(parents=True, exist_ok=True)
    beside = index.with_name(f"{index.name}.{os.getpid()}.tmp")
    with open(beside, "wb") as file:
        text = np.frombuffer("\n".join(names).encode(), dtype=np.uint8)
        np.savez(file, names=text, sizes=sizes, offsets=offsets, stamp=stamp)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, index)


def list_batches(paths: Sequence[Path]) -> Listing:
    """npz batches in the layout of the downsampled ImageNet release: `data` is uint8 (N, 3·S·S).

    Raises:
        DataError: a batch is damaged, or `data` is missing or of another kind
    """
    rows = []
    for path in paths:
        try:
            rows.append(decoding.batch_shape(str(path))[0])
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is no batch of images ({error}): fetch it again") from error
    root = Path(os.path.commonpath([path.parent for path in paths]))
    states = [path.stat() for path in paths]
    return Listing(
        root,
        [str(path.relative_to(root)) for path in paths],
        np.array([state.st_size for state in states]),
        np.array([state.st_mtime_ns for state in states]),
        rows=np.array(rows),
    )


def list_parquet(paths: Sequence[Path]) -> tuple[Listing, np.ndarray | None]:
    """parquet files with a column `image`, and their column `label`, if they have it.

    Raises:
        DataError: pyarrow is not installed, or a file is damaged or has no images
    """
    try:
        from pyarrow import ArrowException, parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(
            f"{paths[0]} needs pyarrow: pip install 'pixel-decoders[parquet]'"
        ) from error
    entries, labels = [], []
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
            names = file.schema_arrow.names
            if "image" not in names:
                raise DataError(f"{path} has no column 'image' (it has {', '.join(names)})")
            if "label" in names:
                labels.append(file.read(columns=["label"]).column("label").to_numpy())
        except (ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged ({error}): fetch it again") from error
        state = path.stat()
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            entries.append((path.name, state.st_size, state.st_mtime_ns, rows, group))
    names, sizes, times, rows, groups = zip(*entries, strict=True)
    columns = {"rows": np.array(rows), "groups": np.array(groups)}
    listing = Listing(paths[0].parent, list(names), np.array(sizes), np.array(times), **columns)
    return listing, np.concatenate(labels).astype(np.int64) if labels else None
