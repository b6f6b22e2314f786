"""Sections of a report: what a page shows of each run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval import plots
from eval.discovery import Found
from eval.errors import ResultError
from eval.metrics import read_metrics
from eval.pictures import pictures
from eval.results import Result
from eval.scores import bits_per_dim
from eval.tables import number


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


def gather(found: Sequence[Found]) -> tuple[list[Found], list[dict[str, Any]], list[str]]:
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
