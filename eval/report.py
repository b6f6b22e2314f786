"""One self-contained HTML page about runs: `python -m eval.report RUNS… --out report.html`.

The leaderboard, and per run its curves, pictures, rate and distortion, importance-weighted bound,
latents, configuration, environment and command. Nothing is fetched, and everything that a run
wrote is escaped.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from eval import plots
from eval.discovery import Found, check_output, discover, report_problems
from eval.errors import ResultError
from eval.leaderboard import cells, columns, emit, number
from eval.pages import page
from eval.pictures import pictures
from eval.ranking import RULES, Row, Table, in_unit, tables
from eval.results import Result
from eval.scores import bits_per_dim
from eval.text import exit_code


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
        ResultError: the file, or another line, can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error
    records = []
    for place, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
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


def _importance(result: Result) -> str:
    """Draw `estimates`, a list of {"k", "nats", "stderr"} in the file, where there are several."""
    points = result.extra.get("estimates")
    if not points or len(points) < 2:
        return ""
    rows = [(int(p["k"]), float(p["nats"]), float(p["stderr"] or 0.0)) for p in points]
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


def _probes(result: Result) -> list[dict[str, str]]:
    """Return a line per classifier that read labels off the codes."""
    return [
        {
            "features": str(probe["features"]),
            "dims": str(probe["dims"]),
            "classifier": str(probe["classifier"]),
            "accuracy": f"{100 * probe['accuracy']:.1f} % ± {100 * probe['stderr']:.1f}",
        }
        for probe in result.extra.get("probes") or []
    ]


def _curves(folder: Path | None) -> list[str]:
    """Draw a run's metrics against steps and seconds."""
    metrics = folder / "metrics.jsonl" if folder else None
    records = read_metrics(metrics) if metrics and metrics.is_file() else []
    figures = [plots.curves(records, across) for across in ("step", "seconds")]
    return [plots.to_svg(figure) for figure in figures if figure]


def _section(found: Found) -> dict[str, Any]:
    """Gather what the page shows of one run, but its curves and pictures."""
    result = found.result
    provenance = {
        "command": result.command,
        "date": result.date,
        "commit": result.commit or "",
        "precision": result.precision or "",
        "seed": "" if result.seed is None else str(result.seed),
        "data": f"{result.data} {result.variant}, fingerprint {result.fingerprint}",
        **{str(name): str(value) for name, value in result.versions.items()},
    }
    try:
        return {
            "name": result.name,
            "pipeline": result.pipeline,
            "facts": _facts(result),
            "latents": _latents(result),
            "probes": _probes(result),
            "importance": _importance(result),
            "provenance": provenance,
            "config": json.dumps(result.config, indent=2, ensure_ascii=False),
        }
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ResultError(
            f"{found.path} is not as a run wrote it: what it says of latents, estimates or probes "
            f"can't be shown ({type(error).__name__}: {error})"
        ) from error


def sections(found: Sequence[Found]) -> tuple[list[Found], list[dict[str, Any]], list[str]]:
    """Gather what the page shows of each run.

    Returns:
        The runs that can be shown, their sections, and one sentence for each damaged file, which
        was left out.
    """
    kept, shown, problems = [], [], []
    for one in found:
        try:
            section = _section(one)
        except ResultError as error:
            problems.append(str(error))
            continue
        try:
            section["curves"] = _curves(one.run_dir)
        except ResultError as error:
            problems.append(str(error))
            section["curves"] = []
        section["pictures"] = pictures(one.run_dir) if one.run_dir else []
        section["id"] = f"run-{len(shown) + 1}"
        kept.append(one)
        shown.append(section)
    return kept, shown, problems


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


def to_html(
    boards: Sequence[Table],
    *,
    title: str,
    runs: Sequence[Found] = (),
    shown: Sequence[dict[str, Any]] = (),
) -> str:
    """Write tables as one self-contained page, and what `sections` gathered about some runs."""
    anchors = {found.path: section["id"] for found, section in zip(runs, shown, strict=True)}
    parts = []
    for board in boards:
        lines = [_line(row, board, anchors) for row in (*board.ranked, *board.apart)]
        # Source and remarks are below the model's name; a column without content is left out.
        names = [name for name in columns(board) if name not in ("source", "remarks")]
        names = [name for name in names if any(line["texts"][name] for line in lines)]
        bars = _bars(board) if runs else ""
        parts.append({"title": board.title, "columns": names, "lines": lines, "bars": bars})
    return page("report", title=title, boards=parts, runs=shown, rules=RULES)


def report(config: Config) -> int:
    """Write the page; returns the exit code."""
    if not config.paths:
        raise ResultError("name at least one run directory or result file")
    check_output(config.out, config.paths)
    found, problems = discover(config.paths)
    runs, shown, damaged = sections(found)
    problems += damaged
    if not runs:
        raise ResultError("; ".join(problems))
    report_problems(problems)
    boards = tables(runs, literature=None if config.published else ())
    emit(to_html(boards, title=config.title, runs=runs, shown=shown), config.out)
    return 1 if problems else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prog = "python -m eval.report"
    return exit_code(lambda: report(tyro.cli(Config, prog=prog, args=argv)))


if __name__ == "__main__":
    sys.exit(main())
