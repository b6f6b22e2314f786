"""Ranking of comparable results.

A table contains results on exactly the same images: data set, variant, split, binarization, levels,
shape, number and fingerprint. Exact likelihoods, bounds and estimates are ranked together and
marked. Anything that is not a likelihood of the image alone is listed apart, without a rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import NamedTuple

from eval.discovery import Found
from eval.published import Published, published
from eval.results import RANKED_KINDS, Result, ResultError
from eval.scores import bits_per_dim

RULES = (
    "bits/dim = nats / (C·H·W·ln 2); MNIST is by convention given in nats per image.",
    "Unmarked: an exact likelihood. ≤: a bound (negative ELBO, dequantized flow, diffusion bound). "
    "≈ with K: an importance-weighted estimate, which in expectation is above the true value and "
    "falls as K rises (K=?: not given in the source).",
    "± is the standard error over the images (published rows have none). A rank counts the rows "
    "that are better by more than two joint standard errors; = marks a tie with another row.",
    "Given a label, code, map or caption, the number is not a likelihood of the image alone: no "
    "rank.",
    "Subsets, training splits and other releases of a data set have separate tables. Disputed and "
    "unverified rows have no rank.",
    "Static and dynamic binarization of MNIST are different tasks: resampling is an augmentation.",
    "Weight averaging, training on validation images and augmentation change the last digits.",
)


class Images(NamedTuple):
    """Identity of a set of images."""

    data: str
    variant: str
    split: str
    binarize: str
    levels: int
    image_shape: tuple[int, ...]
    count: int
    subset: bool
    fingerprint: str

    @property
    def dims(self) -> int:
        """Sub-pixels of an image."""
        return math.prod(self.image_shape)


@dataclass(frozen=True)
class Row:
    """Row of a table, in nats per image; None if unknown or undefined."""

    name: str
    kind: str
    nats: float
    stderr: float | None = None
    k: int | None = None
    bound: float | None = None  # of an estimate
    rate: float | None = None
    distortion: float | None = None
    parameters: int | None = None
    seconds: float | None = None
    flags: tuple[str, ...] = ()
    note: str = ""
    source: str = ""
    url: str = ""
    reference: Published | None = None
    found: Found | None = None
    ranked: bool = True
    rank: int | None = None
    tie: bool = False


@dataclass(frozen=True)
class Table:
    """Comparable rows, best first, and rows without a rank."""

    images: Images
    title: str
    ranked: tuple[Row, ...]
    apart: tuple[Row, ...]

    @property
    def unit(self) -> str:
        """Conventional unit of the data set."""
        mnist = self.images.data in ("mnist", "binarized_mnist")
        return "nats/image" if mnist else "bits/dim"


def _images(found: Found) -> Images:
    r = found.result
    # ImageNet's test labels and images are secret: everyone scores its validation set.
    split = "valid" if r.data in ("imagenet32", "imagenet64") and r.split == "test" else r.split
    key = (r.data, r.variant, split, r.binarize, r.levels, r.image_shape, r.count)
    return Images(*key, r.subset, r.fingerprint)


def _row(found: Found) -> Row:
    r = found.result
    flags = []
    given = "" if r.kind in RANKED_KINDS else r.kind
    if not given and r.condition != "none":
        given = f"given {r.condition}"
    if given:
        flags.append(given)
    if r.subset:
        flags.append(f"subset: {r.count} images")
    if r.split == "train":
        flags.append("training images")
    best = r.estimate
    return Row(
        r.name,
        "estimate" if best else r.kind,
        best.nats if best else r.value,
        _known(best.stderr if best else r.stderr),
        k=best.k if best else r.k,
        bound=r.value if best else None,
        rate=r.rate,
        distortion=r.distortion,
        parameters=r.parameters,
        seconds=r.seconds,
        flags=tuple(flags),
        note=_trained(r),
        source=f"this toolkit, {r.pipeline}, {r.date[:10]}",
        found=found,
        ranked=not given,
    )


def _trained(result: Result) -> str:
    """Return the training time and the hardware, if the result has them."""
    seconds, made = result.train_seconds, result.versions
    if not seconds:
        return ""
    threads, processes = made.get("threads", ""), made.get("processes", "1")
    on = f" on {made['device']}" if "device" in made else ""
    on += f", {processes} processes" if processes != "1" else ""
    on += f", {threads} thread{'s' if threads != '1' else ''}" if threads else ""
    on += " each" if threads and processes != "1" else ""
    return f"trained {max(seconds / 60, 0.1):.{0 if seconds >= 570 else 1}f} min{on}"


def _sized(row: Row, images: Images) -> Row:
    """Flag a result on a whole set whose number of images is known to differ."""
    for one in published():
        whole = _published_images(one)
        if images[:6] == whole[:6] and not images.subset and images.count != whole.count:
            flag = f"{images.count:,} images, but the whole set has {whole.count:,}"
            return replace(row, flags=(*row.flags, flag), ranked=False)
    return row


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _published_row(one: Published) -> Row:
    flags = []
    if one.disputed:
        flags.append("disputed")
    if one.mark == "unverified":
        flags.append("unverified")
    if one.flag:
        flags.append(one.flag)
    source = str(one.source)
    if one.mark == "quoted" and one.via:
        source += f", quoted by {' and '.join(str(via) for via in one.via)}"
    elif one.mark != "unverified":
        source += f", {one.mark}"
    return Row(
        one.model,
        one.kind,
        one.nats,
        k=one.k,
        bound=one.bound,
        rate=one.rate,
        flags=tuple(flags),
        note=one.note,
        source=source,
        url=one.source.url,
        reference=one,
        ranked=not flags,
    )


def _order(row: Row) -> tuple[float, str, str, str]:
    where = str(row.found.path) if row.found else ""
    return (row.nats, row.name, row.source, where)


def rank(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Sort rows by nats and rank them.

    A rank is one more than the number of rows that are better by more than two joint standard
    errors; `tie` says that another row is within them. So a noisy result may share the first rank
    with the best one, while an exact result between the two is clearly second.

    >>> rows = [Row("c", "exact", 9.0), Row("b", "exact", 2.0, stderr=1.0), Row("a", "exact", 1.0)]
    >>> [(row.name, row.rank, row.tie) for row in rank(rows)]
    [('a', 1, True), ('b', 1, True), ('c', 3, False)]
    """
    ordered = sorted(rows, key=_order)
    ranked = []
    for row in ordered:
        better = sum(other.nats < row.nats and not _tied(other, row) for other in ordered)
        tie = any(_tied(other, row) for other in ordered if other is not row)
        ranked.append(replace(row, rank=better + 1, tie=tie))
    return tuple(ranked)


