"""Published results, each with its source."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Source:
    """Paper or repository; its string is the first author and the year."""

    title: str
    authors: str
    year: int
    url: str

    def __str__(self) -> str:
        first, *others = self.authors.split(", ")
        return f"{first}{' et al.' if others else ''} {self.year}"


@dataclass(frozen=True)
class DataSet:
    """Split of a release of a data set, as the literature scores it."""

    data: str
    variant: str
    split: str
    binarize: str
    levels: int
    image_shape: tuple[int, int, int]
    count: int
    title: str


@dataclass(frozen=True)
class Published:
    """Number from the literature.

    Attributes:
        nats: nats per image, converted if `unit` is bits/dim.
        value: number as published, in `unit`.
        kind: "exact", "bound" or "estimate"; `k` is None if the source doesn't state it.
        bound: nats per image of the bound, if one is given with the estimate.
        mark: "read" in the source or its official repository, "quoted" by `via`, or "unverified".
        disputed: whether it is doubtful that the number belongs to this data set.
        flag: any other reason not to compare it with the rest.
    """

    model: str
    dataset: DataSet
    value: float
    unit: str
    nats: float
    kind: str
    mark: str
    source: Source
    via: tuple[Source, ...] = ()
    k: int | None = None
    bound: float | None = None
    rate: float | None = None
    train: float | None = None
    disputed: bool = False
    flag: str = ""
    note: str = ""


@cache
def published() -> tuple[Published, ...]:
    """Read every published row of `published.json`.

    >>> row = next(row for row in published() if row.k == 1000)
    >>> row.model, row.value, row.bound, row.mark
    ('Gated PixelVAE without upsampling', 79.02, 79.66, 'read')
    """
    book = json.loads(files("eval").joinpath("published.json").read_text(encoding="utf-8"))
    sources = {key: Source(**source) for key, source in book["sources"].items()}
    sets = [DataSet(**{**one, "image_shape": tuple(one["image_shape"])}) for one in book["sets"]]
    return tuple(_row(record, sets, sources) for record in book["rows"])


def _row(record: dict[str, Any], sets: list[DataSet], sources: dict[str, Source]) -> Published:
    rest = dict(record)
    where = (rest.pop("data"), rest.pop("variant"), rest.pop("binarize"))
    dataset = next(one for one in sets if (one.data, one.variant, one.binarize) == where)
    scale = 1.0
    if rest["unit"] == "bits/dim":
        scale = math.prod(dataset.image_shape) * math.log(2)
    elif rest["unit"] != "nats/image":
        raise ValueError(f"published row {rest['model']!r} has the unknown unit {rest['unit']!r}")
    return Published(
        dataset=dataset,
        nats=rest["value"] * scale,
        source=sources[rest.pop("source")],
        via=tuple(sources[key] for key in rest.pop("via", ())),
        **rest,
    )
