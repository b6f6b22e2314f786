"""Pack images, once, into one memory-mapped uint8 array, decoded by all cores.

    Listing (files, tar members, npz batches) -> workers -> NAME.part -> fsync -> NAME.npy + .json

A packed set is a plain `.npy` (N, C, H, W) with a JSON sidecar. Its name holds a hash of the
source's listing (names, sizes, times), so that a changed source is packed anew. Finished tasks go
into a journal, but only once their data are on the disk: an interrupted packing goes on from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import queue
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from pipelines.data import decoding
from pipelines.data.array_files import map_npy
from pipelines.data.decoding import Rules
from pipelines.data.listing import CHUNK, Listing
from pipelines.data.raw import DamagedError, DataError
from pipelines.data.subset import Rows
from pipelines.training.progress import Progress

_FEW = 4  # so few tasks are done before workers would have started
_PATIENCE = 20  # damaged images after which a strict packing looks for no more
_SYNC_SECONDS = 5.0
_SHOWN = 5  # damaged images that an error message names


class Packed(NamedTuple):
    """A packed set, opened."""

    pixels: np.ndarray  # (N, C, H, W) uint8, memory-mapped, read-only
    kept: np.ndarray  # (N,) int64: which images of the listing these are


class Damaged(NamedTuple):
    """One image that could not be decoded."""

    row: int  # in the listing
    reason: str  # completes a sentence that begins with the file's name


def pack(
    listing: Listing,
    rules: Rules,
    target: Path,
    *,
    variant: str = "",
    limit: int = 0,
    skip_damaged: bool = False,
    workers: int = 0,
) -> Packed:
    """The images of `listing` as one array, packed now unless that was done before.

    Args:
        listing: the source
        rules: what every image must be, and what may be converted
        target: folder and first part of the packed file's name, such as …/imagenet64-train
        variant: which release this is, for the sidecar
        limit: the first so many images (0: all), without decoding the others
        skip_damaged: leave damaged images out and list them, instead of raising
        workers: processes that decode (0: one per core)

    Raises:
        DataError: damaged images, each named with its reason, or no room for the packed set
    """
    label = target.name
    whole = target.with_name(f"{label}-{listing.key(rules)[:20]}.npy")
    if 0 < limit < listing.count and not _is_whole(whole):
        label = f"{label}-first-{limit}"
        listing = listing.first(limit)
        whole = target.with_name(f"{label}-{listing.key(rules)[:20]}.npy")
    if not _is_whole(whole):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(f"{label}.lock")):
            if not _is_whole(whole):  # another process may just have packed it
                about = {"source": str(listing.root), "variant": variant}
                _pack(listing, rules, _Part(whole, listing, rules), skip_damaged, workers, about)
    damaged = [Damaged(*pair) for pair in _read_sidecar(whole)["damaged"]]
    if damaged and not skip_damaged:
        raise _error(listing, damaged)
    if damaged:
        names = "; ".join(f"{listing.name(row)} {reason}" for row, reason in damaged)
        print(f"skipped {len(damaged)} damaged images of {label}: {names}", file=sys.stderr)
    pixels = map_npy(whole)
    kept = np.delete(np.arange(listing.count), [row for row, _ in damaged])
    return Packed(pixels[: limit or None], kept[: limit or None])


def cache_folder(source: Path) -> Path:
    """Where the packed form of a folder is kept: inside it if that may be written, else ~/.cache.

    The permission bits count even for root, who could write into a folder marked read-only.
    """
    bits = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    if os.access(source, os.W_OK) and source.stat().st_mode & bits:
        return source / ".packed"
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    owner = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:12]
    return base / "pixel-decoders" / f"{source.name}-{owner}"


class _Part:
    """A packed set in the making: the data file and the journal of its finished tasks."""

    def __init__(self, whole: Path, listing: Listing, rules: Rules):
        self.whole = whole
        self.path = whole.with_suffix(".part")
        self.journal = whole.with_suffix(".journal")
        self.row_bytes = int(np.prod(rules.shape))
        self.shape = (listing.count, *rules.shape)
        self.header = _npy_header(self.shape)
        self.done: dict[int, list[Damaged]] = self._resume()
        self._new: list[str] = []
        self._synced = time.monotonic()

    def _resume(self) -> dict[int, list[Damaged]]:
        size = len(self.header) + self.shape[0] * self.row_bytes
        if self.path.exists() and self.journal.exists() and self.path.stat().st_size == size:
            lines = self.journal.read_text().split("\n")[:-1]  # an unfinished line ends without \n
            return {start: [Damaged(*d) for d in found] for start, found in map(json.loads, lines)}
        for stale in self.path.parent.glob(f"{self.whole.name.rsplit('-', 1)[0]}-*.part"):
            stale.with_suffix(".journal").unlink(missing_ok=True)  # of a source since changed
            stale.unlink()
        free = shutil.disk_usage(self.path.parent).free
        if free < size:
            raise DataError(
                f"{self.path.parent} has {free / 2**30:.1f} GiB free and the packed images need "
                f"{size / 2**30:.1f}: make room, or set XDG_CACHE_HOME and make --data-dir "
                "read-only"
            )
        self.journal.unlink(missing_ok=True)
        with open(self.path, "wb") as file:
            file.write(self.header)
            file.truncate(size)
        return {}

    def add(self, task: dict[str, Any], found: list[Damaged]) -> None:
        """Note a finished task, for good at the next sync."""
        self.done[task["start"]] = found
        self._new.append(json.dumps([task["start"], found]) + "\n")
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Bring the data to the disk, and only then the journal."""
        with open(self.path, "r+b") as file:
            os.fsync(file.fileno())
        with open(self.journal, "a") as file:
            file.writelines(self._new)
        self._new, self._synced = [], time.monotonic()

    def finish(self, about: dict[str, Any], damaged: list[Damaged]) -> None:
        """Turn the part into the whole; the last rename is what makes it one."""
        if damaged:
            self._drop([row for row, _ in damaged])
        pixels = map_npy(self.path)
        sidecar = {
            "count": len(pixels),
            "shape": pixels.shape[1:],
            **about,
            "fingerprint": fingerprint(pixels),
            "damaged": damaged,
            "bytes": self.path.stat().st_size,
        }
        beside = self.whole.with_suffix(".json.tmp")
        with open(beside, "w") as file:
            json.dump(sidecar, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.whole.with_suffix(".json"))
        os.replace(self.path, self.whole)
        self.journal.unlink()

    def _drop(self, rows: list[int]) -> None:
        """Copy all rows but these into a new part, in blocks, and put it in the old one's place."""
        pixels = map_npy(self.path)
        keep = np.delete(np.arange(len(pixels)), rows)
        beside = self.path.with_suffix(".tmp")
        with open(beside, "wb") as file:
            file.write(_npy_header((len(keep), *self.shape[1:])))
            for start in range(0, len(keep), 4096):
                file.write(pixels[keep[start : start + 4096]].data)
            file.flush()
            os.fsync(file.fileno())
        self.journal.unlink()  # from here on, its rows are not this file's: a crash packs anew
        os.replace(beside, self.path)
        self.journal.touch()


