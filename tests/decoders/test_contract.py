"""Prove what every decoder promises: shapes, gradients, repeatability, and the same on a GPU."""

from __future__ import annotations

import copy

import pytest
import torch

from decoders import (
    DeconvDecoder,
    DiagonalGaussian,
    DiscretizedLogisticMixture,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
)
from decoders import scan as scans

SHAPE = (3, 5, 6)


@pytest.fixture
def decoder(any_network, cond_shape):
    """Every decoder with every conditioning, on images of 3×5×6 sub-pixels and 4 levels."""
    decoder = any_network(SHAPE, num_levels=4, cond_shape=cond_shape)
    with torch.no_grad():
        for parameter in decoder.parameters():  # the baseline without h is of zeros alone
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def test_log_prob_is_one_float32_number_for_each_image(decoder, inputs):
    x, h = inputs(decoder, 4)
    log_prob = decoder.log_prob(x, h)
    assert log_prob.shape == (4,)
    assert log_prob.dtype == torch.float32
    assert (log_prob < 0).all()
    assert torch.equal(decoder(x, h), log_prob)


def test_each_image_is_scored_by_itself(decoder, inputs):
    x, h = inputs(decoder, 4)
    alone = [decoder.log_prob(x[n : n + 1], None if h is None else h[n : n + 1]) for n in range(4)]
    torch.testing.assert_close(torch.cat(alone), decoder.log_prob(x, h))


def test_samples_are_levels(decoder, inputs):
    h = inputs(decoder, 3)[1]
    x = decoder.sample(h, num=3)
    assert x.shape == (3, *SHAPE)
    assert x.dtype == torch.uint8
    assert int(x.max()) < 4
    assert x.is_contiguous()
    assert decoder.log_prob(x, h).isfinite().all()


def test_the_number_of_samples_is_that_of_h_or_of_the_noise_or_one(decoder, inputs):
    h = inputs(decoder, 2)[1]
    assert len(decoder.sample(h)) == (1 if h is None else 2)
    assert len(decoder.sample(h, noise=torch.rand(2, *SHAPE))) == 2


def test_a_gradient_reaches_every_parameter_and_h(decoder, inputs):
    x, h = inputs(decoder, 4)
    if h is not None:
        h.requires_grad_()
    (-decoder(x, h).mean()).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    if h is not None:
        assert h.grad is not None
        assert (h.grad.flatten(1).abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GatedPixelCNN, {"color_order": "head", "embedding_dim": 3, "weight_norm": True}),
        (GatedPixelCNN, {"gated": False, "residual": False, "skip": False}),
        (GatedPixelCNN, {"likelihood": DiscretizedLogisticMixture(4, 2), "head_channels": 7}),
        (PixelCNN, {"color_order": "head", "embedding_dim": 3, "weight_norm": True}),
        (PixelCNN, {"gated": True, "residual": True, "norm": True}),
        (PixelCNN, {"likelihood": DiagonalGaussian()}),
        (PixelCNNPlusPlus, {"embedding_dim": 3, "weight_norm": True}),
        (PixelSNAIL, {"embedding_dim": 3, "weight_norm": True, "norm": True}),
        (DeconvDecoder, {"likelihood": DiscretizedLogisticMixture(4, 2)}),
        (DeconvDecoder, {"likelihood": DiagonalGaussian()}),
    ],
)
def test_a_gradient_reaches_every_parameter_of_every_option(kind, options, inputs):
    if "likelihood" not in options:
        options = {"num_levels": 4, **options}
    decoder = kind(SHAPE, cond_shape=(3,), hidden_channels=24, **options)
    (-decoder(*inputs(decoder, 4)).mean()).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_train_and_eval_are_one_without_dropout(decoder, inputs):
    x, h = inputs(decoder, 4)
    training = decoder.train().log_prob(x, h)
    evaluating = decoder.eval().log_prob(x, h)
    assert torch.equal(evaluating, decoder.log_prob(x, h))
    assert torch.equal(training, evaluating)


def test_dropout_is_for_training_alone(network, inputs):
    decoder = network(SHAPE, num_levels=4, dropout=0.5)
    x, _ = inputs(decoder, 4)
    noise = torch.rand(2, *SHAPE)
    assert not torch.equal(decoder(x), decoder(x))
    sample = decoder.sample(noise=noise)
    assert decoder.training, "sampling must leave the mode as it was"
    assert all(module.training for module in decoder.modules())
    decoder.eval()
    assert torch.equal(decoder(x), decoder(x))
    assert torch.equal(decoder.sample(noise=noise), sample)


def test_h_matters(any_network, inputs):
    for cond_shape in [(3,), (2, 2, 3)]:
        decoder = any_network(SHAPE, num_levels=4, cond_shape=cond_shape)
        x, h = inputs(decoder, 4)
        changed = h.clone()
        changed[1] += 1
        before, after = decoder.log_prob(x, h), decoder.log_prob(x, changed)
        assert (before != after).tolist() == [False, True, False, False]
        noise = torch.rand(4, *SHAPE)
        samples = decoder.sample(h, noise=noise), decoder.sample(30 * h, noise=noise)
        assert not torch.equal(*samples)


