"""Prove that evaluation counts every image once and that its bounds are bounds.

The toy is a PixelVAE small enough to enumerate: x is one of four levels, z one of three classes,
so that log p(x) is known exactly and importance weighting can be held against it.
"""

from __future__ import annotations

import math
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eval import nll
from eval.nll import Terms

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


def test_bits_per_dim_by_hand():
    assert nll.bits_per_dim(math.log(256) * 12, 12) == pytest.approx(8)
    assert nll.bits_per_dim(2.6364, 1) == pytest.approx(3.80, abs=0.005)  # VDVAE's own conversion
    with pytest.raises(ValueError, match="dims=0"):
        nll.bits_per_dim(1.0, 0)


def test_convolutions_are_scored_in_float32_on_gpus_too():
    """PyTorch's default for them is TF32, with 10 bits of mantissa; it comes back afterwards."""
    conv = torch.backends.cudnn.conv
    before, seen = conv.fp32_precision, []

    def model(x: Tensor, y: object) -> Terms:
        seen.append(conv.fp32_precision)
        return lookup(x, y)

    nll.evaluate(model, batches(images(0, 1), 2), 2)
    nll.importance_curve(model, images(0, 1), None, (1,))
    assert seen == ["ieee", "ieee"]
    assert conv.fp32_precision == before


@pytest.mark.parametrize("size", [1, 2, 3, 11])
def test_evaluation_agrees_with_hand_computation(size):
    x = images(*range(11))
    result = nll.evaluate(lookup, batches(x, size), 11)
    values = np.arange(11) + 0.75
    np.testing.assert_allclose(result.nll.values, values)
    assert result.nll.mean == pytest.approx(values.mean())
    assert result.nll.stderr == pytest.approx(values.std(ddof=1) / math.sqrt(11))
    assert result.nll.count == 11
    assert result.rates == pytest.approx((0.05, 0.2))
    assert [len(level) for level in result.kl] == [1, 2]
    assert result.bits_per_dim == pytest.approx(values.mean() / math.log(2))
    assert result.bits_per_dim_stderr == pytest.approx(result.nll.stderr / math.log(2))


class Ranks:
    """Processes played by threads; their `reduce` waits for all and sums, as all_reduce does."""

    def __init__(self, world: int):
        self.world = world
        self.barrier = Barrier(world, timeout=20)
        self.parts: list[Tensor] = [torch.empty(0)] * world

    def run(self, task):
        with ThreadPoolExecutor(self.world) as pool:
            return list(pool.map(lambda rank: task(rank, self._reduce(rank)), range(self.world)))

    def _reduce(self, rank: int):
        def reduce(tensor: Tensor) -> Tensor:
            self.parts[rank] = tensor
            self.barrier.wait()
            total = torch.stack(self.parts).sum(0)
            self.barrier.wait()
            return total

        return reduce


@pytest.mark.parametrize(("count", "world"), [(11, 2), (11, 3), (2, 3), (1, 2)])
def test_processes_that_share_the_set_report_the_same_numbers(count, world):
    """Odd shares, and processes without any batch: nothing is padded, dropped or waited for."""
    x = images(*range(count))
    alone = nll.evaluate(lookup, batches(x, 2), count)
    for shared in Ranks(world).run(
        lambda rank, reduce: nll.evaluate(lookup, batches(x, 2, rank, world), count, reduce=reduce)
    ):
        np.testing.assert_array_equal(shared.nll.values, alone.nll.values)
        assert shared.dims == alone.dims
        for own, theirs in zip(shared.kl, alone.kl, strict=True):
            np.testing.assert_allclose(own, theirs)


def test_an_image_missed_or_repeated_or_out_of_range_is_an_error():
    x = images(0, 1, 2)
    with pytest.raises(ValueError, match="image 2 was scored 0 times"):
        nll.evaluate(lookup, [([0, 1], (x[:2], None))], 3)
    with pytest.raises(ValueError, match="image 1 was scored 2 times"):
        nll.evaluate(lookup, [([0, 1, 1], (x, None))], 2)
    with pytest.raises(ValueError, match=r"indices must lie in 0\.\.1"):
        nll.evaluate(lookup, [([0, 1, 2], (x, None))], 2)
    with pytest.raises(ValueError, match="3 images came with 2 indices"):
        nll.evaluate(lookup, [([0, 1], (x, None))], 3)
    with pytest.raises(ValueError, match="at least one image"):
        nll.evaluate(lookup, [], 0)


