"""A user's own network, named on the command line, as features for `pipelines.quality`.

package.module:name ── import ──> nn.Module: floats (B, C, H, W) in [0, 1] -> (B, F)
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from pipelines.data.sets import Images, to_display
from pipelines.runs.classifier import FeatureNetwork
from pipelines.runtime.errors import UserError


class UserNetwork(FeatureNetwork):
    """Features of levels by a network that takes floats.

    Args:
        network: floats (B, C, H, W) in [0, 1] to features (B, …).
        num_levels: number of levels of a sub-pixel.

    >>> own = UserNetwork(nn.AvgPool2d(4), num_levels=17)
    >>> own.features(torch.full((2, 1, 8, 8), 16, dtype=torch.uint8)).tolist()
    [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(self, network: nn.Module, num_levels: int):
        super().__init__()
        self.network, self.num_levels = network, num_levels

    def features(self, x: Tensor) -> Tensor:
        """Return features (B, F), float32, of images (B, C, H, W) of levels."""
        return self.network(to_display(x, self.num_levels).float() / 255).flatten(1).float()


def load(name: str, images: Images) -> UserNetwork:
    """Return the network `package.module:name`: an nn.Module, or a function that returns one.

    This imports the user's module. The network does its own preprocessing.

    Raises:
        UserError: there is no such network, or its features of these images are not finite.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--features {name} can't be imported ({error}): name the folder of a classifier, or "
            "package.module:name of an nn.Module or of a function that returns one"
        ) from error
    try:
        network = found if isinstance(found, nn.Module) else found()
    except TypeError as error:
        raise UserError(f"--features {name} can't be called without arguments: {error}") from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise UserError(f"expected --features {name} to return an nn.Module, got a {kind}")
    own = UserNetwork(network, images.num_levels).eval()
    shape = tuple(images.image_shape)
    try:
        with torch.no_grad():
            features = own.features(torch.zeros(2, *shape, dtype=torch.uint8))
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        raise UserError(
            f"--features {name} does not take images of shape {shape}: {error}"
        ) from error
    if len(features) != 2 or not features.isfinite().all():
        raise UserError(
            f"expected --features {name} to give one finite vector for each image, got "
            f"{tuple(features.shape)} for two images, or values that are not finite"
        )
    return own
