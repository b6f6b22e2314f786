"""Every encoder keeps the same contract: shapes, types, gradients, independence, persistence."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from encoders import (
    ConvEncoder,
    Deterministic,
    Encoder,
    GaussianEncoder,
    HierarchicalEncoder,
    Joint,
    LabelEmbedding,
    MapEncoder,
    TextEncoder,
    Upsample,
    tokenize,
)
from tests.encoders.quantizer import Quantizer

SHAPE, LEVELS = (2, 9, 6), 5


class LinearPrior(nn.Module):
    """p(z1 | h): a diagonal Gaussian whose mean is linear in h."""

    def __init__(self, features: int, map_shape: tuple[int, int, int]):
        super().__init__()
        self.mean = nn.Sequential(
            nn.Flatten(), nn.Linear(features, math.prod(map_shape)), nn.Unflatten(1, map_shape)
        )
        self.log_std = nn.Parameter(torch.full(map_shape, -0.3))

    def elementwise_log_prob(self, z1: Tensor, h: Tensor) -> Tensor:
        return torch.distributions.Normal(self.mean(h), self.log_std.exp()).log_prob(z1)

    def sample(self, h: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        mean = self.mean(h)
        where = mean.device if generator is None else generator.device
        noise = torch.randn(mean.shape, generator=generator, device=where).to(mean.device)
        return mean + self.log_std.exp() * noise


class Case(NamedTuple):
    make: Callable[[], Encoder]
    annotate: Callable[[int], Any]
    code_shape: tuple[int, ...]
    given: str
    latents: tuple[tuple[int, ...], ...] = ()


def nothing(num: int) -> None:
    return None


def labels(num: int) -> Tensor:
    return torch.arange(num) % 3


def class_map(num: int) -> Tensor:
    return torch.randint(0, 4, (num, 9, 6), dtype=torch.uint8)


def keypoints(num: int) -> Tensor:
    return torch.randint(0, 2, (num, 4, 9, 6), dtype=torch.uint8)


def caption(num: int) -> Tensor:
    texts = ["a red square", "two circles, far apart", "x", "A big blue triangle below it!"]
    return torch.from_numpy(tokenize([texts[i % 4] for i in range(num)]))


def own_network(out: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), out))


CASES = {
    "conv vector": Case(
        lambda: ConvEncoder(SHAPE, num_levels=LEVELS, code_shape=(7,), hidden_channels=4),
        nothing,
        (7,),
        "code",
    ),
    "conv map": Case(
        lambda: ConvEncoder(
            SHAPE, num_levels=LEVELS, code_shape=(7, 5, 3), hidden_channels=4, embedding_dim=3
        ),
        nothing,
        (7, 5, 3),
        "code",
    ),
    "deterministic": Case(
        lambda: Deterministic(own_network(7), (7,), num_levels=LEVELS), nothing, (7,), "code"
    ),
    "gaussian": Case(
        lambda: GaussianEncoder(SHAPE, 3, num_levels=LEVELS, hidden_channels=4),
        nothing,
        (3,),
        "",
        ((3,),),
    ),
    "gaussian upsampled": Case(
        lambda: GaussianEncoder(
            SHAPE,
            3,
            num_levels=LEVELS,
            hidden_channels=4,
            embedding_dim=2,
            scale="softsign",
            upsample=Upsample((3,), (5, 9, 6), hidden_channels=8),
        ),
        nothing,
        (5, 9, 6),
        "",
        ((3,),),
    ),
    "gaussian own network": Case(
        lambda: GaussianEncoder(SHAPE, 3, num_levels=LEVELS, network=own_network(11)),
        nothing,
        (3,),
        "",
        ((3,),),
    ),
    "hierarchical": Case(
        lambda: HierarchicalEncoder(
            SHAPE,
            map_shape=(2, 5, 3),
            latent_dim=4,
            prior=LinearPrior(4, (2, 5, 3)),
            num_levels=LEVELS,
            hidden_channels=4,
        ),
        nothing,
        (2, 5, 3),
        "",
        ((4,), (2, 5, 3)),
    ),
    "hierarchical upsampled": Case(
        lambda: HierarchicalEncoder(
            SHAPE,
            map_shape=(2, 5, 3),
            latent_dim=4,
            prior=LinearPrior(6 * 5 * 3, (2, 5, 3)),
            num_levels=LEVELS,
            hidden_channels=4,
            embedding_dim=2,
            prior_upsample=Upsample((4,), (6, 5, 3), hidden_channels=8),
            upsample=Upsample((2, 5, 3), (6, 9, 6), hidden_channels=8),
        ),
        nothing,
        (6, 9, 6),
        "",
        ((4,), (2, 5, 3)),
    ),
    "vector quantizer": Case(
        lambda: Quantizer(SHAPE, num_levels=LEVELS), nothing, (3, 5, 3), "", ((3, 5, 3),)
    ),
    "label": Case(lambda: LabelEmbedding(3, 6), labels, (6,), "label"),
    "class map": Case(
        lambda: MapEncoder(4, (6, 9, 6), hidden_channels=8), class_map, (6, 9, 6), "map"
    ),
    "keypoints": Case(
        lambda: MapEncoder(4, (6, 5, 5), hidden_channels=8), keypoints, (6, 5, 5), "map"
    ),
    "text": Case(
        lambda: TextEncoder(6, embedding_dim=5, hidden_channels=8), caption, (6,), "caption"
    ),
    "vectors joined": Case(
        lambda: Joint(LabelEmbedding(3, 2), TextEncoder(3, embedding_dim=5, hidden_channels=8)),
        lambda num: (labels(num), caption(num)),
        (5,),
        "label and caption",
    ),
    "map and vectors joined": Case(
        lambda: Joint(
            MapEncoder(4, (6, 9, 6), hidden_channels=8),
            LabelEmbedding(3, 2),
            ConvEncoder(SHAPE, num_levels=LEVELS, code_shape=(1,), hidden_channels=4),
        ),
        lambda num: (class_map(num), labels(num), None),
        (9, 9, 6),
        "map and label and code",
    ),
}
LATENT = [name for name, case in CASES.items() if case.latents]
GAUSSIAN = [name for name in LATENT if name != "vector quantizer"]
GIVEN = [name for name, case in CASES.items() if not case.latents]
OF_IMAGE = {"conv vector", "conv map", "deterministic"}


def build(name: str, num: int = 7) -> tuple[Encoder, Tensor, Any, Case]:
    torch.manual_seed(0)
    case = CASES[name]
    x = torch.randint(0, LEVELS, (num, *SHAPE), dtype=torch.uint8)
    return case.make(), x, case.annotate(num), case


def moments(encoder: Encoder, x: Tensor, y: Any = None) -> tuple[Tensor, ...]:
    """Means and, of Gaussian posteriors, standard deviations."""
    both = ((one.mean, one.std) for one in encoder.posterior(x, y))
    return tuple(part for pair in both for part in pair if part is not None)


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, tuple):
        return tuple(map_tensors(part, function) for part in value)
    return function(value) if isinstance(value, Tensor) else value


@pytest.mark.parametrize("num", [1, 7])
@pytest.mark.parametrize("name", CASES)
def test_code_has_the_promised_shapes_and_types(name, num):
    encoder, x, y, case = build(name, num)
    code = encoder(x, y)
    assert encoder.code_shape == case.code_shape
    assert encoder.given == case.given
    assert encoder.has_latents == bool(case.latents)
    assert code.h.shape == (num, *case.code_shape)
    assert code.h.dtype == torch.float32
    for term in (code.rate, code.log_weight):
        assert term.shape == (num,)
        assert term.dtype == torch.float32
    assert tuple(z.shape[1:] for z in code.z) == case.latents
    if name in GAUSSIAN:
        assert tuple(kl.shape for kl in code.kl) == tuple((num, math.prod(s)) for s in case.latents)
    if case.latents:
        assert torch.allclose(code.rate, sum(kl.sum(1) for kl in code.kl), atol=1e-5)
    else:
        assert not code.rate.any()
        assert not code.log_weight.any()


@pytest.mark.parametrize("name", CASES)
def test_noise_alone_decides_the_latents(name):
    """z = mean + std · noise, level by level; several draws are as many calls."""
    encoder, x, y, case = build(name)
    assert encoder.latent_shapes == case.latents
    if not case.latents:
        return
    noise = tuple(torch.randn(2, len(x), *shape) for shape in case.latents)
    with torch.no_grad():
        codes = [encoder(x, y, noise=tuple(level[k] for level in noise)) for k in range(2)]
        for z, posterior, level in zip(codes[0].z, encoder.posterior(x), noise, strict=True):
            assert torch.allclose(z, posterior.sample(level[0]), atol=1e-6)
            if posterior.std is not None:
                assert torch.allclose(z, posterior.mean + posterior.std * level[0], atol=1e-6)
        both = tuple(level.transpose(0, 1).flatten(0, 1) for level in noise)
        drawn = encoder.draws(x, y, num=2, noise=both)
    for k, code in enumerate(codes):
        for name_, value in (("h", drawn.h), ("log_weight", drawn.log_weight)):
            assert torch.allclose(value[k::2], getattr(code, name_), atol=1e-5), name_


@pytest.mark.parametrize("name", CASES)
def test_gradient_reaches_every_named_parameter(name):
    encoder, x, y, _ = build(name)
    code = encoder(x, y)
    loss = code.h.square().sum() + code.rate.sum()
    (loss if code.auxiliary is None else loss + code.auxiliary.sum()).backward()
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", [name for name in CASES if "own network" not in name])
def test_built_without_numbers_and_loaded_it_is_the_same(name):
    """As with Hugging Face's loading and FSDP: nothing that counts is in no file."""
    encoder, x, y, case = build(name)
    assert list(encoder.buffers()) == []
    with torch.device("meta"):
        other = case.make()
    other.to_empty(device="cpu").load_state_dict(encoder.state_dict())
    codes = []
    for each in (encoder, other):
        torch.manual_seed(1)
        codes.append(each(x, y))
    assert torch.equal(codes[0].h, codes[1].h)
    assert torch.equal(codes[0].rate, codes[1].rate)