def _tied(a: Row, b: Row) -> bool:
    joint = math.hypot(a.stderr or 0.0, b.stderr or 0.0)
    return abs(a.nats - b.nats) <= 2 * joint + 1e-9 * abs(a.nats)


def _matches(images: Images, one: Published) -> bool:
    return not images.subset and images[:7] == _published_images(one)[:7]


def _published_images(one: Published) -> Images:
    d = one.dataset
    key = (d.data, d.variant, d.split, d.binarize, d.levels, d.image_shape, d.count)
    return Images(*key, subset=False, fingerprint="")


def _title(images: Images) -> str:
    for one in published():
        if _matches(images, one):
            return one.dataset.title
    size = "×".join(str(side) for side in images.image_shape)
    parts = [images.data, images.variant, f"{images.split} split", size, f"{images.levels} levels"]
    if images.binarize != "none":
        parts.append(f"binarized by {images.binarize}")
    parts.append(f"{images.count:,} images")
    return ", ".join(part for part in parts if part)


def tables(
    found: Sequence[Found], *, data: str = "", literature: Sequence[Published] | None = None
) -> list[Table]:
    """Sort results and published numbers into tables of comparable rows.

    Args:
        found: results, from `eval.discovery.discover`.
        data: data set to show; `mnist` includes its static binarization. By default the data sets
            of `found`, or all published ones if `found` is empty.
        literature: published rows; all of `published.json` by default.

    Raises:
        ResultError: no result is on that data set.
    """
    literature = published() if literature is None else literature
    groups: dict[Images, list[Row]] = {}
    for one in found:
        groups.setdefault(_images(one), []).append(_sized(_row(one), _images(one)))
    wanted = {data} if data else {images.data for images in groups}
    wanted |= {f"binarized_{name}" for name in wanted}
    covered = set()
    for images, rows in groups.items():
        for one in literature:
            if _matches(images, one):
                rows.append(_published_row(one))
                covered.add(_published_images(one))
    for one in literature:
        images = _published_images(one)
        if images not in covered and (one.dataset.data in wanted or not (data or found)):
            groups.setdefault(images, []).append(_published_row(one))
    chosen = [images for images in groups if not data or images.data in wanted]
    if not chosen:
        known = {images.data for images in groups} | {one.dataset.data for one in literature}
        listed = ", ".join(sorted(known)) or "none"
        close = get_close_matches(data, sorted(known), n=1)
        cure = f"did you mean {close[0]}? There are" if close else "there are"
        raise ResultError(f"there is no result on the data set {data!r}: {cure} {listed}")
    return [_table(images, groups[images]) for images in sorted(chosen)]


def _table(images: Images, rows: Sequence[Row]) -> Table:
    ranked = rank([row for row in rows if row.ranked])
    apart = sorted((row for row in rows if not row.ranked), key=_order)
    return Table(images, _title(images), ranked, tuple(apart))


def in_unit(nats: float, unit: str, images: Images) -> float:
    """Convert nats per image to the unit of a table."""
    return nats if unit == "nats/image" else bits_per_dim(nats, images.dims)
