"""Self-contained pages: a report about tables and runs, and a comparison of two runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from PIL import Image

from eval import plots
from eval.comparison import Comparison, kinds, settings
from eval.discovery import Found
from eval.errors import ResultError
from eval.files import is_own_file, read_array
from eval.pictures import data_uri, pictures
from eval.ranking import RULES, Row, Table, in_unit
from eval.tables import cells, columns
from eval.templates import fill


def _bars(board: Table) -> str:
    """Draw rate and distortion of the runs in a table, if any has a rate."""
    rows = [row for row in (*board.ranked, *board.apart) if row.found and row.distortion]
    if not any(row.rate for row in rows):
        return ""
    parts = []
    for row in rows:
        assert row.found is not None
        levels = row.found.result.rates or ((row.rate,) if row.rate else ())
        named = {"distortion": row.distortion or 0.0}
        for place, nats in enumerate(levels, start=1):
            named["rate" if len(levels) == 1 else f"rate, level {place}"] = nats
        parts.append({k: in_unit(v, board.unit, board.images) for k, v in named.items()})
    figure = plots.rate_distortion([row.name for row in rows], parts, board.unit)
    return plots.to_svg(figure)


def _line(row: Row, board: Table, anchors: dict[Path, str]) -> dict[str, Any]:
    """Return a row of the page: texts to show, and numbers to sort by."""
    texts = dict(zip(columns(board), cells(row, board), strict=True))
    keys = {
        "rank": row.rank,
        board.unit: row.nats,
        "nats/image": row.nats,
        "bits/dim": row.nats,
        "bound": row.bound,
        "rate": row.rate,
        "parameters": row.parameters,
    }
    return {
        "texts": texts,
        "keys": {name: value for name, value in keys.items() if value is not None},
        "own": row.found is not None,
        "anchor": anchors.get(row.found.path, "") if row.found else "",
        "url": row.url,
        "flags": row.flags,
        "note": row.note,
    }


def report(
    boards: Sequence[Table],
    *,
    title: str,
    runs: Sequence[Found] = (),
    shown: Sequence[dict[str, Any]] = (),
) -> str:
    """Return a self-contained page of tables, and of some runs as `sections.gather` shows them."""
    anchors = {found.path: section["id"] for found, section in zip(runs, shown, strict=True)}
    parts = []
    for board in boards:
        lines = [_line(row, board, anchors) for row in (*board.ranked, *board.apart)]
        # Source and remarks are below the model's name; empty columns are left out.
        names = [name for name in columns(board) if name not in ("source", "remarks")]
        names = [name for name in names if any(line["texts"][name] for line in lines)]
        bars = _bars(board) if runs else ""
        parts.append({"title": board.title, "columns": names, "lines": lines, "bars": bars})
    return fill("report", title=title, boards=parts, runs=shown, rules=RULES)


def _image(run_dirs: Sequence[Path], place: int) -> str:
    """Return a scored image as a `data:` address, from the first run with `images.npy`."""
    for path in (folder / "images.npy" for folder in run_dirs):
        if not is_own_file(path):
            continue
        images = read_array(path)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ResultError(
                f"{path} must contain uint8 (N, 1 or 3, H, W), got {images.dtype} {images.shape}"
            )
        if place < len(images):
            pixels = rearrange(np.asarray(images[place]), "c h w -> h w c")
            return data_uri(
                Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
            )
    return ""


def comparison(
    compared: Comparison, run_dirs: Sequence[Path], most: int, *, show_images: bool = True
) -> str:
    """Return the comparison as a self-contained page, with both runs' pictures side by side.

    The images on which the runs differ most come from `images.npy`, uint8 (N, C, H, W) for display,
    in the order of `nll.npy`, if a run directory has it. Pass `show_images=False` if it belongs to
    another result.
    """
    image_dirs = run_dirs if show_images else ()
    values = compared.difference.values
    extremes = {
        name: [(int(p), abs(float(values[p])), _image(image_dirs, int(p))) for p in places]
        for name, places in (("A", compared.best(most)), ("B", compared.worst(most)))
    }
    shown = [{p["title"]: p["address"] for p in pictures(folder)} for folder in run_dirs]
    titles = [title for title in shown[0] if title in shown[1] and shown[0][title]]
    return fill(
        "compare",
        comparison=compared,
        warning=kinds(compared),
        wins=int((values < 0).sum()),
        settings=settings(compared),
        extremes=extremes,
        pairs=[(title, shown[0][title], shown[1].get(title, "")) for title in titles],
    )
