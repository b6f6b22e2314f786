"""A PixelVAE small enough to enumerate, for the tests of evaluation.

x is one of four levels, z one of three classes, so that log p(x) is known exactly and importance
weighting can be compared with it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from eval import Terms

PRIOR = torch.tensor([0.5, 0.3, 0.2]).log()
POSTERIOR = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3]]).log()
LIKELIHOOD = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1], [0.2, 0.1, 0.3, 0.4]]).log()
LOG_PX = torch.logsumexp(PRIOR[:, None] + LIKELIHOOD, dim=0)  # (4,) exact
KL = (POSTERIOR.exp() * (POSTERIOR - PRIOR)).sum(1)


def toy(x: Tensor, y: object) -> Terms:
    level = x.flatten(1)[:, 0].long()
    z = torch.distributions.Categorical(logits=POSTERIOR[level]).sample()
    weight = PRIOR[z] - POSTERIOR[level, z]
    kl = KL[level]
    return Terms(-LIKELIHOOD[z, level], kl, weight, (kl[:, None] / 2, kl[:, None] / 2))


def images(*levels: int) -> Tensor:
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1)


def batches(x: Tensor, size: int, rank: int = 0, world: int = 1):
    places = np.arange(len(x))[rank::world]
    return [
        (part, (x[part], None))
        for part in np.array_split(places, max(1, math.ceil(len(places) / size)))
        if len(part)
    ]


def lookup(x: Tensor, y: object) -> Terms:
    """Score level v by v + 0.5 nats of distortion and 0.25 of rate on two levels."""
    v = x.flatten(1)[:, 0].float()
    quarter = torch.full_like(v, 0.25)
    kl = (torch.full((len(v), 1), 0.05), torch.full((len(v), 2), 0.1))
    return Terms(v + 0.5, quarter, -quarter, kl)