@pytest.mark.parametrize("name", CASES)
def test_training_mode_equals_evaluation_mode(name):
    encoder, x, y, _ = build(name)
    torch.manual_seed(1)
    training = encoder.train()(x, y)
    torch.manual_seed(1)
    evaluation = encoder.eval()(x, y)
    assert torch.equal(training.h, evaluation.h)
    assert torch.equal(training.log_weight, evaluation.log_weight)


@pytest.mark.parametrize("name", CASES)
def test_examples_of_a_batch_do_not_influence_one_another(name):
    """Else neither a bound nor a conditional likelihood would be one of a single image."""
    encoder, x, y, case = build(name)

    def encode(rows: slice) -> tuple[Tensor, ...]:
        x_rows, y_rows = x[rows], map_tensors(y, lambda part: part[rows])
        if case.latents:
            return moments(encoder, x_rows, y_rows)
        return (encoder(x_rows, y_rows).h,)

    together = encode(slice(0, 7))
    for row in range(7):
        alone = encode(slice(row, row + 1))
        for whole, part in zip(together, alone, strict=True):
            assert torch.allclose(whole[row], part[0], atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_several_draws_are_those_of_repeated_images(name):
    """Encoding each image once, for an importance-weighted estimate, changes nothing."""
    encoder, x, y, _ = build(name)
    torch.manual_seed(1)
    once = encoder.draws(x, y, num=3)
    torch.manual_seed(1)
    again = encoder(
        x.repeat_interleave(3, 0), map_tensors(y, lambda part: part.repeat_interleave(3, 0))
    )
    for a, b in zip((*once[:3], *once.kl, *once.z), (*again[:3], *again.kl, *again.z), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_what_is_given_matters(name):
    encoder, x, y, case = build(name)
    codes = encoder.posterior(x, y)[0].mean if case.latents else encoder(x, y).h
    assert (codes[0] - codes[1]).abs().max() > 1e-6


@pytest.mark.parametrize("name", CASES)
def test_state_dict_round_trip(name):
    encoder, x, y, case = build(name)
    torch.manual_seed(9)
    other = case.make()
    other.load_state_dict(encoder.state_dict())
    torch.manual_seed(1)
    first = encoder(x, y)
    torch.manual_seed(1)
    second = other(x, y)
    assert torch.equal(first.h, second.h)
    assert torch.equal(first.rate, second.rate)


@pytest.mark.parametrize("name", CASES)
def test_autocast_keeps_the_accounting_in_float32(name):
    encoder, x, y, case = build(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        code = encoder(x, y)
    for term in (code.rate, code.log_weight, *code.kl, *code.z):
        assert term.dtype == torch.float32
        assert term.isfinite().all()
    assert code.h.shape == (7, *case.code_shape)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_weights_of_another_type(name, dtype):
    encoder, x, y, _ = build(name)
    code = encoder.to(dtype)(x, y)
    assert code.h.dtype == dtype
    assert code.rate.dtype == code.log_weight.dtype == torch.float32


@pytest.mark.parametrize("name", LATENT)
def test_prior_draws_codes_and_a_seed_repeats_them(name):
    encoder, _, _, case = build(name)

    def draw(seed: int) -> Tensor:
        return encoder.sample_prior(4, generator=torch.Generator().manual_seed(seed))

    assert draw(0).shape == (4, *case.code_shape)
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert encoder.sample_prior(2).shape == (2, *case.code_shape)


@pytest.mark.parametrize("name", LATENT)
def test_the_code_is_that_of_the_drawn_latents(name):
    encoder, x, y, _ = build(name)
    code = encoder(x, y)
    assert torch.equal(encoder.to_h(code.z), code.h)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_forward_draws_with_the_global_generator(name):
    encoder, x, y, _ = build(name)
    torch.manual_seed(3)
    first = encoder(x, y)
    second = encoder(x, y)
    torch.manual_seed(3)
    again = encoder(x, y)
    for a, b, c in zip(first.z, second.z, again.z, strict=True):
        assert torch.equal(a, c)
        assert not torch.equal(a, b)


@pytest.mark.parametrize("name", LATENT)
def test_posteriors_agree_with_the_code(name):
    """Their density and divergence are those of the rate and the importance weight."""
    encoder, x, y, case = build(name)
    code = encoder(x, y)
    posteriors = encoder.posterior(x, y)
    for posterior, z, kl, shape in zip(posteriors, code.z, code.kl, case.latents, strict=True):
        assert posterior.sample().shape == posterior.mean.shape == (7, *shape)
        log_q = posterior.log_prob(z).flatten(1).sum(1)
        assert log_q.shape == (7,)
        assert log_q.isfinite().all()
        drawn = [posterior.sample(generator=torch.Generator().manual_seed(1)) for _ in range(2)]
        assert torch.equal(*drawn)
        if name in GAUSSIAN and not posterior.standard_prior:
            with pytest.raises(TypeError, match="no KL divergence in closed form"):
                posterior.kl()
        else:
            assert torch.allclose(posterior.kl(), kl)


@pytest.mark.parametrize("name", CASES)
def test_repr_is_one_line_with_shapes_and_what_is_given(name):
    encoder, _, _, case = build(name)
    said = repr(encoder)
    assert said.startswith(f"{type(encoder).__name__}(")
    assert "\n" not in said
    assert f"code_shape={case.code_shape}" in said
    assert (f"latent_shapes={case.latents}" if case.latents else f"given={case.given!r}") in said


@pytest.mark.parametrize("name", LATENT)
def test_latents_of_a_wrong_shape_are_refused(name):
    encoder, _, _, case = build(name)
    with pytest.raises(ValueError, match="one tensor per level"):
        encoder.to_h(torch.zeros(2, *case.latents[0]))
    with pytest.raises(ValueError, match="top level first"):
        encoder.to_h(tuple(torch.zeros(2, 1 + s[0], *s[1:]) for s in case.latents))


@pytest.mark.parametrize("name", GIVEN)
def test_no_prior_and_no_latents_is_a_type_error(name):
    encoder, x, y, _ = build(name)
    with pytest.raises(TypeError, match="has no prior to sample"):
        encoder.sample_prior(2)
    with pytest.raises(TypeError, match="has no latents"):
        encoder.to_h((torch.zeros(2, 3),))
    if name in OF_IMAGE:
        (posterior,) = encoder.posterior(x)
        h = encoder(x).h
        assert torch.equal(posterior.mean, h)
        assert torch.equal(posterior.sample(), h)
        assert not posterior.log_prob(h).any()
        assert (posterior.log_prob(h + 1) == -math.inf).all()
    else:
        with pytest.raises(TypeError, match="has no posterior"):
            encoder.posterior(x, y)


@pytest.mark.parametrize("name", [*LATENT, *sorted(OF_IMAGE)])
def test_wrong_images_are_refused(name):
    encoder, x, _, _ = build(name)
    with pytest.raises(ValueError, match=r"expected torch.uint8 levels .*float32.*to_levels"):
        encoder(x.float())
    with pytest.raises(ValueError, match=r"expected torch.uint8 images .* got none"):
        encoder(None)
    with pytest.raises(ValueError, match=r"expected images of shape .* got \(2, 9, 6\)"):
        encoder(x[0])
    if name != "deterministic":
        with pytest.raises(ValueError, match=r"shape \(B, 2, 9, 6\), got \(7, 2, 9, 5\)"):
            encoder(x[..., :5])
        with pytest.raises(ValueError, match=r"expected levels 0\.\.4, got 5"):
            encoder(torch.full_like(x, 5))


@pytest.mark.parametrize("name", [name for name in GIVEN if name not in OF_IMAGE])
def test_annotations_need_no_images_and_may_not_be_missing(name):
    encoder, x, y, _ = build(name)
    if name != "map and vectors joined":
        assert torch.equal(encoder(None, y).h, encoder(x, y).h)
    with pytest.raises(ValueError, match=r"expected y to be .*"):
        encoder(x, None)
    with pytest.raises(ValueError, match="one entry of y per image"):
        encoder(x[:3], y)


@pytest.mark.parametrize(
    "name", [name for name in CASES if name != "text" and "joined" not in name]
)
def test_compiles_as_one_graph(name):
    """Text is left out: PyTorch leaves recurrent layers out of its graphs."""
    encoder, x, y, _ = build(name)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    torch.manual_seed(1)
    expected = encoder(x, y)
    torch.manual_seed(1)
    got = compiled(x, y)
    assert torch.allclose(got.h, expected.h, atol=1e-6)
    assert torch.allclose(got.log_weight, expected.log_weight, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_gpu_agrees_with_the_cpu(name):
    encoder, x, y, case = build(name)
    expected = moments(encoder, x) if case.latents else (encoder(x, y).h,)
    encoder, x, y = encoder.cuda(), x.cuda(), map_tensors(y, lambda part: part.cuda())
    got = moments(encoder, x) if case.latents else (encoder(x, y).h,)
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a.cpu(), b, atol=1e-2)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        code = encoder(x, y)
        assert code.rate.dtype == code.log_weight.dtype == torch.float32
        (code.h.float().square().sum() + code.rate.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    if case.latents:
        assert encoder.sample_prior(2, torch.Generator().manual_seed(0)).is_cuda
        assert encoder.sample_prior(2, torch.Generator("cuda").manual_seed(0)).is_cuda