def test_a_map_reaches_the_pixels_at_its_place(network, inputs):
    """Changing the right half of a map leaves what lies far left as it was."""
    half = 48 if network.func is PixelCNNPlusPlus else 12  # its coarse scales reach far
    rows = 1 if network.func is PixelSNAIL else 4  # attention reaches all rows above
    decoder = network((1, 4, 2 * half), num_levels=4, cond_shape=(2, 4, 2 * half)).double()
    x, h = inputs(decoder, 1)
    changed = h.clone()
    changed[..., half:] += 1
    with torch.no_grad():
        moved = (decoder.params(x, h) != decoder.params(x, changed)).any(dim=1)[0]
    assert not moved[:rows, :4].any()
    assert moved[:, half:].all()


def test_its_repr_begins_with_what_it_is(decoder):
    words = " ".join(repr(decoder).split())
    assert (
        words.removeprefix(f"{type(decoder).__name__}(")
        .strip()
        .startswith(
            f"image_shape=(3, 5, 6), num_levels=4, cond_shape={decoder.cond_shape}, "
            "likelihood=Categorical(num_levels=4)"
        )
    )


def test_without_conditioning_nothing_is_built_for_it(network):
    assert not any("cond" in name for name, _ in network(SHAPE, num_levels=4).named_parameters())


def test_weights_load_into_a_new_one(decoder, any_network, cond_shape, inputs):
    other = any_network(SHAPE, num_levels=4, cond_shape=cond_shape)
    x, h = inputs(decoder, 4)
    result = other.load_state_dict(decoder.state_dict(), strict=True)
    assert not result.missing_keys
    assert torch.equal(other(x, h), decoder(x, h))
    noise = torch.rand(4, *SHAPE)
    assert torch.equal(other.sample(h, noise=noise), decoder.sample(h, noise=noise))


def test_the_state_holds_parameters_alone(decoder):
    """No masks: what a kernel may see is decided by the code, never by a checkpoint.

    What is in no file could not be loaded, and an average would copy it at each step.
    """
    assert set(decoder.state_dict()) == {name for name, _ in decoder.named_parameters()}
    assert list(decoder.buffers()) == []


def test_weight_norm_changes_how_weights_are_kept_and_not_what_they_are(network, inputs):
    torch.manual_seed(0)
    plain = network(SHAPE, num_levels=4)
    torch.manual_seed(0)
    normalized = network(SHAPE, num_levels=4, weight_norm=True)
    x, _ = inputs(plain, 4)
    torch.testing.assert_close(normalized(x), plain(x))
    weights = {name for name, value in plain.named_parameters() if value.dim() == 4}
    kept = {name.replace(".parametrizations", "") for name in normalized.state_dict()}
    assert {f"{name}.original{part}" for name in weights for part in (0, 1)} <= kept


