"""A small classifier of a data set's labels, whose features are used to compare images.

    uint8 levels ── ConvEncoder ── features (B, 64) ── linear ── label

Distances in these features cannot be compared with others: this is not Inception, so not an FID.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import ConvEncoder
from encoders.base import device_of
from eval import Terms
from pipelines.data.sets import Images
from pipelines.runtime.errors import CheckpointError
from pipelines.training import config_file
from pipelines.training.config import TrainConfig
from pipelines.training.fit import fit
from pipelines.training.weights import load_weights

EPOCHS, MOST_STEPS = 5, 2000  # more passes only spread the training images apart
TRAINING = TrainConfig(
    epochs=EPOCHS, learning_rate=2e-3, lr_decay="cosine", ema=0.99, weight_decay=0.01,
    checkpoint_every=0,
)  # fmt: skip


class FeatureNetwork(nn.Module):
    """A network that makes features of images."""

    def features(self, x: Tensor) -> Tensor:
        """Return features (B, F) of images (B, C, H, W) of levels."""
        raise NotImplementedError


class Classifier(FeatureNetwork):
    """p(label | image) by convolutions with strides.

    Args:
        image_shape: (C, H, W).
        num_levels: number of levels of a sub-pixel.
        num_classes: number of labels.
        num_features: features of the layer before the last.

    >>> classifier = Classifier((1, 8, 8), 17, 10, num_features=4)
    >>> classifier.features(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_levels: int,
        num_classes: int,
        num_features: int = 64,
    ):
        super().__init__()
        self.encoder = ConvEncoder(
            image_shape, num_levels=num_levels, code_shape=(num_features,), hidden_channels=24
        )
        self.last = nn.Linear(num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the layer before the last, (B, num_features), of images (B, C, H, W)."""
        return F.gelu(self.encoder(x).h)

    def logits(self, x: Tensor) -> Tensor:
        """Return unnormalized log-probabilities of the labels, (B, num_classes)."""
        return self.last(self.features(x))

    def forward(self, x: Tensor, y: Any = None) -> Terms:
        """Return -log p(y | x) in nats, as the terms that the training loop minimizes."""
        nats = F.cross_entropy(self.logits(x), y, reduction="none")
        return Terms(nats, torch.zeros_like(nats), torch.zeros_like(nats))


def train(fabric: Fabric, images: Images, folder: Path, *, seed: int = 0) -> Classifier:
    """Train a classifier on images with --condition label, and save it in a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {folder}: {error.strerror or error}") from error
    torch.manual_seed(seed)
    sizes = {
        "image_shape": list(images.image_shape),
        "num_levels": images.num_levels,
        "num_classes": images.num_classes,
    }
    steps = min(MOST_STEPS, TRAINING.total_steps(len(images)))
    config = replace(TRAINING, steps=steps, seed=seed)
    network = _build(sizes)
    fitted = fit(fabric, network, images, config, folder, label="train classifier", figure="nats")
    # Written last: a folder without it has no finished classifier.
    described = {"network": "classifier", **sizes}
    described |= {"data": images.name, "fingerprint": images.fingerprint, "steps": fitted.steps}
    config_file.write_config(folder, described)
    assert isinstance(fitted.model, Classifier)
    return fitted.model


def load(folder: Path, images: Images) -> tuple[Classifier, dict[str, Any]]:
    """Return a classifier from its folder, and the description of its training.

    Raises:
        CheckpointError: there is none, or it is for images of another shape or number of levels.
    """
    saved = config_file.read_config(folder)
    if saved.get("network") != "classifier":
        raise CheckpointError(f"{folder} has no classifier: name the folder of one")
    now = (list(images.image_shape), images.num_levels)
    if (saved["image_shape"], saved["num_levels"]) != now:
        raise CheckpointError(
            f"the classifier in {folder} is for images {saved['image_shape']} of "
            f"{saved['num_levels']} levels, these are {now[0]} of {now[1]}: name another one"
        )
    model = _build(saved)
    load_weights(folder, model)
    return model.eval(), saved


def _build(sizes: dict[str, Any]) -> Classifier:
    channels, height, width = sizes["image_shape"]
    return Classifier((channels, height, width), sizes["num_levels"], sizes["num_classes"])


@torch.no_grad()
def features(model: FeatureNetwork, x: Tensor, *, batch_size: int = 256) -> np.ndarray:
    """Return the features (N, F), on the CPU, of images (N, C, H, W)."""
    device = device_of(model)
    parts = [model.features(part.to(device)).cpu() for part in x.split(batch_size)]
    return torch.cat(parts).numpy()


@torch.no_grad()
def accuracy(model: Classifier, x: Tensor, y: Tensor, *, batch_size: int = 256) -> float:
    """Return the part of images (N, C, H, W) whose most probable label is y (N,), in 0..1."""
    device = device_of(model)
    parts = [model.logits(part.to(device)).argmax(1).cpu() for part in x.split(batch_size)]
    return float((torch.cat(parts) == y.cpu()).double().mean())
