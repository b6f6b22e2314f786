"""Measurements of a model's latents, and a verdict on posterior collapse."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

IDLE_RATE = 0.1  # nats per image; a level with less carries nothing about the image


@dataclass(frozen=True)
class Level:
    """Measurements of one latent level: its cost and its use. Rates are in nats per image.

    A deterministic code is free: it has no rate, and its mutual information is undefined.
    """

    rate: float | None
    rate_per_dimension: tuple[float, ...]
    active: tuple[bool, ...]  # per dimension
    mutual_information: float | None
    mutual_information_stderr: float | None
    mutual_information_cap: float | None

    @property
    def dims(self) -> int:
        """Size of the level's latent."""
        return len(self.active)


@dataclass(frozen=True)
class Latents:
    """Measurements of a model's latents on a set of images, in nats per image.

    >>> level = Level(0.05, (0.03, 0.02), (False, False), 0.0, 0.01, 6.9)
    >>> Latents(80.0, (level,), gain=None, gain_stderr=None, count=1000).verdict[:18]
    'Posterior collapse'
    """

    distortion: float
    levels: tuple[Level, ...]  # top first
    gain: float | None  # of an image's own code over a swapped one
    gain_stderr: float | None
    count: int  # encoded images
    scored: int | None = None  # images scored, for the distortion and the rates
    images: dict[str, str] = field(default_factory=dict)  # by part, the choice of its images

    @property
    def rate(self) -> float:
        """Total nats per image of all levels."""
        return sum(level.rate or 0.0 for level in self.levels)

    @property
    def verdict(self) -> str:
        """Sentence that says whether the decoder uses the code."""
        return verdict(self)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object for a result file, including the rate and the verdict."""
        return {**asdict(self), "rate": self.rate, "verdict": self.verdict}


def _idle(level: Level) -> bool:
    return not any(level.active) or (level.rate is not None and level.rate < IDLE_RATE)


def verdict(latents: Latents) -> str:
    """Return a sentence on posterior collapse, and one on what is undefined for the latents."""
    undefined = (
        level.rate is not None and level.mutual_information is None for level in latents.levels
    )
    if not any(undefined):
        return _use(latents)
    return (
        f"{_use(latents)} Mutual information is estimated only for Gaussian posteriors, which "
        "these latents don't have."
    )


def _use(latents: Latents) -> str:
    if not latents.levels:
        return "The model has no latent."
    active = sum(sum(level.active) for level in latents.levels)
    dims = sum(level.dims for level in latents.levels)
    free = all(level.rate is None for level in latents.levels)
    cost = "a free code" if free else f"{latents.rate:.2f} nats per image"
    used = f"{active} of {dims} dimensions active, {cost}"
    idle = [number for number, level in enumerate(latents.levels, start=1) if _idle(level)]
    if len(idle) == len(latents.levels) and free:
        return (
            f"The code is nearly the same for every image ({used}), although it is free. "
            "Train longer, or with a lower learning rate."
        )
    if len(idle) == len(latents.levels):
        return (
            f"Posterior collapse: the code carries almost nothing about the image ({used}). "
            "Try KL warm-up, free bits, or a decoder with a smaller receptive field."
        )
    if latents.gain is not None and latents.gain <= 2 * (latents.gain_stderr or 0.0):
        return (
            f"The decoder ignores the code ({used}): swapping it with another image's costs "
            f"{latents.gain:.2f} ± {latents.gain_stderr or 0.0:.2f} nats."
        )
    if idle:
        names = ", ".join(map(str, idle))
        return f"Level {names} (from the top) has collapsed. The others are used ({used})."
    gained = "" if latents.gain is None else f", {latents.gain:.2f} nats gained over another's code"
    return f"The code is used: {used}{gained}."
