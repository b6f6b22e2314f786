"""Scores of a model on a data set: every image once, distributed over the processes of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from eval import Evaluation, Score, Terms, bits_per_dim, evaluate, evaluate_importance
from eval.terms import Noise
from pipelines.data import noise, subset
from pipelines.data.image_set import ImageSet
from pipelines.data.sets import Images, order
from pipelines.model import Model
from pipelines.runtime.devices import compiled
from pipelines.runtime.progress import Progress

BASELINE_IMAGES = 10_000
BOUND, ESTIMATE, CODES = range(3)  # purposes of latents, each with its own draws
_PURPOSE = int.from_bytes(b"latents", "big")
_DRAW = 2**40  # counters between two draws, more than the latents of any set


def move(y: Any, device: torch.device) -> Any:
    """Return an annotation, a tuple of them or None, on a device."""
    if isinstance(y, tuple):
        return tuple(move(part, device) for part in y)
    return None if y is None else y.to(device)


def part(images: Images, num: int) -> np.ndarray:
    """Return positions of `num` images (0: all) that represent a set, stratified by label.

    They are the same ones at every call.
    """
    return subset.draw(len(images), num, images.labels)


def describe_part(images: Images, num: int) -> str:
    """Describe the images that `part` chooses, for a result."""
    said = subset.describe(len(images), num, images.labels)
    return said or f"all {len(images):,}"


def others(count: int) -> np.ndarray:
    """Return another image for each of a set: its predecessor in one random cycle of them all.

    It is never the image itself, if there are two, and is the same one every time.

    >>> sorted(others(4).tolist()), bool((others(4) == np.arange(4)).any())
    ([0, 1, 2, 3], False)
    """
    cycle = order(0, 0, count)
    found = np.empty_like(cycle)
    found[cycle] = np.roll(cycle, 1)
    return found


def latent_noise(
    shapes: Sequence[tuple[int, ...]], purpose: int, indices: np.ndarray, first: int, num: int
) -> tuple[Tensor, ...]:
    """Return standard normal numbers for latents, a function of purpose, image, draw and level.

    Args:
        shapes: shapes of one image's latents per level.
        purpose: BOUND, ESTIMATE or CODES.
        indices: (B,) positions of the images in their set.
        first: number of the first draw.
        num: number of draws of each image.

    Returns:
        (B · num, *shape) float32 per level, image by image.
    """
    draws = np.arange(first, first + num) * _DRAW
    levels = []
    for level, shape in enumerate(shapes):
        size = math.prod(shape)
        places = np.asarray(indices).reshape(-1, 1) * size + np.arange(size)
        drawn = noise.normal((_PURPOSE, purpose, level), places[:, None] + draws[:, None])
        levels.append(torch.from_numpy(drawn).float().view(-1, *shape))
    return tuple(levels)


def batches(
    fabric: Fabric, images: ImageSet, chosen: np.ndarray, batch_size: int, label: str
) -> Iterator[tuple[np.ndarray, tuple[Tensor, Any]]]:
    """Yield this process's share of the chosen images, without padding or dropping any.

    Each batch comes with its positions in `chosen`.
    """
    mine = np.arange(fabric.global_rank, len(chosen), fabric.world_size)
    with Progress(len(mine), label, unit="image", enabled=fabric.is_global_zero) as bar:
        for start in range(0, len(mine), batch_size):
            places = mine[start : start + batch_size]
            x, y = images.batch(chosen[places])
            yield places, (x.to(fabric.device), move(y, fabric.device))
            bar.update(len(places))


def reducer(fabric: Fabric) -> Any:
    """Return a function that sums a float64 CPU tensor over the processes."""
    if fabric.world_size == 1:
        return lambda tensor: tensor

    def reduce(tensor: Tensor) -> Tensor:
        # Not every accelerator's collective takes CPU tensors.
        total = fabric.all_reduce(tensor.to(fabric.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total.cpu()

    return reduce


def score(
    fabric: Fabric,
    model: Callable[..., Terms],
    images: ImageSet,
    *,
    batch_size: int,
    chosen: np.ndarray | None = None,
    label: str = "score",
) -> Evaluation:
    """Return the NLL or bound in nats of every image, or of the chosen ones, in float32 eval mode.

    Each image's latents are drawn from its own counters, so its score depends on the model and the
    image alone, not on batches or processes. The caller's random state is kept.
    """
    chosen = np.arange(len(images)) if chosen is None else chosen
    with _fixed_seed(fabric):
        feed = batches(fabric, images, chosen, batch_size, label)
        own = _noise(model, BOUND, chosen)
        return evaluate(model, feed, len(chosen), noise=own, reduce=reducer(fabric))


def _noise(model: Any, purpose: int, chosen: np.ndarray) -> Noise | None:
    """Return the noise of a model's latents by places in `chosen`, or None without latents."""
    shapes = model.latent_shapes if isinstance(model, Model) else ()
    if not shapes:
        return None
    return lambda places, first, num: latent_noise(shapes, purpose, chosen[places], first, num)


@contextmanager
def _fixed_seed(fabric: Fabric) -> Iterator[None]:
    """Seed encoders that draw without counters: a user's own without `latent_shapes`."""
    with torch.random.fork_rng():
        torch.manual_seed(1_000_003 + fabric.global_rank)
        yield


def estimate(
    fabric: Fabric,
    model: Model,
    images: ImageSet,
    ks: Sequence[int],
    *,
    batch_size: int,
    compile: bool = False,
) -> dict[int, Score]:
    """Return the importance-weighted estimates of a set for each K, in nats per image.

    A pass has at most `batch_size` (image, sample) pairs for any K. Nearly all passes have the same
    number, so that a compiled decoder is compiled once.
    """
    chunk = max(d for d in range(1, min(ks[-1], batch_size) + 1) if ks[-1] % d == 0)
    if compile:
        model = Model(compiled(fabric, model.decoder), model.encoder).eval()
    chosen = np.arange(len(images))
    with _fixed_seed(fabric):
        size = max(1, batch_size // chunk)
        feed = batches(fabric, images, chosen, size, f"estimate K={ks[-1]}")
        own = _noise(model, ESTIMATE, chosen)
        return evaluate_importance(
            model, feed, len(images), ks, chunk=chunk, noise=own, reduce=reducer(fabric)
        )


def independent_pixels(train: Images, test: Images) -> dict[str, Any]:
    """Return the baseline that any decoder must beat: sub-pixels that are independent.

    The test images are scored by the frequencies of each sub-pixel's levels in at most 10,000
    training images, with one added to each count. The score is exact, and needs no network.
    """
    chosen = part(train, BASELINE_IMAGES)
    levels, dims = train.num_levels, int(np.prod(train.image_shape))
    histogram = np.ones((dims, levels))
    for start in range(0, len(chosen), 1000):
        x = train.batch(chosen[start : start + 1000]).x.flatten(1).numpy()
        flat = np.arange(dims) * levels + x
        histogram += np.bincount(flat.ravel(), minlength=dims * levels).reshape(dims, levels)
    log_probs = np.log(histogram / histogram.sum(axis=1, keepdims=True))
    nats = 0.0
    for start in range(0, len(test), 1000):
        x = test.batch(np.arange(start, min(start + 1000, len(test)))).x.flatten(1).numpy()
        nats -= float(log_probs[np.arange(dims), x].sum())
    nats /= len(test)
    return {
        "name": f"independent pixels, frequencies of {len(chosen):,} training images",
        "train_images": describe_part(train, BASELINE_IMAGES),
        "value": nats,
        "bits_per_dim": bits_per_dim(nats, dims),
    }
