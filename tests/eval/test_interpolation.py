"""Prove that paths begin and end at their codes, keep their geometry, and are measured rightly."""

from __future__ import annotations

import math

import pytest
import torch

from eval.interpolation import interpolate, lerp, slerp, smoothness


@pytest.mark.parametrize("method", ["lerp", "slerp"])
@pytest.mark.parametrize("shape", [(4, 16), (2, 3, 4, 4)])
def test_a_path_starts_and_ends_at_its_codes_exactly(method, shape):
    a, b = torch.randn(shape), torch.randn(shape)
    points = interpolate(a, b, 7, method)
    assert points.shape == (7, *shape)
    assert torch.equal(points[0], a)
    assert torch.equal(points[-1], b)


def test_slerp_keeps_length_and_turns_evenly():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 32, generator=generator, dtype=torch.float64)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    points = interpolate(a, b, 9, "slerp")
    torch.testing.assert_close(points.norm(dim=2), torch.ones(9, 5, dtype=torch.float64))
    turns = torch.acos((points[1:] * points[:-1]).sum(2))
    torch.testing.assert_close(turns, turns[:1].expand(8, 5))


def test_slerp_by_hand_on_codes_of_unequal_length():
    half = slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]]), 0.5)
    torch.testing.assert_close(half, torch.tensor([[2.0, 4.0]]) * math.sqrt(0.5))


def test_slerp_of_parallel_codes_is_the_straight_line():
    a = torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(slerp(a, 3 * a, 0.25), lerp(a, 3 * a, 0.25))


def test_slerp_refuses_codes_without_an_arc():
    a = torch.tensor([[1.0, 2.0]])
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -a, 0.5)
    with pytest.raises(ValueError, match="all zeros"):
        slerp(a, torch.zeros(1, 2), 0.5)


def test_wrong_input_is_named():
    a = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        lerp(a, torch.zeros(2, 4), 0.5)
    with pytest.raises(TypeError, match="floating point"):
        lerp(a.long(), a.long(), 0.5)
    with pytest.raises(ValueError, match="steps=1"):
        interpolate(a, a, 1)
    with pytest.raises(ValueError, match="cubic"):
        interpolate(a, a, 3, "cubic")  # pyright: ignore
    with pytest.raises(ValueError, match="uint8"):
        smoothness(torch.zeros(3, 1, 1, 2, 2), 256)


def test_smoothness_by_hand():
    """One pixel climbs 0, 4, 2, 6 and another rests: 2 + 1 + 2 levels per step on average."""
    images = torch.zeros(4, 1, 1, 1, 2, dtype=torch.uint8)
    images[:, 0, 0, 0, 0] = torch.tensor([0, 4, 2, 6])
    result = smoothness(images, num_levels=9)
    assert result.steps == (2.0, 1.0, 2.0)
    assert result.mean == pytest.approx(5 / 3)
    assert result.normalized == pytest.approx(5 / 24)
    assert result.largest == pytest.approx(6 / 5)
    assert result.detour == pytest.approx(5 / 3)


def test_a_path_of_equal_pictures_does_not_divide_by_zero():
    result = smoothness(torch.full((3, 2, 1, 2, 2), 7, dtype=torch.uint8), 256)
    assert (result.mean, result.largest, result.detour) == (0.0, 1.0, None)
