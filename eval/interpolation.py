"""Interpolation between codes, and the smoothness of the decoded path.

Decode a path with the same noise at every step, so that only the code changes, then measure the
images with `smoothness`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Method = Literal["lerp", "slerp"]


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.dim() < 2:
        raise ValueError(
            "both ends of a path must be codes of the same shape (B, …), "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not (a.is_floating_point() and b.is_floating_point()):
        raise TypeError(f"codes must be floating point, got {a.dtype} and {b.dtype}")


def lerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Return the point at t on the straight line from a (t = 0) to b (t = 1), shape as a.

    >>> lerp(torch.zeros(1, 2), torch.ones(1, 2), 0.25).tolist()
    [[0.25, 0.25]]
    """
    _check(a, b)
    return (1 - t) * a + t * b


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Return the point at t on the arc from a to b, taking each example's code as one vector.

    sin((1-t)Ω)/sin Ω · a + sin(tΩ)/sin Ω · b, with Ω the angle between the two (Shoemake,
    "Animating rotation with quaternion curves", 1985; used for latents by White, "Sampling
    Generative Networks", 2016, https://arxiv.org/abs/1609.04468). Draws from a high-dimensional
    Gaussian all have nearly the same norm, which a straight line would not keep.

    Raises:
        ValueError: a code is zero, or two codes point in opposite directions, so that the arc is
            undefined.

    >>> half = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    >>> [round(v, 4) for v in half[0].tolist()]
    [0.7071, 0.7071]
    """
    _check(a, b)
    u, v = a.flatten(1).cpu().double(), b.flatten(1).cpu().double()
    lengths = u.norm(dim=1) * v.norm(dim=1)
    if (lengths == 0).any():
        raise ValueError("slerp needs nonzero codes, but one is all zeros: use lerp")
    cosine = ((u * v).sum(1) / lengths).clamp(-1, 1)
    if (cosine < -1 + 1e-9).any():
        raise ValueError(
            "slerp has no unique arc between opposite codes, but a pair is opposite: use lerp"
        )
    angle = torch.acos(cosine)
    # If the angle vanishes the arc is the straight line; sin would give 0/0.
    straight = angle < 1e-6
    sine = torch.where(straight, 1.0, torch.sin(angle))
    from_a = torch.where(straight, 1 - t, torch.sin((1 - t) * angle) / sine)
    from_b = torch.where(straight, t, torch.sin(t * angle) / sine)
    return (from_a[:, None] * u + from_b[:, None] * v).view(a.shape).to(a)


def interpolate(a: Tensor, b: Tensor, steps: int, method: Method = "slerp") -> Tensor:
    """Return `steps` codes from a to b, including both: (steps, B, …).

    >>> interpolate(torch.zeros(1, 1), torch.ones(1, 1), 3, "lerp").flatten().tolist()
    [0.0, 0.5, 1.0]
    """
    if steps < 2:
        raise ValueError(f"expected a path of at least 2 steps, its ends, got steps={steps}")
    if method not in ("lerp", "slerp"):
        raise ValueError(f"method must be 'lerp' or 'slerp', got {method!r}")
    point = lerp if method == "lerp" else slerp
    between = [point(a, b, step / (steps - 1)) for step in range(1, steps - 1)]
    return torch.stack([a, *between, b])


class Smoothness(NamedTuple):
    """Changes along decoded paths, in levels per sub-pixel.

    Attributes:
        steps: (T - 1,) mean absolute change of a sub-pixel at each step.
        mean: the mean of `steps`.
        normalized: `mean` as a fraction of the largest possible change, num_levels - 1.
        largest: the largest step as a multiple of the mean: 1 is even, T - 1 is a single jump.
        detour: path length over the change from end to end: 1 if no sub-pixel turns back, None if
            both ends decode to the same image.
    """

    steps: tuple[float, ...]
    mean: float
    normalized: float
    largest: float
    detour: float | None


def smoothness(images: Tensor, num_levels: int) -> Smoothness:
    """Measure decoded paths: images (T, B, C, H, W) of integer levels, step by step along T.

    >>> ramp = torch.tensor([0, 1, 2], dtype=torch.uint8).view(3, 1, 1, 1, 1)
    >>> smoothness(ramp, num_levels=3)
    Smoothness(steps=(1.0, 1.0), mean=1.0, normalized=0.5, largest=1.0, detour=1.0)
    """
    if images.dim() != 5 or len(images) < 2 or images.dtype not in (torch.uint8, torch.int64):
        raise ValueError(
            "paths must be uint8 or int64 levels (T, B, C, H, W) with T of at least 2, "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if num_levels < 2:
        raise ValueError(f"expected at least 2 levels, got num_levels={num_levels}")
    levels = images.double()
    steps = levels.diff(dim=0).abs().flatten(1).mean(1)
    ends = float((levels[-1] - levels[0]).abs().mean())
    mean = float(steps.mean())
    return Smoothness(
        tuple(steps.tolist()),
        mean,
        mean / (num_levels - 1),
        float(steps.max()) / mean if mean else 1.0,
        float(steps.sum()) / ends if ends else None,
    )
