"""Image encoders and their networks: any size, levels scaled or embedded, clear refusals."""

import pytest
import torch
from torch import nn

from encoders import ConvEncoder, Deterministic, GaussianEncoder, Upsample
from encoders.layers import Features, LevelInput, keep_variance, output_shape, pyramid

SIZES = [(1, 1), (2, 3), (5, 4), (8, 8), (9, 7), (17, 33), (28, 28)]


@pytest.mark.parametrize("size", SIZES)
def test_any_image_size_encodes_to_any_code(size):
    shape = (2, *size)
    x = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    for reached in pyramid(size):
        encoder = ConvEncoder(shape, code_shape=(5, *reached), hidden_channels=4)
        assert encoder(x).h.shape == (2, 5, *reached)
    assert ConvEncoder(shape, code_shape=(5,), hidden_channels=4)(x).h.shape == (2, 5)
    gaussian = GaussianEncoder(
        shape, 3, hidden_channels=4, upsample=Upsample((3,), (6, *size), hidden_channels=4)
    )
    assert gaussian(x).h.shape == (2, 6, *size)


def test_unreachable_map_size_is_refused_with_the_sizes_that_fit():
    with pytest.raises(ValueError, match=r"a map of 9x9 or 5x5 or 3x3 or 2x2 or 1x1, .*got 4x4"):
        ConvEncoder((1, 9, 9), code_shape=(5, 4, 4))
    with pytest.raises(ValueError, match="got 3x3"):
        Upsample((2, 3, 3), (4, 16, 16))
    with pytest.raises(ValueError, match=r"expected code_shape \(K,\) or .* got \(\)"):
        ConvEncoder((1, 9, 9), code_shape=())
    with pytest.raises(ValueError, match=r"expected in_shape \(K,\) or .*got \(2, 3\)"):
        Upsample((2, 3), (4, 16, 16))
    with pytest.raises(ValueError, match=r"expected z of shape \(B, 3\), got \(2, 4\)"):
        Upsample((3,), (4, 16, 16))(torch.zeros(2, 4))


@pytest.mark.parametrize("gain", [1.0, 2.0])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(300, 200), (300,)),
        (nn.Conv2d(30, 40, 3, padding=1), (30, 32, 32)),
        (nn.ConvTranspose2d(60, 60, 4, stride=2, padding=1), (60, 32, 32)),
    ],
    ids=["linear", "convolution", "transposed"],
)
def test_initial_weights_keep_the_mean_square(layer, shape, gain):
    keep_variance(layer, gain)
    out = layer(torch.randn(20, *shape))
    assert out.square().mean().item() == pytest.approx(gain, rel=0.15)


@pytest.mark.parametrize("shape", [(64,), (16, 16, 16)])
def test_a_new_upsampling_keeps_the_size_of_latents(shape):
    """One that all but lost them had its latents ignored, and then removed by their KL."""
    h = Upsample(shape, (16, 64, 64))(torch.randn(64, *shape))
    assert 0.3 < h.std(dim=0).mean() < 3


def test_levels_scale_to_minus_one_and_one():
    x = torch.tensor([0, 8, 16], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert LevelInput((1, 1, 3), 17)(x).flatten().tolist() == [-1.0, 0.0, 1.0]


def test_embedding_gives_each_level_its_own_row_in_every_channel():
    embed = LevelInput((2, 1, 3), 4, embedding_dim=5)
    x = torch.tensor([[0, 1, 2], [3, 1, 0]], dtype=torch.uint8).reshape(1, 2, 1, 3)
    out = embed(x)
    assert embed.out_channels == 10
    assert out.shape == (1, 10, 1, 3)
    assert embed.embedding is not None
    for channel in range(2):
        rows = out[0, channel * 5 : channel * 5 + 5, 0].T
        assert torch.equal(rows, embed.embedding.weight[x[0, channel, 0].long()])


def test_embedded_levels_begin_smooth():
    """Or images would be noise to the encoder until the table is learned."""
    table = LevelInput((1, 2, 2), 256, embedding_dim=4).embedding
    assert table is not None
    weight = table.weight.detach()
    assert (weight[1:] - weight[:-1]).norm(dim=1).max() < 0.1
    assert torch.allclose(weight.T @ weight / 256, torch.eye(4), atol=1e-5)
    more = LevelInput((1, 2, 2), 2, embedding_dim=3).embedding
    assert more is not None
    assert more.weight.std(dim=0).min() > 0


def test_impossible_numbers_of_levels_are_refused():
    with pytest.raises(ValueError, match="num_levels to be an integer of at least 2, got 1"):
        LevelInput((1, 4, 4), 1)


ENCODERS = {
    "conv": lambda levels: ConvEncoder(
        (1, 4, 4), code_shape=(3,), num_levels=levels, hidden_channels=4
    ),
    "deterministic": lambda levels: Deterministic(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (3,), num_levels=levels
    ),
    "gaussian": lambda levels: GaussianEncoder(
        (1, 4, 4), 3, num_levels=levels, hidden_channels=4, embedding_dim=2
    ),
}


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS.keys())
def test_more_than_256_levels_are_int64_and_within_their_number(encoder):
    x = torch.randint(0, 512, (2, 1, 4, 4))
    assert encoder(512)(x).h.shape == (2, 3)
    assert encoder(512)(x).h.isfinite().all()
    with pytest.raises(ValueError, match=r"expected levels 0\.\.511, got 512"):
        encoder(512)(torch.full_like(x, 512))
    with pytest.raises(ValueError, match=r"expected levels 0\.\.511, got -1"):
        encoder(512)(torch.full_like(x, -1))
    with pytest.raises(ValueError, match=r"expected torch.int64 levels .* got torch.uint8"):
        encoder(512)(x.to(torch.uint8))
    with pytest.raises(ValueError, match=r"expected torch.uint8 levels .* got torch.int64"):
        encoder(256)(x)


def test_impossible_image_shape_is_refused():
    with pytest.raises(ValueError, match=r"expected image_shape \(C, H, W\), got \(4, 4\)"):
        LevelInput((4, 4), 4)  # pyright: ignore[reportArgumentType]


def test_deterministic_feeds_the_network_floats_between_zero_and_one():
    encoder = Deterministic(nn.Flatten(), (4,), num_levels=5)
    x = torch.tensor([0, 1, 2, 4], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert encoder(x).h.tolist() == [[0.0, 0.25, 0.5, 1.0]]


def test_deterministic_leaves_the_users_network_untouched():
    network = nn.Linear(4, 4)
    encoder = Deterministic(nn.Sequential(nn.Flatten(), network), (4,))
    assert any(parameter is network.weight for parameter in encoder.parameters())


def test_deterministic_refuses_a_network_of_another_shape():
    with pytest.raises(ValueError, match=r"expected the network's h of shape \(1, 7\).*\(1, 4\)"):
        Deterministic(nn.Flatten(), (7,))(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def test_finding_a_networks_output_shape_leaves_its_statistics_alone():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    assert output_shape(network, (1, 2, 3)) == (6,)
    assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert network.training


def test_features_report_their_shape():
    network = Features((3, 9, 6), (4, 8, 8), num_blocks=2)
    assert network(torch.zeros(1, 3, 9, 6)).shape == (1, *network.out_shape) == (1, 8, 3, 2)


def test_features_survive_a_bias_that_runs_away():
    """A plain ReLU at the end would be zero for every image from then on, and so would the code."""
    torch.manual_seed(0)
    network = Features((1, 9, 6), (4, 8))
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.bias -= 100.0
    features = network(torch.randn(3, 1, 9, 6))
    assert features.flatten(1).std(0).max() > 0.01
