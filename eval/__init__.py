"""Evaluation: exact negative log-likelihoods, bounds, latents and leaderboards.

Each name is imported on first use, so the commands on result files start without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.collapse import Latents, Level
    from eval.errors import NonFiniteScoreError, ResultError
    from eval.importance import evaluate_importance, importance_curve, importance_weighted
    from eval.interpolation import Smoothness, interpolate, lerp, slerp, smoothness
    from eval.latents import (
        MutualInformation,
        active_units,
        measure_latents,
        mutual_information,
        swap_gain,
    )
    from eval.mode import scoring
    from eval.nll import evaluate
    from eval.probes import Split, embed, embedding_figure, probe
    from eval.quality import Neighbors, frechet_distance, nearest_neighbors
    from eval.result_files import read_result, read_scores, write_result
    from eval.results import Estimate, Probe, Result
    from eval.scores import Evaluation, Score, bits_per_dim
    from eval.terms import Terms

_NAMES = {
    "collapse": ("Latents", "Level"),
    "errors": ("NonFiniteScoreError", "ResultError"),
    "importance": ("evaluate_importance", "importance_curve", "importance_weighted"),
    "interpolation": ("Smoothness", "interpolate", "lerp", "slerp", "smoothness"),
    "latents": (
        "MutualInformation",
        "active_units",
        "measure_latents",
        "mutual_information",
        "swap_gain",
    ),
    "mode": ("scoring",),
    "nll": ("evaluate",),
    "probes": ("Split", "embed", "embedding_figure", "probe"),
    "quality": ("Neighbors", "frechet_distance", "nearest_neighbors"),
    "result_files": ("read_result", "read_scores", "write_result"),
    "results": ("Estimate", "Probe", "Result"),
    "scores": ("Evaluation", "Score", "bits_per_dim"),
    "terms": ("Terms",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Estimate",
    "Evaluation",
    "Latents",
    "Level",
    "MutualInformation",
    "Neighbors",
    "NonFiniteScoreError",
    "Probe",
    "Result",
    "ResultError",
    "Score",
    "Smoothness",
    "Split",
    "Terms",
    "active_units",
    "bits_per_dim",
    "embed",
    "embedding_figure",
    "evaluate",
    "evaluate_importance",
    "frechet_distance",
    "importance_curve",
    "importance_weighted",
    "interpolate",
    "lerp",
    "measure_latents",
    "mutual_information",
    "nearest_neighbors",
    "probe",
    "read_result",
    "read_scores",
    "scoring",
    "slerp",
    "smoothness",
    "swap_gain",
    "write_result",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
