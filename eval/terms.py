"""Terms of the negative log-likelihood of a batch, in nats, and the call that computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from einops import repeat
from torch import Tensor


class Terms(NamedTuple):
    """Terms of the negative log-likelihood of a batch of B images, in nats, one number per image.

    The negative log-likelihood (or its bound, the negative ELBO) is `distortion + rate`;
    the log importance weight of the drawn latent is `log_weight - distortion`.

    Attributes:
        distortion: (B,), -log p(x | h).
        rate: (B,), KL(q(z | x) || p(z)) summed over levels and dimensions; zeros without latents.
        log_weight: (B,), log p(z) - log q(z | x) at the drawn z; zeros without latents.
        kl: per latent level, top first, (B, D_level); `rate` is their sum.
        auxiliary: (B,), a loss that only training adds, such as a commitment loss; None if there is
            none. No score contains it.

    >>> terms = Terms(torch.tensor([80.0]), torch.tensor([5.0]), torch.tensor([-4.5]))
    >>> (terms.distortion + terms.rate).tolist()  # the bound
    [85.0]
    """

    distortion: Tensor
    rate: Tensor
    log_weight: Tensor
    kl: tuple[Tensor, ...] = ()
    auxiliary: Tensor | None = None


Model = Callable[..., Terms]  # (x, y), and noise=… if it is given
Batches = Iterable[tuple[Any, tuple[Tensor, Any]]]
Reduce = Callable[[Tensor], Tensor]
# (indices, first, num) -> noise for the draws first ... first + num - 1 of each image
Noise = Callable[[Any, int, int], Any]


def call(model: Model, x: Tensor, y: Any, copies: int = 1, **noise: Any) -> Terms:
    """Call the model without autocast, and check that its terms have full precision.

    Returns B numbers per term, or B * copies, image by image, each with a latent of its own.
    """
    count = len(x) * copies
    own = getattr(model, "draws", None)
    with torch.autocast(x.device.type, enabled=False):
        if copies == 1:
            terms = model(x, y, **noise)
        elif own is not None:
            terms = own(x, y, copies, **noise)
        else:
            terms = model(
                repeat(x, "n ... -> (n copy) ...", copy=copies), _repeat(y, copies), **noise
            )
    for name in ("distortion", "rate", "log_weight"):
        value = getattr(terms, name)
        if value.shape != (count,):
            raise ValueError(
                f"the model's {name} must hold one number per image, shape ({count},), "
                f"got {tuple(value.shape)}: sum over pixels or latent dimensions, not over images"
            )
        if value.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the model's {name} must be float32 or float64, got {value.dtype}: "
                "half precision flatters likelihoods, compute them in float32"
            )
    return terms


def _repeat(y: Any, times: int) -> Any:
    if isinstance(y, tuple):
        return tuple(_repeat(part, times) for part in y)
    return None if y is None else repeat(y, "n ... -> (n copy) ...", copy=times)