def _pack(
    listing: Listing,
    rules: Rules,
    part: _Part,
    skip_damaged: bool,
    workers: int,
    about: dict[str, Any],
) -> None:
    tasks = [task for task in listing.tasks() if task["start"] not in part.done]
    few = not tasks or (listing.rows is None and len(tasks) <= _FEW)
    setup = {"target": str(part.path), "offset": len(part.header), **rules._asdict()}
    left = sum(task["count"] for task in tasks)
    label = f"packing {part.whole.stem.rsplit('-', 1)[0]}"
    run = _run_here(tasks, setup, rules) if few else _run_workers(tasks, setup, workers or cores())
    shown = Progress(listing.count, label, unit="image", initial=listing.count - left)
    try:
        with contextlib.closing(run), shown as bar:
            for task, found in run:
                part.add(task, found)
                bar.update(task["count"])
                if not skip_damaged and sum(map(len, part.done.values())) >= _PATIENCE:
                    break
    finally:
        part.sync()
    damaged = sorted(one for found in part.done.values() for one in found)
    by_image = listing.rows is None or listing.groups is not None  # not batch by batch
    can_skip = skip_damaged and by_image and len(damaged) < listing.count
    if damaged and not can_skip:
        raise _error(listing, damaged)
    part.finish(about, damaged)


