"""A network of the user's own, named on the command line, as features for `pipelines.quality`.

package.module:name ── import ──> nn.Module: floats (B, C, H, W) in [0, 1] -> (B, F)
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from pipelines.data.sets import Images, to_display
from pipelines.runs.classifier import FeatureNetwork
from pipelines.runtime.errors import UserError


class Foreign(FeatureNetwork):
    """The features of levels, by a network that takes floats.

    Args:
        network: floats (B, C, H, W) in [0, 1] to features (B, …).
        num_levels: of the images.

    >>> foreign = Foreign(nn.AvgPool2d(4), num_levels=17)
    >>> foreign.features(torch.full((2, 1, 8, 8), 16, dtype=torch.uint8)).tolist()
    [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(self, network: nn.Module, num_levels: int):
        super().__init__()
        self.network, self.num_levels = network, num_levels

    def features(self, x: Tensor) -> Tensor:
        """Of images (B, C, H, W) of levels: (B, F) float32."""
        return self.network(to_display(x, self.num_levels).float() / 255).flatten(1).float()


def load(name: str, images: Images) -> Foreign:
    """The network `package.module:name`: an nn.Module, or a function that makes one.

    Whatever the user's module does when it is imported or called happens here; its preprocessing
    belongs to it.

    Raises:
        UserError: there is none of that name, or it gives no finite features of such images.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--features {name} can't be imported ({error}): name the folder of a classifier, or "
            "package.module:name of an nn.Module or of a function that makes one"
        ) from error
    try:
        network = found if isinstance(found, nn.Module) else found()
    except TypeError as error:
        raise UserError(f"--features {name} can't be made without arguments: {error}") from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise UserError(f"expected --features {name} to make an nn.Module, got a {kind}")
    foreign = Foreign(network, images.num_levels).eval()
    shape = tuple(images.image_shape)
    try:
        with torch.no_grad():
            features = foreign.features(torch.zeros(2, *shape, dtype=torch.uint8))
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        raise UserError(f"--features {name} takes no images of shape {shape}: {error}") from error
    if len(features) != 2 or not features.isfinite().all():
        raise UserError(
            f"expected --features {name} to give one finite vector for each image, got "
            f"{tuple(features.shape)} for two images, or values that are not finite"
        )
    return foreign
