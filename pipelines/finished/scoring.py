"""Scores of a model on a data set: every image once, spread over the processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from decoders import Decoder
from eval.nll import Evaluation, Score, Terms, bits_per_dim, evaluate, evaluate_importance
from pipelines.data.sets import Batch, Images
from pipelines.model import Model
from pipelines.training.progress import Progress

BASELINE_IMAGES = 10_000


class Scorable(Protocol):
    """What scoring asks of a set of images; `pipelines.data.sets.Images` is one."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> Batch:
        """The images of these indices, and their annotations."""
        ...


def move(y: Any, device: torch.device) -> Any:
    """An annotation, a tuple of them or none, on a device."""
    if isinstance(y, tuple):
        return tuple(move(part, device) for part in y)
    return None if y is None else y.to(device)


def batches(
    fabric: Fabric, images: Scorable, count: int, batch_size: int, label: str
) -> Iterator[tuple[np.ndarray, tuple[Tensor, Any]]]:
    """This process's share of the first `count` images, none of them padded and none dropped."""
    mine = np.arange(fabric.global_rank, count, fabric.world_size)
    with Progress(len(mine), label, unit="image", enabled=fabric.is_global_zero) as bar:
        for start in range(0, len(mine), batch_size):
            indices = mine[start : start + batch_size]
            x, y = images.batch(indices)
            yield indices, (x.to(fabric.device), move(y, fabric.device))
            bar.update(len(indices))


def reducer(fabric: Fabric) -> Any:
    """Sums a float64 CPU tensor over the processes."""
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
    images: Scorable,
    *,
    batch_size: int,
    first: int = 0,
    label: str = "score",
) -> Evaluation:
    """The exact NLL or bound of every image (or the first few), in nats, eval mode and float32.

    Latents are drawn from a fixed seed, so that a score repeats; the caller's random state is kept.
    """
    count = min(first or len(images), len(images))
    with torch.random.fork_rng():
        torch.manual_seed(1_000_003 + fabric.global_rank)
        feed = batches(fabric, images, count, batch_size, label)
        return evaluate(model, feed, count, reduce=reducer(fabric))


def estimate(
    fabric: Fabric,
    model: Model,
    images: Scorable,
    ks: Sequence[int],
    *,
    batch_size: int,
    compile: bool = False,
) -> dict[int, Score]:
    """The importance-weighted estimates of a set for each K, in nats per image.

    A pass holds at most `batch_size` (image, sample) pairs, whatever K is, and nearly all passes
    hold equally many, for the sake of a compiled decoder.
    """
    chunk = max(d for d in range(1, min(ks[-1], batch_size) + 1) if ks[-1] % d == 0)
    if compile:
        model = Model(cast(Decoder, torch.compile(model.decoder)), model.encoder).eval()
    with torch.random.fork_rng():
        torch.manual_seed(1_000_033 + fabric.global_rank)
        size = max(1, batch_size // chunk)
        feed = batches(fabric, images, len(images), size, f"estimate K={ks[-1]}")
        return evaluate_importance(
            model, feed, len(images), ks, chunk=chunk, reduce=reducer(fabric)
        )


def independent_pixels(train: Images, test: Images) -> dict[str, Any]:
    """The baseline that any decoder must beat: each sub-pixel on its own, whatever the image.

    The frequencies of each sub-pixel's levels among (at most 10,000) training images, one added to
    each count, score the test images. It is exact, and needs no network.
    """
    count = min(len(train), BASELINE_IMAGES)
    levels, dims = train.num_levels, int(np.prod(train.image_shape))
    histogram = np.ones((dims, levels))
    for start in range(0, count, 1000):
        x = train.batch(np.arange(start, min(start + 1000, count))).x.flatten(1).numpy()
        flat = np.arange(dims) * levels + x
        histogram += np.bincount(flat.ravel(), minlength=dims * levels).reshape(dims, levels)
    log_probs = np.log(histogram / histogram.sum(axis=1, keepdims=True))
    nats = 0.0
    for start in range(0, len(test), 1000):
        x = test.batch(np.arange(start, min(start + 1000, len(test)))).x.flatten(1).numpy()
        nats -= float(log_probs[np.arange(dims), x].sum())
    nats /= len(test)
    return {
        "name": f"independent pixels, frequencies of {count:,} training images",
        "value": nats,
        "bits_per_dim": bits_per_dim(nats, dims),
    }
