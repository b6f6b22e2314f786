"""Measurements of a model's latents, and the verdict whether the posterior has collapsed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

IDLE_RATE = 0.1  # nats per image: a level that pays less says nothing about the image


@dataclass(frozen=True)
class Level:
    """One latent level: what it costs and how much of it is used. Rates in nats per image.

    A deterministic code is free: it has no rate, and no mutual information can be estimated.
    """

    rate: float | None
    rate_per_dimension: tuple[float, ...]
    active: tuple[bool, ...]  # per dimension, in the same order
    mutual_information: float | None
    mutual_information_stderr: float | None
    mutual_information_cap: float | None

    @property
    def dims(self) -> int:
        """Size of the level's latent."""
        return len(self.active)


@dataclass(frozen=True)
class Latents:
    """The latents of a model on a set of images, all in nats per image."""

    distortion: float
    levels: tuple[Level, ...]  # top first
    gain: float | None  # of the own code over a swapped one
    gain_stderr: float | None
    count: int  # of images with codes
    scored: int | None = None  # of images, for the distortion and the rates
    images: dict[str, str] = field(default_factory=dict)  # how each part's images were drawn

    @property
    def rate(self) -> float:
        """Nats per image that the latents cost together."""
        return sum(level.rate or 0.0 for level in self.levels)

    @property
    def verdict(self) -> str:
        """Say in plain words whether the code is used."""
        return verdict(self)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of a result file, the rate and the verdict written out."""
        return {**asdict(self), "rate": self.rate, "verdict": self.verdict}


def _idle(level: Level) -> bool:
    return not any(level.active) or (level.rate is not None and level.rate < IDLE_RATE)


def verdict(latents: Latents) -> str:
    """Say in plain words whether the posterior has collapsed, and what isn't defined for it."""
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
            f"The code is nearly the same for every image ({used}), though it costs nothing. "
            "Train longer, or with a lower learning rate."
        )
    if len(idle) == len(latents.levels):
        return (
            f"Posterior collapse: the code says almost nothing about the image ({used}). "
            "Try KL warm-up, free bits, or a decoder with a smaller receptive field."
        )
    if latents.gain is not None and latents.gain <= 2 * (latents.gain_stderr or 0.0):
        return (
            f"The code is there but not read ({used}): swapping it with another image's costs "
            f"{latents.gain:.2f} ± {latents.gain_stderr or 0.0:.2f} nats. The decoder ignores it."
        )
    if idle:
        names = ", ".join(map(str, idle))
        return f"Level {names} (from the top) has collapsed; the others are used ({used})."
    gained = "" if latents.gain is None else f"; the own code is worth {latents.gain:.2f} nats"
    return f"The code is used: {used}{gained}."
