"""One self-contained HTML page about runs: `python -m eval.report RUNS… --out report.html`.

The leaderboard, and per run its curves, pictures, rate and distortion, importance-weighted bound,
latents, configuration, environment and command. Nothing is fetched, and everything that a run
wrote is escaped.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import tyro

from eval import plots
from eval.discovery import Found, discover, report_problems
from eval.leaderboard import cells, columns, emit, number
from eval.nll import bits_per_dim
from eval.ranking import RULES, Row, Table, in_unit, tables
from eval.results import Result, ResultError

MEDIA = {".png": "image/png", ".gif": "image/gif"}
LARGEST_PICTURE = 8 * 2**20
FIRST_PICTURES = ("samples", "reconstructions", "interpolation")


@dataclass(frozen=True)
class Config:
    """Write one self-contained HTML page about runs."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, result files, or folders of either."""
    out: Path = Path("report.html")
    """The page to write."""
    title: str = "Report"
    """The page's title."""
    published: bool = True
    """Show the literature's results too."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl` into one record per line and split.

    A key `valid/bits_per_dim` is the `bits_per_dim` of split `valid`; plain keys are those of the
    line's own `split`, training if it names none. A last line that a killed run left unfinished
    doesn't count.

    Raises:
        ResultError: another line can't be read.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for place, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if place == len(lines):
                break
            raise ResultError(f"{path}, line {place} is not JSON") from error
        if isinstance(record, dict):
            records += _by_split(record)
    return records


def _by_split(record: dict[str, Any]) -> list[dict[str, Any]]:
    shared = {name: record[name] for name in ("step", "epoch", "seconds") if name in record}
    splits: dict[str, dict[str, Any]] = {}
    for name, value in record.items():
        split, _, rest = name.rpartition("/")
        split = split or str(record.get("split", "train"))
        splits.setdefault(split, {**shared, "split": split})[rest] = value
    return list(splits.values())


def data_uri(path: Path) -> str:
    """Return a picture as a `data:` address, to stand inside a page."""
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{MEDIA[path.suffix.lower()]};base64,{content}"


def pictures(run_dir: Path) -> list[dict[str, str]]:
    """Return the run directory's pictures, the usual ones first, each with a title and address."""
    found = [path for path in run_dir.iterdir() if path.suffix.lower() in MEDIA]
    order = {name: place for place, name in enumerate(FIRST_PICTURES)}
    found.sort(key=lambda path: (order.get(path.stem, len(order)), path.name))
    shown = []
    for path in found:
        title = path.stem.replace("_", " ").replace("-", " ")
        large = path.stat().st_size > LARGEST_PICTURE
        shown.append(
            {
                "title": f"{title} (too large to show here: {path.name})" if large else title,
                "address": "" if large else data_uri(path),
            }
        )
    return shown


