"""Decoded traversals: images of the codes on a path from one end to the other.

two test images, or two labels ── encoder ─> two codes ─ path ─> codes (T, N, …)
                                             noise ─ decoder ─> images (T, N, C, H, W)
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from encoders import Encoder
from encoders.base import device_of
from eval import interpolate
from eval.interpolation import Method
from pipelines.data.sets import Images, order
from pipelines.model import Model
from pipelines.runs import pictures, scoring
from pipelines.runs.scoring import move
from pipelines.runtime.progress import Progress

Level = Literal["all", "top", "bottom"]
Noise = Literal["common", "independent"]


class Ends(NamedTuple):
    """Ends of N traversals: positions in the test set, or labels; (N,) int64 each."""

    first: np.ndarray
    last: np.ndarray


class Traversal(NamedTuple):
    """N decoded traversals of T steps, integer levels.

    Attributes:
        x: (T, N, C, H, W).
        first, last: (N, C, H, W), the images whose codes are the ends; None if there are none.
    """

    x: Tensor
    first: Tensor | None = None
    last: Tensor | None = None


def image_ends(images: Images, pairs: int) -> Ends:
    """Return pairs of different images that represent a set, the same pairs every time.

    >>> from pipelines.data.sets import DataConfig, load
    >>> image_ends(load(DataConfig()).test, 3)
    Ends(first=array([ 46, 109, 350]), last=array([  9, 202,  73]))
    """
    drawn = scoring.part(images, 2 * pairs)
    mixed = drawn[order(0, 0, len(drawn))]  # a part is sorted, and so may its labels be
    return Ends(mixed[:pairs], mixed[pairs:])


def label_ends(pairs: int, num_classes: int) -> Ends:
    """Return pairs of different labels, each pair once: 0 to 1, 1 to 2, … then 0 to 2, 1 to 3, …

    >>> label_ends(4, 3)
    Ends(first=array([0, 1, 2, 0]), last=array([1, 2, 0, 2]))
    """
    number = np.arange(pairs)
    first = number % num_classes
    return Ends(first, (first + 1 + number // num_classes) % num_classes)


def default_method(model: Model) -> Method:
    """Return slerp for Gaussian latents of two or more dimensions, and lerp for other codes."""
    encoder = model.encoder
    if encoder is None or not (encoder.has_latents and encoder.gaussian_latents):
        return "lerp"
    shape = encoder.latent_shapes[0] if encoder.latent_shapes else encoder.code_shape
    return "slerp" if math.prod(shape) > 1 else "lerp"


@torch.no_grad()
def between_images(
    model: Model,
    images: Images,
    ends: Ends,
    steps: int,
    *,
    method: Method | None = None,
    level: Level = "all",
    noise: Noise = "common",
    seed: int = 0,
) -> Traversal:
    """Traverse between codes of images: the posterior means, or the codes if without latents.

    Args:
        model: a model with an encoder.
        images: the set in which `ends` are positions.
        ends: the ends of each traversal.
        steps: number of codes of each traversal, both ends included.
        method: the path, or None for `default_method`.
        level: the level that changes if there are two. "top" draws the bottom one from its prior
            given the top, with the same noise at every step. "bottom" keeps the top one of the
            first image, and traverses between two draws from that prior.
        noise: "common" draws the pixels of a traversal with the same random numbers at every step,
            so that only the code changes. "independent" draws new ones.
        seed: seed of all noise.

    Raises:
        ValueError: there is no arc between two codes: see `eval.interpolation.slerp`.
    """
    encoder = _encoder(model)
    method = method or default_method(model)
    device = device_of(model)
    first, last = (_batch(images, side, device) for side in ends)
    generator = torch.Generator().manual_seed(seed)
    if level != "all":
        h = _one_level(encoder, first, last, steps, method, level, generator)
    elif model.has_latents:
        means = ([level.mean for level in encoder.posterior(*side)] for side in (first, last))
        levels = [interpolate(a, b, steps, method) for a, b in zip(*means, strict=True)]
        h = torch.stack([encoder.to_h(tuple(z[step] for z in levels)) for step in range(steps)])
    else:
        h = interpolate(encoder(*first).h, encoder(*last).h, steps, method)
    x = decode(model, h, noise, generator)
    return Traversal(x, first[0].cpu(), None if level == "bottom" else last[0].cpu())


@torch.no_grad()
def between_labels(
    model: Model,
    ends: Ends,
    steps: int,
    *,
    method: Method | None = None,
    noise: Noise = "common",
    seed: int = 0,
) -> Traversal:
    """Traverse between the codes of labels, with arguments as in `between_images`."""
    encoder = _encoder(model)
    device = device_of(model)
    first, last = (encoder(None, torch.from_numpy(side).to(device)).h for side in ends)
    h = interpolate(first, last, steps, method or default_method(model))
    return Traversal(decode(model, h, noise, torch.Generator().manual_seed(seed)))


def _encoder(model: Model) -> Encoder:
    if model.encoder is None:
        raise TypeError("a model without an encoder has no codes to interpolate between")
    return model.encoder


def _batch(images: Images, indices: np.ndarray, device: torch.device) -> tuple[Tensor, Any]:
    x, y = images.batch(indices)
    return x.to(device), move(y, device)


def _one_level(
    encoder: Encoder,
    first: tuple[Tensor, Any],
    last: tuple[Tensor, Any],
    steps: int,
    method: Method,
    level: Level,
    generator: torch.Generator,
) -> Tensor:
    """Return codes h (T, N, …) of traversals in which one of two levels of latents changes."""
    top = encoder.posterior(*first)[0].mean
    if level == "top":
        other = encoder.posterior(*last)[0].mean
        state = generator.get_state()
        parts = []
        for z2 in interpolate(top, other, steps, method):
            generator.set_state(state)
            parts.append(encoder.to_h((z2, encoder.sample_bottom(z2, generator))))
        return torch.stack(parts)
    a, b = (encoder.sample_bottom(top, generator) for _ in range(2))
    return torch.stack([encoder.to_h((top, z1)) for z1 in interpolate(a, b, steps, method)])


@torch.no_grad()
def decode(
    model: Model, h: Tensor, noise: Noise, generator: torch.Generator, *, batch_size: int = 256
) -> Tensor:
    """Draw an image from each code (T, N, …), and return (T, N, C, H, W) on the CPU."""
    steps, pairs = h.shape[:2]
    shape = model.decoder.image_shape
    own = 1 if noise == "common" else steps
    uniforms = torch.rand((own, pairs, *shape), generator=generator).expand(steps, -1, -1, -1, -1)
    codes, uniforms = (
        rearrange(part, "step pair ... -> (step pair) ...").split(batch_size)
        for part in (h, uniforms)
    )
    with Progress(len(codes) * shape[1], "sample", unit="row") as bar:
        drawn = [
            model.decoder.sample(code, noise=part, progress=pictures.count_rows(bar)).cpu()
            for code, part in zip(codes, uniforms, strict=True)
        ]
    return rearrange(torch.cat(drawn), "(step pair) c h w -> step pair c h w", pair=pairs)


def grid(traversal: Traversal, num_levels: int) -> Tensor:
    """Return a picture (3, height, width): a row per traversal, between the images at its ends."""
    ends = [None if end is None else end[None] for end in (traversal.first, traversal.last)]
    rows = torch.cat([part for part in (ends[0], traversal.x, ends[1]) if part is not None])
    lines = rearrange(rows, "step pair c h w -> (pair step) c h w")
    return pictures.grid(lines, num_levels, len(rows))


def frames(traversal: Traversal, num_levels: int) -> list[Tensor]:
    """Return an animation of all traversals side by side, forward and back."""
    columns = math.ceil(math.sqrt(traversal.x.shape[1]))
    there = [pictures.grid(x, num_levels, columns) for x in traversal.x]
    return [*there, *there[-2::-1]]
