"""Sections of a report, one for each run."""

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
    """Draw the importance-weighted estimates against K, if there are several."""
    points = [(p.k, p.nats, 0.0 if math.isnan(p.stderr) else p.stderr) for p in result.estimates]
    return plots.to_svg(plots.importance(sorted(points), result.value)) if len(points) > 1 else ""


def _facts(result: Result) -> list[tuple[str, str]]:
    """Return the main numbers of a run, as labels and texts."""
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
    if result.baseline is not None:
        name, value = result.baseline.get("name", ""), result.baseline["value"]
        facts.append((f"baseline: {name}", both(float(value))))
    facts.append(("images", f"{result.count:,} of the {result.split} split"))
    if result.parameters is not None:
        facts.append(("parameters", f"{result.parameters:,}"))
    if result.steps is not None:
        seconds = result.train_seconds
        took = f" in {seconds:,.0f} s" if seconds else ""
        facts.append(("training", f"{result.steps:,} steps{took}"))
    if result.latents is not None:
        facts.append(("latents", result.latents.verdict))
    return facts


def _latents(result: Result) -> list[dict[str, str]]:
    """Return a row per latent level: rate, active units, mutual information and its cap."""
    levels = result.latents.levels if result.latents else ()
    return [
        {
            "level": f"{place} of {len(levels)}",
            "rate": "free" if level.rate is None else f"{level.rate:.2f}",
            "active": f"{sum(level.active)} of {level.dims}",
            "information": ""
            if level.mutual_information is None
            else f"{level.mutual_information:.2f} (cap log N = {level.mutual_information_cap:.2f})",
        }
        for place, level in enumerate(levels, start=1)
    ]


def _probes(result: Result) -> list[dict[str, str]]:
    """Return a row per probe of the codes."""
    return [
        {
            "features": probe.features,
            "dims": str(probe.dims),
            "classifier": probe.classifier,
            "accuracy": f"{100 * probe.accuracy:.1f} % ± {100 * probe.stderr:.1f}",
        }
        for probe in result.probes
    ]


def _curves(folder: Path | None) -> list[str]:
    """Draw a run's metrics against steps and seconds."""
    metrics = folder / "metrics.jsonl" if folder else None
    records = read_metrics(metrics) if metrics and metrics.is_file() else []
    figures = [plots.curves(records, across) for across in ("step", "seconds")]
    return [plots.to_svg(figure) for figure in figures if figure]


def _section(found: Found) -> dict[str, Any]:
    """Return the section of a run, without its curves and pictures."""
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


def gather(found: Sequence[Found]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a section for each run.

    Returns:
        The sections, and one sentence for each damaged metrics file, whose curves are left out.
    """
    shown, problems = [], []
    for place, one in enumerate(found, start=1):
        section = _section(one)
        try:
            section["curves"] = _curves(one.run_dir)
        except ResultError as error:
            problems.append(str(error))
            section["curves"] = []
        section["pictures"] = pictures(one.run_dir) if one.run_dir else []
        section["id"] = f"run-{place}"
        shown.append(section)
    return shown, problems