def page(name: str, **content: Any) -> str:
    """Fill a page's template; whatever the content holds is escaped.

    Raises:
        ResultError: the content lacks something that the page shows.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FunctionLoader(_template)
    )
    try:
        return environment.get_template(f"{name}.html.j2").render(**content)
    except jinja2.UndefinedError as error:
        raise ResultError(f"a result lacks what the page shows: {error.message}") from error


def _template(name: str) -> str:
    return files("eval").joinpath(name).read_text(encoding="utf-8")


def _importance(result: Result) -> str:
    """Draw `estimates`, a list of {"k", "nats", "stderr"} in the file, where there are several."""
    points = result.extra.get("estimates")
    if not points or len(points) < 2:
        return ""
    try:
        rows = [(int(p["k"]), float(p["nats"]), float(p["stderr"] or 0.0)) for p in points]
    except (TypeError, KeyError, ValueError) as error:
        raise ResultError(
            f"estimates of {result.name} must list k, nats and stderr, got {str(points)[:80]}"
        ) from error
    return plots.to_svg(plots.importance(sorted(rows), result.value))


def _facts(result: Result) -> list[tuple[str, str]]:
    """Return the headline numbers of a run, as label and text."""
    dims = result.dims

    def both(nats: float, stderr: float | None = None) -> str:
        nat, bit = number(nats, "nats/image"), number(bits_per_dim(nats, dims), "bits/dim")
        if stderr is None or math.isnan(stderr):
            return f"{nat} nats/image, {bit} bits/dim"
        bits = number(bits_per_dim(stderr, dims), "bits/dim")
        return f"{nat} ± {stderr:.2f} nats/image, {bit} ± {bits} bits/dim"

    facts = [(result.kind, both(result.value, result.stderr))]
    if result.estimate:
        best = result.estimate
        facts.append((f"estimate, K = {best.k}", both(best.nats, best.stderr)))
    facts.append(("distortion", both(result.distortion)))
    if result.rate is not None:
        facts.append(("rate", both(result.rate)))
    baseline = result.baseline or {}
    if isinstance(baseline.get("value"), (int, float)):
        facts.append((f"baseline: {baseline.get('name', '')}", both(float(baseline["value"]))))
    facts.append(("images", f"{result.count:,} of the {result.split} split"))
    if result.parameters is not None:
        facts.append(("parameters", f"{result.parameters:,}"))
    if result.steps is not None:
        seconds = result.train_seconds
        took = f" in {seconds:,.0f} s" if seconds else ""
        facts.append(("training", f"{result.steps:,} steps{took}"))
    latents = result.extra.get("latents")
    if isinstance(latents, dict) and "verdict" in latents:
        facts.append(("latents", str(latents["verdict"])))
    return facts


def _latents(result: Result) -> list[dict[str, Any]]:
    """Return a line per latent level: rate, active units, mutual information with its cap."""
    latents = result.extra.get("latents")
    levels = latents.get("levels", []) if isinstance(latents, dict) else []
    lines = []
    for place, level in enumerate(levels, start=1):
        active = level.get("active", [])
        rate, information = level.get("rate"), level.get("mutual_information")
        cap = level.get("mutual_information_cap")
        lines.append(
            {
                "level": f"{place} of {len(levels)}",
                "rate": "free" if rate is None else f"{rate:.2f}",
                "active": f"{sum(active)} of {len(active)}",
                "information": ""
                if information is None
                else f"{information:.2f} (cap log N = {cap:.2f})",
            }
        )
    return lines


def _run(found: Found, place: int) -> dict[str, Any]:
    """Gather what the page shows of one run."""
    result, folder = found.result, found.run_dir
    metrics = folder / "metrics.jsonl" if folder else None
    records = read_metrics(metrics) if metrics and metrics.exists() else []
    figures = [plots.curves(records, across) for across in ("step", "seconds")]
    provenance = {
        "command": result.command,
        "date": result.date,
        "commit": result.commit or "",
        "precision": result.precision or "",
        "seed": "" if result.seed is None else str(result.seed),
        "data": f"{result.data} {result.variant}, fingerprint {result.fingerprint}",
        **{str(name): str(value) for name, value in result.versions.items()},
    }
    return {
        "id": f"run-{place}",
        "name": result.name,
        "pipeline": result.pipeline,
        "facts": _facts(result),
        "latents": _latents(result),
        "probes": result.extra.get("probes") or [],
        "curves": [plots.to_svg(figure) for figure in figures if figure],
        "importance": _importance(result),
        "pictures": pictures(folder) if folder else [],
        "provenance": provenance,
        "config": json.dumps(result.config, indent=2, ensure_ascii=False),
    }


def _bars(board: Table) -> str:
    """Draw rate and distortion of a table's own runs, where there are any with a rate."""
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
    """Gather what the page shows of one row: text to read, and numbers to sort by."""
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


def to_html(boards: Sequence[Table], *, title: str, runs: Sequence[Found] = ()) -> str:
    """Write tables, and sections about runs, as one self-contained page."""
    anchors = {found.path: f"run-{place}" for place, found in enumerate(runs, start=1)}
    shown = []
    for board in boards:
        lines = [_line(row, board, anchors) for row in (*board.ranked, *board.apart)]
        # Source and remarks stand below the model's name; a column without content is left out.
        names = [name for name in columns(board) if name not in ("source", "remarks")]
        names = [name for name in names if any(line["texts"][name] for line in lines)]
        bars = _bars(board) if runs else ""
        shown.append({"title": board.title, "columns": names, "lines": lines, "bars": bars})
    sections = [_run(found, place) for place, found in enumerate(runs, start=1)]
    return page("report", title=title, boards=shown, runs=sections, rules=RULES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    config = tyro.cli(Config, prog="python -m eval.report", args=argv)
    try:
        if not config.paths:
            raise ResultError("name at least one run directory or result file")
        found, problems = discover(config.paths)
        report_problems(problems)
        if not found:
            raise ResultError("none of the files holds a readable result")
        boards = tables(found, literature=None if config.published else ())
        emit(to_html(boards, title=config.title, runs=found), config.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
