"""Prove that importance-weighted estimates are bounds that rise with K to the enumerated value."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eval import Terms, evaluate_importance, importance_curve, importance_weighted
from tests.eval.toy import LIKELIHOOD, LOG_PX, POSTERIOR, PRIOR, batches, images, toy


def test_elbo_and_importance_weighting_bracket_the_enumerated_value():
    """Averaged over many draws L_1 is the ELBO, L_K rises with K, and log p(x) is above all."""
    torch.manual_seed(0)
    x = images(*([0, 1, 2, 3] * 400))
    curve = importance_curve(toy, x, None, (1, 4, 16), chunk=5)
    means = curve.view(3, 400, 4).mean(1)
    elbo = (POSTERIOR.exp() * (LIKELIHOOD.T + PRIOR - POSTERIOR)).sum(1)
    torch.testing.assert_close(means[0].float(), elbo, atol=0.02, rtol=0)
    assert (means.diff(dim=0) > 0).all()
    # An estimate's expectation is below log p(x); allow four standard errors above it.
    spread = curve[2].view(400, 4).std(0) / 20
    assert (means[2] < LOG_PX + 4 * spread).all()
    torch.testing.assert_close(means[2].float(), LOG_PX, atol=0.05, rtol=0)


def test_importance_curve_rises_for_every_image_and_does_not_depend_on_the_chunk():
    weights = torch.randn(24, 3, dtype=torch.float64) * 3

    def replay(chunk: int) -> Tensor:
        drawn = 0

        def model(x: Tensor, y: object) -> Terms:
            nonlocal drawn
            copies = len(x) // 3
            part = weights[drawn : drawn + copies].T.reshape(-1)
            drawn += copies
            return Terms(torch.zeros(len(x)), torch.zeros(len(x)), part)

        return importance_curve(model, images(0, 1, 2), None, (1, 4, 24), chunk=chunk)

    by_hand = torch.stack(
        [
            weights.mean(0),
            (weights.view(6, 4, 3).logsumexp(1) - math.log(4)).mean(0),
            weights.logsumexp(0) - math.log(24),
        ]
    )
    for chunk in (1, 5, 7, 24, 100):
        torch.testing.assert_close(replay(chunk), by_hand)
    assert (by_hand.diff(dim=0) > 0).all()


def test_chunks_bound_the_memory_and_repeat_the_annotation():
    largest = 0

    def model(x: Tensor, y: tuple[Tensor, Tensor]) -> Terms:
        nonlocal largest
        largest = max(largest, len(x))
        assert torch.equal(y[0], x.flatten(1)[:, 0].long())
        assert y[1].shape == (len(x), 2)
        return Terms(y[0].float(), torch.zeros(len(x)), torch.zeros(len(x)))

    x = images(0, 1, 2)
    y = (torch.arange(3), torch.zeros(3, 2))
    estimate = importance_weighted(model, x, y, k=50, chunk=4)
    assert largest == 12
    torch.testing.assert_close(estimate, -torch.arange(3, dtype=torch.float64))


def test_a_model_that_draws_by_itself_is_not_handed_repeated_images():
    """So it can encode an image once, however many samples are drawn of it."""
    seen = []

    class Draws:
        def __call__(self, x: Tensor, y: object) -> Terms:
            zeros = torch.zeros(len(x))
            return Terms(zeros, zeros, zeros)

        def draws(self, x: Tensor, y: object, copies: int) -> Terms:
            seen.append((len(x), copies))
            return self(x.repeat_interleave(copies, 0), y)

    importance_weighted(Draws(), images(0, 1), None, k=9, chunk=4)
    assert seen == [(2, 4), (2, 4)]  # the ninth is a single one, as of any model


def test_impossible_weights_stay_minus_infinity_rather_than_nan():
    def model(x: Tensor, y: object) -> Terms:
        zeros = torch.zeros(len(x))
        return Terms(zeros + math.inf, zeros, zeros)

    assert importance_weighted(model, images(0), None, k=3).tolist() == [-math.inf]


def test_importance_evaluation_scores_the_set():
    torch.manual_seed(1)
    x = images(*([0, 1, 2, 3] * 50))
    scores = evaluate_importance(toy, batches(x, 64), 200, (1, 10, 100), chunk=20)
    assert list(scores) == [1, 10, 100]
    assert scores[1].mean > scores[10].mean > scores[100].mean
    assert scores[100].mean == pytest.approx(-LOG_PX.mean().item(), abs=0.05)
    assert scores[100].count == 200


@pytest.mark.parametrize("ks", [(0,), (), (1, 10, 15), (10, 1), (5, 5)])
def test_a_k_that_cannot_be_is_an_error(ks):
    with pytest.raises(ValueError, match="K"):
        importance_curve(toy, images(0), None, ks)