def test_non_finite_wrongly_shaped_and_half_precision_scores_are_errors():
    def terms(value: Tensor) -> Terms:
        zeros = torch.zeros(len(value))
        return Terms(value, zeros, zeros)

    batch = [([0, 1], (images(0, 1), None))]
    with pytest.raises(ValueError, match="image 1 scored"):
        nll.evaluate(lambda x, y: terms(torch.tensor([1.0, math.nan])), batch, 2)
    with pytest.raises(ValueError, match="one number per image"):
        nll.evaluate(lambda x, y: terms(torch.zeros(2, 3)), batch, 2)
    with pytest.raises(ValueError, match="bfloat16"):
        nll.evaluate(lambda x, y: terms(torch.zeros(2, dtype=torch.bfloat16)), batch, 2)


def test_scores_in_eval_mode_without_gradients_or_autocast_and_restores_the_modes():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.9)
            self.linear = nn.Linear(1, 1)

        def forward(self, x, y):
            assert not self.training
            assert not self.drop.training
            out = self.drop(self.linear(x.flatten(1).float()))[:, 0]
            assert not out.requires_grad
            assert out.dtype == torch.float32
            return Terms(out, torch.zeros(len(x)), torch.zeros(len(x)))

    net = Net()
    net.drop.eval()  # frozen on purpose: it must stay so
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nll.evaluate(net, batches(images(0, 1), 2), 2)
    assert net.training
    assert not net.drop.training


def test_elbo_and_importance_weighting_bracket_the_enumerated_value():
    """Averaged over many draws L_1 is the ELBO, L_K rises with K, and log p(x) is above all."""
    torch.manual_seed(0)
    x = images(*([0, 1, 2, 3] * 400))
    curve = nll.importance_curve(toy, x, None, (1, 4, 16), chunk=5)
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

        return nll.importance_curve(model, images(0, 1, 2), None, (1, 4, 24), chunk=chunk)

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
    estimate = nll.importance_weighted(model, x, y, k=50, chunk=4)
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

    nll.importance_weighted(Draws(), images(0, 1), None, k=9, chunk=4)
    assert seen == [(2, 4), (2, 4)]  # the ninth is a single one, as of any model


def test_memory_is_that_of_a_batch_whatever_the_set():
    """Of 200 batches, what scored before is gone when the next one is made."""
    alive = weakref.WeakSet()

    def some():
        for index in range(200):
            x = images(index % 4)
            alive.add(x)
            assert len(alive) <= 2
            yield [index], (x, None)

    nll.evaluate(toy, some(), 200)
    nll.evaluate_importance(toy, some(), 200, (1, 10), chunk=5)


def test_impossible_weights_stay_minus_infinity_rather_than_nan():
    def model(x: Tensor, y: object) -> Terms:
        zeros = torch.zeros(len(x))
        return Terms(zeros + math.inf, zeros, zeros)

    assert nll.importance_weighted(model, images(0), None, k=3).tolist() == [-math.inf]


def test_importance_evaluation_scores_the_set():
    torch.manual_seed(1)
    x = images(*([0, 1, 2, 3] * 50))
    scores = nll.evaluate_importance(toy, batches(x, 64), 200, (1, 10, 100), chunk=20)
    assert list(scores) == [1, 10, 100]
    assert scores[1].mean > scores[10].mean > scores[100].mean
    assert scores[100].mean == pytest.approx(-LOG_PX.mean().item(), abs=0.05)
    assert scores[100].count == 200


@pytest.mark.parametrize("ks", [(0,), (), (1, 10, 15), (10, 1), (5, 5)])
def test_a_k_that_cannot_be_is_an_error(ks):
    with pytest.raises(ValueError, match="K"):
        nll.importance_curve(toy, images(0), None, ks)


def test_a_single_image_has_no_standard_error():
    assert math.isnan(nll.Score(np.array([3.0])).stderr)


def test_noise_is_asked_for_by_image_and_draw():
    """However images are batched and weights chunked, the draws are numbered alike."""

    def noisy(x: Tensor, y: object, noise: Tensor) -> Terms:
        zeros = torch.zeros(len(x))
        return Terms(noise, zeros, zeros)

    def noise(indices, first: int, num: int) -> Tensor:
        draws = torch.arange(first, first + num) / 100
        return (torch.as_tensor(indices)[:, None] + draws).flatten()

    x = images(0, 1, 2, 3, 0)
    expected = np.arange(5.0)
    for size in (1, 2, 5):
        scored = nll.evaluate(noisy, batches(x, size), 5, noise=noise)
        np.testing.assert_allclose(scored.distortion.values, expected)
        for chunk in (1, 3, 8):
            curve = nll.evaluate_importance(
                noisy, batches(x, size), 5, (1, 8), chunk=chunk, noise=noise
            )
            np.testing.assert_allclose(curve[1].values, expected + 0.035, rtol=1e-6)
