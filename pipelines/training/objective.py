"""Training objective, computed from the terms of the bound.

The bound of an image is distortion + rate, in nats, and every log and result reports it. Training
may minimize a surrogate that keeps the latents from collapsing early:

    surrogate = distortion + sum over levels of  weight_l * floor(rate_l)  + auxiliary

`weight_l` is the KL warm-up, `floor` the free bits, and `auxiliary` a loss of the encoder that no
score contains, such as a commitment loss. All functions are pure: their results depend on the step
and not on earlier steps, so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eval import Terms


def level_rates(terms: Terms) -> Tensor:
    """Return the rate of every latent level, top level first.

    Returns:
        (L, B) nats. A model whose terms have no levels counts as one level, its whole rate.

    >>> kl = (torch.ones(2, 3), torch.ones(2, 5))
    >>> level_rates(Terms(torch.zeros(2), torch.full((2,), 8.0), torch.zeros(2), kl)).tolist()
    [[3.0, 3.0], [5.0, 5.0]]
    """
    if not terms.kl:
        return terms.rate[None]
    return torch.stack([kl.flatten(1).sum(1) for kl in terms.kl])


def kl_weights(step: int, levels: int, warmup: int = 0, warmup_top: int = 0) -> tuple[float, ...]:
    """Return the weight of each level's rate at a step, top level first: a linear KL warm-up.

    The weight of every level is min(1, (step + 1) / warmup). The top of several levels is slower:
    its weight is also multiplied by min(1, (step + 1) / warmup_top). The ramp starts at step + 1,
    since with a weight of exactly zero nothing limits the posterior's scale, which may overflow.

    Source: the code of "PixelVAE: A Latent Variable Model for Natural Images", Gulrajani, Kumar,
    Ahmed, Taiga, Visin, Vazquez, Courville, 2016, https://arxiv.org/abs/1611.05013

    Args:
        step: optimizer steps done so far.
        levels: number of latent levels.
        warmup: steps until the weight is one; 0 for no warm-up.
        warmup_top: the same, for the factor of the top level.

    >>> kl_weights(0, 1, warmup=10)
    (0.1,)
    >>> kl_weights(4, 2, warmup=10, warmup_top=100)
    (0.025, 0.5)
    >>> kl_weights(500, 2, warmup=10, warmup_top=100)
    (1.0, 1.0)
    """
    common = ramp(step, warmup)
    top = common * ramp(step, warmup_top) if levels > 1 else common
    return (top,) + (common,) * (levels - 1)


def ramp(step: int, length: int) -> float:
    """Return min(1, (step + 1) / length), or one if the length is 0."""
    return min(1.0, (step + 1) / length) if length > 0 else 1.0


def surrogate(
    terms: Terms,
    weights: Sequence[float],
    *,
    free_bits: float = 0.0,
    mean_rates: Tensor | None = None,
) -> Tensor:
    """Return the loss of each example; its mean over the batch is the training objective.

    With free bits, a level whose mean rate over the batch is below `free_bits` nats costs that much
    and has no gradient: the objective has max(free_bits, mean of rate_l) in place of the mean. The
    mean is over the *whole* batch, which a micro-batch can't compute, so it is an argument. The
    micro-batches' gradients then add up to exactly the gradient of the whole batch.

    Source: "Improving Variational Inference with Inverse Autoregressive Flow", Kingma, Salimans,
    Jozefowicz, Chen, Sutskever, Welling, 2016, https://arxiv.org/abs/1606.04934

    Args:
        terms: of a batch or a micro-batch.
        weights: one per level, from `kl_weights`.
        free_bits: nats per level that are free to use.
        mean_rates: (L,) nats, the mean rate of each level over the whole batch; needed only with
            free bits.

    Returns:
        (B,) nats.

    >>> terms = Terms(torch.tensor([5.0, 7.0]), torch.tensor([1.0, 3.0]), torch.zeros(2))
    >>> surrogate(terms, (0.5,)).tolist()
    [5.5, 8.5]
    >>> surrogate(terms, (1.0,), free_bits=4.0, mean_rates=torch.tensor([2.0])).tolist()
    [9.0, 11.0]
    >>> surrogate(terms._replace(auxiliary=torch.ones(2)), (0.5,)).tolist()
    [6.5, 9.5]
    """
    rates = level_rates(terms)
    if len(weights) != len(rates):
        raise ValueError(f"expected one weight for each of {len(rates)} levels, got {len(weights)}")
    if free_bits > 0:
        if mean_rates is None:
            raise ValueError("free bits need the mean rate of each level over the whole batch")
        below = (mean_rates < free_bits).to(rates.device)
        rates = torch.where(below[:, None], rates.new_tensor(free_bits), rates)
    scale = rates.new_tensor(weights)
    loss = terms.distortion + (scale[:, None] * rates).sum(0)
    if terms.auxiliary is None:
        return loss
    if terms.auxiliary.shape != loss.shape:
        raise ValueError(
            f"expected the model's auxiliary loss to hold one number per image, shape "
            f"{tuple(loss.shape)}, got {tuple(terms.auxiliary.shape)}: don't average over images"
        )
    return loss + terms.auxiliary


def adjust(
    scales: Sequence[float], mean_rates: Sequence[float], target: float
) -> tuple[float, ...]:
    """Return the updated factor on each level's rate: soft free bits, after every step.

    A rate more than 5 % above the target raises the factor by 10 %, up to one; a rate below the
    target lowers it by 10 %. This steers each level to about `target` nats.

    Source: "Variational Lossy Autoencoder", Chen, Kingma, Salimans, Duan, Dhariwal, Schulman,
    Sutskever, Abbeel, 2016, appendix C, https://arxiv.org/abs/1611.02731

    >>> [round(scale, 3) for scale in adjust((0.5, 0.5, 0.5, 1.0), (9.0, 1.0, 2.05, 9.0), 2.0)]
    [0.55, 0.45, 0.5, 1.0]
    """

    def changed(scale: float, rate: float) -> float:
        if rate > 1.05 * target:
            return min(1.0, 1.1 * scale)
        return 0.9 * scale if rate < target else scale

    return tuple(changed(scale, rate) for scale, rate in zip(scales, mean_rates, strict=True))