def test_a_copy_is_equal_and_apart(decoder, inputs):
    x, h = inputs(decoder, 4)
    before = decoder(x, h)
    twin = copy.deepcopy(decoder)
    assert torch.equal(twin(x, h), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(decoder(x, h), before)


def test_a_seed_gives_the_same_samples(decoder, inputs):
    h = inputs(decoder, 3)[1]

    def draw(seed: int):
        return decoder.sample(h, num=3, generator=torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(torch.get_rng_state(), state), "a generator spares the global one"


def test_common_noise_shows_what_h_alone_changes(any_network):
    decoder = any_network(SHAPE, num_levels=4, cond_shape=(3,))
    h, noise = torch.randn(1, 3).expand(4, 3), torch.rand(1, *SHAPE).expand(4, *SHAPE)
    same = decoder.sample(h, noise=noise)
    assert torch.equal(same, same[:1].expand_as(same))
    nearly = decoder.sample(h + 1e-4 * torch.randn(4, 3), noise=noise)
    assert (nearly == same).float().mean() > 0.98


def test_low_temperature_sharpens(any_network):
    decoder = any_network(SHAPE, num_levels=4, cond_shape=(3,))
    h = torch.randn(1, 3).expand(20, 3)
    modes = decoder.sample(h, temperature=0)
    assert torch.equal(modes, modes[:1].expand_as(modes))
    with torch.no_grad():
        scores = [float(decoder(decoder.sample(h, temperature=t), h).mean()) for t in (0.1, 1, 10)]
    assert scores[0] > scores[1] > scores[2]


def test_bf16_autocast_scores_nearly_the_same_in_float32(decoder, inputs):
    x, h = inputs(decoder, 8)
    exact = decoder(x, h)
    with torch.autocast("cpu", torch.bfloat16):
        rough = decoder(x, h)
        sample = decoder.sample(h, num=8)
    assert rough.dtype == torch.float32
    per_dim = (rough - exact).abs() / x[0].numel()
    assert float(per_dim.detach().max()) < 0.01
    rough.mean().backward()
    assert sample.dtype == torch.uint8


def test_three_hundred_levels_are_int64(any_network, inputs):
    decoder = any_network((1, 3, 4), num_levels=300)
    x, _ = inputs(decoder, 2)
    assert x.dtype == decoder.dtype == torch.int64
    assert decoder(x).shape == (2,)
    assert decoder.sample(num=2).dtype == torch.int64
    known = x, torch.ones(1, 3, 4, dtype=torch.bool)
    assert torch.equal(decoder.sample(num=2, known=known), x)
    with pytest.raises(ValueError, match=r"levels 0\.\.299, got 0\.\.300"):
        decoder(torch.full_like(x, 300).index_fill(0, torch.tensor([0]), 0))
    with pytest.raises(ValueError, match=r"expected torch.int64 levels 0..299, got torch.uint8"):
        decoder(x.to(torch.uint8))


def test_continuous_images_are_floats(any_network, inputs):
    decoder = any_network(SHAPE, likelihood=DiagonalGaussian())
    x, _ = inputs(decoder, 2)
    assert decoder.num_levels is None
    assert decoder(x).shape == (2,)
    assert decoder.sample(num=2).dtype == torch.float32
    with pytest.raises(ValueError, match=r"expected floating-point values, got torch.uint8"):
        decoder(torch.zeros(2, *SHAPE, dtype=torch.uint8))


@pytest.mark.gpu
def test_a_gpu_scores_and_samples_as_the_cpu(network, colors, cond_shape, inputs):
    decoder = network(SHAPE, cond_shape=cond_shape, **colors(4)).double()
    x, h = inputs(decoder, 4)
    noise, mask = torch.rand(4, *SHAPE), torch.rand(SHAPE) < 0.3
    expected = decoder(x, h)
    sample = decoder.sample(h, noise=noise, known=(x, mask))
    decoder.cuda()
    on_gpu = None if h is None else h.cuda()
    torch.testing.assert_close(decoder(x.cuda(), on_gpu).cpu(), expected)
    drawn = decoder.sample(on_gpu, noise=noise, known=(x, mask))
    assert drawn.device.type == "cuda"
    assert torch.equal(drawn.cpu(), sample)


@pytest.mark.gpu
@torch.no_grad()
def test_a_recorded_row_draws_as_one_launched_step_by_step(network, colors, cond_shape, inputs):
    decoder = network(SHAPE, cond_shape=cond_shape, **colors(4)).eval().cuda()
    x, h = inputs(decoder, 4)
    h, noise = None if h is None else h.cuda(), torch.rand(4, *SHAPE, device="cuda")
    known = x.cuda(), (torch.rand(4, *SHAPE) < 0.3).cuda()
    expected, recorded = (
        scans.run(
            decoder.scan(h, 4),
            scans.Draw(decoder.likelihood, noise, known=known),
            SHAPE,
            4,
            torch.uint8,
            record=record,
        )
        for record in (False, True)
    )
    assert torch.equal(recorded, expected)


@pytest.mark.gpu
def test_a_row_that_cannot_be_recorded_is_drawn_all_the_same(network, inputs, monkeypatch):
    decoder = network(SHAPE, num_levels=4).cuda()
    noise = torch.rand(4, *SHAPE, device="cuda")
    expected = decoder.sample(noise=noise)
    draw = scans.Draw.__call__

    def wait(self, params, *where):
        torch.cuda.current_stream().synchronize()  # refused while a graph is recorded
        return draw(self, params, *where)

    monkeypatch.setattr(scans.Draw, "__call__", wait)
    with pytest.warns(UserWarning, match="could not be recorded as a CUDA graph"):
        assert torch.equal(decoder.sample(noise=noise), expected)
    monkeypatch.undo()
    torch.rand(4, device="cuda")
    assert torch.equal(decoder.sample(noise=noise), expected)


@pytest.mark.gpu
def test_a_gpu_scan_equals_the_whole_network(network, colors, inputs):
    decoder = network(SHAPE, **colors(4)).eval().cuda()
    x, _ = inputs(decoder, 4)
    x = x.cuda()
    with torch.no_grad():
        expected, scan = decoder.params(x), decoder.scan(None, 4)
        for row in range(5):
            scan.begin_row(row)
            for col in range(6):
                for channel in range(3):
                    step = scan.params(row, col, channel)
                    scan.push(row, col, channel, x[:, channel, row, col])
                torch.testing.assert_close(step, expected[:, :, row, col], rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_a_gpu_trains_in_mixed_precision(network, inputs):
    decoder = network(SHAPE, num_levels=4).cuda()
    x, _ = inputs(decoder, 4)
    exact = decoder(x.cuda())
    with torch.autocast("cuda", torch.bfloat16):
        rough = decoder(x.cuda())
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.01, atol=0.1)
    (-rough.mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


@pytest.mark.slow
def test_a_compiled_decoder_scores_the_same(any_network, inputs):
    decoder = any_network(SHAPE, num_levels=4, cond_shape=(3,))
    x, h = inputs(decoder, 4)
    expected = decoder(x, h)
    torch.testing.assert_close(
        torch.compile(decoder, fullgraph=True)(x, h), expected, rtol=1e-4, atol=1e-4
    )
