"""Prove that evaluation counts every image once, in full precision, whoever shares the work."""

from __future__ import annotations

import math
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eval import Terms, evaluate, evaluate_importance, importance_curve
from tests.eval.toy import batches, images, lookup, toy


def test_convolutions_are_scored_in_float32_on_gpus_too():
    """PyTorch's default for them is TF32, with 10 bits of mantissa; it comes back afterwards."""
    conv = torch.backends.cudnn.conv
    before, seen = conv.fp32_precision, []

    def model(x: Tensor, y: object) -> Terms:
        seen.append(conv.fp32_precision)
        return lookup(x, y)

    evaluate(model, batches(images(0, 1), 2), 2)
    importance_curve(model, images(0, 1), None, (1,))
    assert seen == ["ieee", "ieee"]
    assert conv.fp32_precision == before


@pytest.mark.parametrize("size", [1, 2, 3, 11])
def test_evaluation_agrees_with_hand_computation(size):
    x = images(*range(11))
    result = evaluate(lookup, batches(x, size), 11)
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
    alone = evaluate(lookup, batches(x, 2), count)
    for shared in Ranks(world).run(
        lambda rank, reduce: evaluate(lookup, batches(x, 2, rank, world), count, reduce=reduce)
    ):
        np.testing.assert_array_equal(shared.nll.values, alone.nll.values)
        assert shared.dims == alone.dims
        for own, theirs in zip(shared.kl, alone.kl, strict=True):
            np.testing.assert_allclose(own, theirs)


def test_an_image_missed_or_repeated_or_out_of_range_is_an_error():
    x = images(0, 1, 2)
    with pytest.raises(ValueError, match="image 2 was scored 0 times"):
        evaluate(lookup, [([0, 1], (x[:2], None))], 3)
    with pytest.raises(ValueError, match="image 1 was scored 2 times"):
        evaluate(lookup, [([0, 1, 1], (x, None))], 2)
    with pytest.raises(ValueError, match=r"indices must be in 0\.\.1"):
        evaluate(lookup, [([0, 1, 2], (x, None))], 2)
    with pytest.raises(ValueError, match="one index for each of 3 images, got 2"):
        evaluate(lookup, [([0, 1], (x, None))], 3)
    with pytest.raises(ValueError, match="at least one image"):
        evaluate(lookup, [], 0)


def test_non_finite_wrongly_shaped_and_half_precision_scores_are_errors():
    def terms(value: Tensor) -> Terms:
        zeros = torch.zeros(len(value))
        return Terms(value, zeros, zeros)

    batch = [([0, 1], (images(0, 1), None))]
    with pytest.raises(ValueError, match="image 1 scored"):
        evaluate(lambda x, y: terms(torch.tensor([1.0, math.nan])), batch, 2)
    with pytest.raises(ValueError, match="one number per image"):
        evaluate(lambda x, y: terms(torch.zeros(2, 3)), batch, 2)
    with pytest.raises(ValueError, match="bfloat16"):
        evaluate(lambda x, y: terms(torch.zeros(2, dtype=torch.bfloat16)), batch, 2)


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
        evaluate(net, batches(images(0, 1), 2), 2)
    assert net.training
    assert not net.drop.training


def test_memory_is_that_of_a_batch_whatever_the_set():
    """Of 200 batches, what scored before is gone when the next one is made."""
    alive = weakref.WeakSet()

    def some():
        for index in range(200):
            x = images(index % 4)
            alive.add(x)
            assert len(alive) <= 2
            yield [index], (x, None)

    evaluate(toy, some(), 200)
    evaluate_importance(toy, some(), 200, (1, 10), chunk=5)


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
        scored = evaluate(noisy, batches(x, size), 5, noise=noise)
        np.testing.assert_allclose(scored.distortion.values, expected)
        for chunk in (1, 3, 8):
            curve = evaluate_importance(
                noisy, batches(x, size), 5, (1, 8), chunk=chunk, noise=noise
            )
            np.testing.assert_allclose(curve[1].values, expected + 0.035, rtol=1e-6)