_Results = Generator[tuple[dict[str, Any], list[Damaged]], None, None]


def _run_here(tasks: list[dict[str, Any]], setup: dict[str, Any], rules: Rules) -> _Results:
    with open(setup["target"], "r+b") as target:
        for task in tasks:
            found = decoding.fill(target, setup["offset"], rules, task)
            yield task, [Damaged(*pair) for pair in found]


def _run_workers(tasks: list[dict[str, Any]], setup: dict[str, Any], workers: int) -> _Results:
    """Hand every task to the next idle worker; results come in the order of the tasks."""
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    command = [sys.executable, "-m", decoding.__name__]
    idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()

    def ask(task: dict[str, Any]) -> list[Damaged]:
        worker = idle.get()
        print(json.dumps(task), file=worker.stdin, flush=True)
        answer = worker.stdout.readline() if worker.stdout else ""
        idle.put(worker)
        if not answer:
            raise DataError(f"a packing worker ended with exit code {worker.wait()}: see above")
        return [Damaged(*pair) for pair in json.loads(answer)]

    with contextlib.ExitStack() as stack:
        for _ in range(min(workers, len(tasks))):
            worker = stack.enter_context(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            print(json.dumps(setup), file=worker.stdin, flush=True)
            idle.put(worker)
        pool = ThreadPoolExecutor(min(workers, len(tasks)))
        try:
            yield from zip(tasks, pool.map(ask, tasks), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fingerprint(
    pixels: np.ndarray | Rows,
    dtype: DTypeLike = np.uint8,
    *,
    small: int = 1 << 26,
    sample: int = 2048,
) -> str:
    """A hash of shape and levels: of all images up to 64 MiB, else of a fixed stride of them.

    Args:
        pixels: (N, C, H, W), integers of any type.
        dtype: the levels are hashed as this type.
        small: hash the levels of all images up to this size.
        sample: else those of this many images.
    """
    digest = hashlib.sha256(repr(pixels.shape).encode())
    rows = np.arange(len(pixels))
    if pixels.size > small and len(pixels) > sample:
        rows = np.linspace(0, len(pixels) - 1, sample).astype(np.int64)
    for start in range(0, len(rows), CHUNK):
        levels = np.ascontiguousarray(pixels[rows[start : start + CHUNK]], dtype=dtype)
        digest.update(levels.data)
    return digest.hexdigest()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def _read_sidecar(whole: Path) -> dict[str, Any]:
    return json.loads(whole.with_suffix(".json").read_text())


def _is_whole(whole: Path) -> bool:
    """Whether this packed file and its sidecar are both there, and fit."""
    try:
        return whole.stat().st_size == _read_sidecar(whole)["bytes"]
    except (OSError, ValueError, KeyError):
        return False


def _error(listing: Listing, damaged: list[Damaged]) -> DataError:
    first, others = damaged[0], damaged[1:]
    message = f"{listing.name(first.row)} {first.reason}"
    if others:
        names = [listing.name(one.row) for one in others[:_SHOWN]]
        names += ["…"] if len(others) > _SHOWN else []
        message += f"; {len(others):,} more cannot be used: {', '.join(names)}"
    return DamagedError(message, listing, [one.row for one in damaged])


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time, of all that share the cache folder, go on."""
    import fcntl

    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
