"""Packing of images, once and on all cores, into one memory-mapped uint8 array.

    Listing (files, tar members, npz batches) -> workers -> NAME.part -> fsync -> NAME.npy + .json

A packed set is a plain `.npy` (N, C, H, W) with a JSON sidecar. Its name holds a hash of the
source's listing (names, sizes, times), so that a changed source is packed again, and the sets of
earlier listings are removed. An interrupted packing leaves nothing behind and starts again: a core
decodes thousands of 64x64 images a second.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.data import fingerprint, part, subset
from pipelines.data.array_files import map_npy
from pipelines.data.image_files import Rules
from pipelines.data.listing import DamagedError, Listing
from pipelines.data.subset import Rows
from pipelines.data.workers import cores, run_here, run_workers
from pipelines.runtime.errors import DataError
from pipelines.runtime.progress import Progress

_FEW = 4  # tasks that are done before workers would have started
_PATIENCE = 20  # damaged images at which a strict packing stops
_SHOWN = 5  # damaged images that an error message names


class Packed(NamedTuple):
    """A packed set, opened."""

    pixels: np.ndarray | Rows  # (N, C, H, W) uint8, memory-mapped, read-only
    kept: np.ndarray  # (N,) int64: their numbers in the listing


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
    rows: np.ndarray | None = None,
    skip_damaged: bool = False,
    workers: int = 0,
    elsewhere: Sequence[Path] = (),
) -> Packed:
    """Return the images of `listing` as one array, packed now unless they were before.

    Args:
        listing: the source
        rules: shape of every image, and allowed conversions
        target: folder and first part of the packed file's name, such as …/imagenet64-train
        variant: release of the data set, for the sidecar
        rows: only these images of the listing, sorted (None: all), without decoding the others
        skip_damaged: leave damaged images out and list them, instead of raising
        workers: processes that decode (0: one per core)
        elsewhere: other folders that may have the packed set

    Raises:
        DataError: damaged images, each named with its reason, or the packed set can't be written
    """
    everything = np.arange(listing.count)
    wanted = everything if rows is None else rows
    sets = [(listing, target.name, everything)]  # the whole set, packed earlier, has any part
    if len(wanted) < listing.count:
        sets.append((listing.take(wanted), f"{target.name}-{len(wanted)}", wanted))
    folders = [target.parent, *elsewhere]
    for one in sets:
        source, name, held = one
        file = f"{name}-{source.key(rules)[:20]}.npy"
        found = next((folder / file for folder in folders if _is_whole(folder / file)), None)
        if found:
            break
    else:
        found = target.with_name(file)
        about = {"source": str(listing.root), "variant": variant, "listing": _state(listing)}
        try:
            _pack_locked(source, rules, found, name, about, skip_damaged, workers)
        except OSError as error:
            raise DataError(
                f"cannot write packed images into {target.parent}: {error.strerror or error}: make "
                "room, or name another folder with --cache-dir"
            ) from error
        _remove_older(target, found, about["listing"])
    damaged = [Damaged(*pair) for pair in _read_sidecar(found)["damaged"]]
    _report(source, [one for one in damaged if held[one.row] in wanted], name, skip_damaged)
    kept = np.delete(held, [one.row for one in damaged])
    here = np.flatnonzero(np.isin(kept, wanted))
    return Packed(subset.take(map_npy(found), here), kept[here])


def _pack_locked(
    listing: Listing,
    rules: Rules,
    whole: Path,
    name: str,
    about: dict[str, Any],
    skip_damaged: bool,
    workers: int,
) -> None:
    """Pack a set, or wait for another process that is packing it."""
    whole.parent.mkdir(parents=True, exist_ok=True)
    with _lock(whole.with_name(f"{name}.lock")):
        if not _is_whole(whole):
            _pack(listing, rules, whole, about, skip_damaged, workers)


def _report(listing: Listing, damaged: list[Damaged], name: str, skip_damaged: bool) -> None:
    """Report damaged images, as an error unless they may be skipped."""
    if damaged and not skip_damaged:
        raise _error(listing, damaged)
    if damaged:
        names = "; ".join(f"{listing.name(row)} {reason}" for row, reason in damaged)
        print(f"skipped {len(damaged)} damaged images of {name}: {names}", file=sys.stderr)


def _state(listing: Listing) -> str:
    """Return a hash of the source as it is now, whatever the rules of decoding."""
    return listing.key(Rules((1, 1, 1)))


def _remove_older(target: Path, new: Path, state: str) -> None:
    """Remove the packed sets, whole and parts, of earlier states of a source.

    Sets of the present state stay, with any number of images and any rules. A run that has opened a
    removed set can read it until it ends.
    """
    names = re.compile(rf"{re.escape(target.name)}(-first)?(-\d+)?-[0-9a-f]{{20}}\.json")
    for sidecar in [one for one in new.parent.glob("*.json") if names.fullmatch(one.name)]:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            known = json.loads(sidecar.read_text())
            if sidecar.stem != new.stem and known.get("listing") != state:
                whole = sidecar.with_suffix(".npy")
                print(
                    f"removed {whole}, {known.get('bytes', 0) / 2**30:.1f} GiB packed before "
                    f"{known.get('source')} changed",
                    file=sys.stderr,
                )
                whole.unlink(missing_ok=True)
                sidecar.unlink()


def _pack(
    listing: Listing,
    rules: Rules,
    whole: Path,
    about: dict[str, Any],
    skip_damaged: bool,
    workers: int,
) -> None:
    """Decode all images into a part and rename it to the whole set; a failure removes the part.

    Raises:
        DamagedError: images are damaged, and may not be skipped
    """
    unfinished = part.create(whole, (listing.count, *rules.shape))
    try:
        damaged = _decode(listing, rules, unfinished, skip_damaged, workers)
        by_image = listing.rows is None or listing.groups is not None  # not batch by batch
        can_skip = skip_damaged and by_image and len(damaged) < listing.count
        if damaged and not can_skip:
            raise _error(listing, damaged)
        kept = np.delete(np.arange(listing.count), [one.row for one in damaged])
        pixels = subset.take(map_npy(unfinished), kept)
        sidecar = {"count": len(pixels), "shape": pixels.shape[1:], **about}
        sidecar |= {"fingerprint": fingerprint.of_pixels(pixels), "damaged": damaged}
        part.finish(unfinished, whole, pixels, sidecar)
    finally:
        unfinished.unlink(missing_ok=True)


def _decode(
    listing: Listing, rules: Rules, target: Path, skip_damaged: bool, workers: int
) -> list[Damaged]:
    """Decode all images into a part; without `skip_damaged`, stop at 20 damaged ones."""
    tasks, damaged = listing.tasks(), []
    few = listing.rows is None and len(tasks) <= _FEW
    offset = len(part.npy_header((listing.count, *rules.shape)))
    setup = {"target": str(target), "offset": offset, **rules._asdict()}
    run = run_here(tasks, setup) if few else run_workers(tasks, setup, workers or cores())
    label = f"packing {target.stem.rsplit('-', 1)[0]}"
    with contextlib.closing(run), Progress(listing.count, label, unit="image") as bar:
        for task, found in run:
            damaged += [Damaged(*one) for one in found]
            bar.update(task["count"])
            if not skip_damaged and len(damaged) >= _PATIENCE:
                break
    return sorted(damaged)


def _read_sidecar(whole: Path) -> dict[str, Any]:
    return json.loads(whole.with_suffix(".json").read_text())


def _is_whole(whole: Path) -> bool:
    """Return whether a packed file and its sidecar exist and agree."""
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
    """Hold a lock that one process at a time can have, of all that share the cache folder."""
    import fcntl

    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process, which packs {path.stem}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
