"""Sample quality without a likelihood: a Fréchet distance, and a search for memorized images.

Features come as arrays from a network of the user's choice. The distance is FID only if they are
Inception's, so it is not called FID here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


def _features(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(
            f"{name} must be (N, D) features of at least two images, got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinities")
    return array


def frechet_distance(a: Any, b: Any) -> float:
    """Return the squared Fréchet distance between Gaussians fitted to two sets of features.

    |μa - μb|² + tr(Σa + Σb - 2 (Σa Σb)^½), Σ with N - 1 in the denominator (Dowson and Landau,
    "The Fréchet distance between multivariate normal distributions", 1982). It shrinks as the
    sets grow: compare only numbers from sets of the same size and the same feature network.

    Args:
        a: (N, D) features.
        b: (M, D) features of the same network.

    >>> frechet_distance([[0.0], [2.0]], [[3.0], [5.0]])
    9.0
    """
    a, b = _features(a, "the first features"), _features(b, "the second features")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"expected features of the same size, got {a.shape[1]} and {b.shape[1]}")
    gap = a.mean(0) - b.mean(0)
    root = _root(_covariance(a))
    # (Σa Σb)^½ and the symmetric (Σa^½ Σb Σa^½)^½ have the same trace.
    cross = np.linalg.eigvalsh(root @ _covariance(b) @ root)
    shared = np.sqrt(np.clip(cross, 0, None)).sum()
    distance = gap @ gap + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum() - 2 * shared
    return max(0.0, float(distance))


def _covariance(features: np.ndarray) -> np.ndarray:
    centered = features - features.mean(0)
    return centered.T @ centered / (len(features) - 1)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


class Neighbors(NamedTuple):
    """Nearest training images of each sample.

    Attributes:
        index: (N, k) positions in the training set, nearest first.
        distance: (N, k) root mean squared difference per sub-pixel, in levels; 0 for a copy.
    """

    index: np.ndarray
    distance: np.ndarray


def nearest_neighbors(samples: Any, train: Any, k: int = 1, *, chunk: int = 4096) -> Neighbors:
    """Find each sample's nearest training images, to tell whether it is a copy of one.

    Compare the distances with those of test images: samples that are closer to the training set
    than unseen images are memorized.

    Args:
        samples: (N, C, H, W) uint8 levels.
        train: (M, C, H, W) uint8 levels, in memory or memory-mapped.
        k: number of neighbors.
        chunk: number of training images converted to floats at once.

    >>> found = nearest_neighbors(np.full((1, 1, 1, 2), 3, np.uint8), np.zeros((2, 1, 1, 2)))
    >>> found.index.tolist(), found.distance.tolist()
    ([[0]], [[3.0]])
    """
    samples = np.asarray(samples)
    if samples.shape[1:] != train.shape[1:] or len(samples) == 0:
        raise ValueError(
            "expected at least one sample, of the training images' shape "
            f"{list(train.shape[1:])}, got {len(samples)} of shape {list(samples.shape[1:])}"
        )
    if not 1 <= k <= len(train):
        raise ValueError(f"k must be in 1..{len(train)}, the size of the training set, got {k}")
    # Levels are integers, so float64 sums of their squares and products are exact.
    flat = samples.reshape(len(samples), -1).astype(np.float64)
    squares = (flat**2).sum(1)[:, None]
    index = np.zeros((len(flat), 0), dtype=np.int64)
    distance = np.zeros((len(flat), 0))
    for start in range(0, len(train), chunk):
        part = np.asarray(train[start : start + chunk]).reshape(-1, flat.shape[1])
        part = part.astype(np.float64)
        gaps = squares - 2 * flat @ part.T + (part**2).sum(1)
        places = np.broadcast_to(np.arange(start, start + len(part)), gaps.shape)
        distance, index = np.hstack([distance, gaps]), np.hstack([index, places])
        best = np.argsort(distance, axis=1, kind="stable")[:, :k]
        distance = np.take_along_axis(distance, best, 1)
        index = np.take_along_axis(index, best, 1)
    return Neighbors(index, np.sqrt(distance / flat.shape[1]))
