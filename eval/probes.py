"""Probes of a code: accuracies of simple classifiers, and pictures of the codes in the plane.

A code is compared with the pixels and with as many principal components of the pixels as the code
has dimensions. A code no better than PCA has learned little.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eval.results import Probe

ROUNDING = 1e-6  # smaller relative differences are float32 rounding


class Split(NamedTuple):
    """Codes (N, …), pixels (N, …) and labels (N,) of the same images, for a probe."""

    codes: np.ndarray
    pixels: np.ndarray
    labels: np.ndarray


def _flat(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array.reshape(len(array), -1)


def probe(train: Split, test: Split, *, neighbors: int = 5) -> list[Probe]:
    """Fit logistic regression and nearest neighbors on codes, pixels, and PCA of the code's size.

    Each classifier is fitted to standardized features of `train` and scored on all of `test`.
    There is no `pca` if the code is as large as the image or the training set, or if all training
    images are equal.

    >>> labels = np.arange(20) % 2
    >>> split = Split(labels[:, None] + 0.0, np.random.default_rng(0).random((20, 1, 4, 4)), labels)
    >>> found = {(p.features, p.classifier): p.accuracy for p in probe(split, split)}
    >>> found["code", "logistic regression"]
    1.0
    """
    for name, split in (("train", train), ("test", test)):
        sizes = {len(part) for part in split}
        if len(sizes) != 1:
            raise ValueError(
                f"expected as many {name} codes as pixels and labels, got {sorted(sizes)}"
            )
    if len(train.labels) < neighbors or len(np.unique(train.labels)) < 2:
        raise ValueError(
            f"expected two classes and at least {neighbors} training images, got "
            f"{len(np.unique(train.labels))} and {len(train.labels)}"
        )
    codes = _flat(train.codes), _flat(test.codes)
    pixels = _flat(train.pixels), _flat(test.pixels)
    features = {"code": codes, "pixels": pixels}
    if codes[0].shape[1] < min(pixels[0].shape) and np.ptp(pixels[0], axis=0).any():
        pca = PCA(codes[0].shape[1], random_state=0).fit(pixels[0])
        features["pca"] = pca.transform(pixels[0]), pca.transform(pixels[1])
    probes = []
    for name, (fit, score) in features.items():
        classifiers = {
            "logistic regression": LogisticRegression(max_iter=2000),
            "nearest neighbors": KNeighborsClassifier(neighbors),
        }
        for kind, classifier in classifiers.items():
            model = make_pipeline(StandardScaler(), classifier).fit(fit, train.labels)
            accuracy = float(model.score(score, test.labels))
            count = len(test.labels)
            stderr = math.sqrt(accuracy * (1 - accuracy) / count)
            probes.append(Probe(name, kind, fit.shape[1], accuracy, stderr, count))
    return probes


def embed(codes: Any, method: Literal["pca", "tsne"] = "pca", *, seed: int = 0) -> np.ndarray:
    """Project codes (N, …) to points in the plane (N, 2), one-dimensional codes to a line.

    The codes are centered and scaled as a whole, which does not change the picture. Codes that
    differ only by float32 rounding all map to the origin.

    Raises:
        ValueError: there are fewer than four codes, or some are not finite.

    >>> embed(np.eye(4), "pca").shape
    (4, 2)
    """
    flat = _flat(codes)
    if method not in ("pca", "tsne"):
        raise ValueError(f"method must be 'pca' or 'tsne', got {method!r}")
    if len(flat) < 4:
        raise ValueError(f"expected at least four codes to embed, got {len(flat)}")
    if not np.isfinite(flat).all():
        raise ValueError("expected finite codes to embed, got NaN or infinities")
    flat = _scaled(flat)
    if flat.shape[1] == 1:
        return np.hstack([flat, np.zeros_like(flat)])
    if not flat.any():
        return np.zeros((len(flat), 2))
    if method == "pca":
        return PCA(2, random_state=seed).fit_transform(flat)
    perplexity = min(30.0, (len(flat) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)


def _scaled(flat: np.ndarray) -> np.ndarray:
    """Center codes and scale the largest number to 1, or all to 0 if they are equal.

    t-SNE divides by their spread in float32, and crashes the interpreter if that is 0 or overflows.
    """
    largest = np.abs(flat).max()
    if largest == 0:
        return flat
    flat = flat / largest
    flat = flat - flat.mean(0)
    spread = np.abs(flat).max()
    return flat / spread if spread > ROUNDING else np.zeros_like(flat)


def embedding_figure(points: np.ndarray, labels: Any = None, title: str = "") -> Figure:
    """Draw points (N, 2), colored by label if there are labels; save with `.savefig(path)`.

    >>> figure = embedding_figure(np.eye(4, 2), labels=[0, 0, 1, 1], title="codes")
    >>> figure.axes[0].get_title()
    'codes'
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=6, alpha=0.7)
    else:
        shades = axes.scatter(points[:, 0], points[:, 1], s=6, c=labels, cmap="tab10", alpha=0.7)
        axes.legend(*shades.legend_elements(), title="label", fontsize="small")
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    return figure
