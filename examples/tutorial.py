"""From a handful of images to a PixelVAE, in cells.

    python examples/tutorial.py

Editors that support `# %%` (VS Code, PyCharm, Spyder, Jupyter with jupytext) show each part as a
cell. As a script it runs all of them, in about three minutes on two cores, and writes pictures to
the current folder. The environment variable TUTORIAL_STEPS sets the optimizer steps of each model.
"""

# %% [markdown]
# ## 1. Images are levels
# A decoder gives a probability to every discrete image, so images are integers: here 0..16 of
# scikit-learn's digits, (N, C, H, W) uint8. `to_levels` makes them of floats in [0, 1].

# %%
from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from decoders import DeconvDecoder, GatedPixelCNN, check_causality, to_levels
from encoders import GaussianEncoder, LabelEmbedding
from eval import bits_per_dim, importance_weighted, interpolate
from pipelines import Model, grid, save_picture

STEPS = int(os.environ.get("TUTORIAL_STEPS", "400"))
LEVELS, SHAPE = 17, (1, 8, 8)
DIMS = math.prod(SHAPE)

torch.manual_seed(0)
digits = load_digits()
x = to_levels(torch.tensor(digits.images).float().unsqueeze(1) / 16, LEVELS)
y = torch.tensor(digits.target)
train_x, test_x, train_y, test_y = x[:1437], x[1437:], y[:1437], y[1437:]
print(f"{tuple(train_x.shape)} {train_x.dtype}, levels {int(x.min())} to {int(x.max())}")


def fit(network: nn.Module, loss_of: Callable[[Tensor, float], Tensor]) -> None:
    """Minimize the mean loss of random batches: their indices, and the share of steps done."""
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    network.train()
    for step in range(STEPS):
        loss = loss_of(torch.randint(len(train_x), (48,)), step / STEPS).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, STEPS // 4) == 0:
            print(f"  step {step:4d}  {loss.item():7.2f} nats")
    network.eval()


# %% [markdown]
# ## 2. A decoder alone
# With no h it models p(x), exactly: log p is a sum over sub-pixels, each given those before it.
# `check_causality` proves that it sees nothing else, for this decoder or one of yours.


# %%
def make_decoder(cond_shape: tuple[int, ...] = ()) -> GatedPixelCNN:
    return GatedPixelCNN(
        SHAPE, num_levels=LEVELS, cond_shape=cond_shape, hidden_channels=32, num_layers=4,
        kernel_size=3,
    )  # fmt: skip


decoder = make_decoder()
check_causality(decoder)
fit(decoder, lambda rows, _: -decoder(train_x[rows]))
with torch.no_grad():
    nats = -decoder(test_x).double()
print(f"exact: {nats.mean():.2f} ± {nats.std() / len(nats) ** 0.5:.2f} nats per image", end=", ")
print(f"{bits_per_dim(nats.mean().item(), DIMS):.3f} bits/dim")
save_picture(grid(decoder.sample(num=40), LEVELS, columns=10), Path("tutorial-samples.png"))

# %% [markdown]
# ## 3. Given a label
# Anything that makes h is an encoder. With an embedding of labels the model is p(x | y). Its score
# must not be compared with that of p(x): the label was free.

# %%
by_label = Model(make_decoder((16,)), LabelEmbedding(10, 16))
fit(by_label, lambda rows, _: by_label(train_x[rows], train_y[rows]).distortion)
with torch.no_grad():
    nats = by_label(test_x, test_y).distortion.mean().item()
print(f"{by_label.kind}: {nats:.2f} nats per image")
drawn = by_label.sample(40, torch.arange(4).repeat_interleave(10))
save_picture(grid(drawn, LEVELS, columns=10), Path("tutorial-labels.png"))

# %% [markdown]
# ## 4. Given a latent: a PixelVAE
# The encoder yields q(z | x); what is minimised is distortion + rate, and their sum bounds
# -log p(x). The same encoder with deconvolutions is the plain VAE. Importance weighting comes
# closer to -log p(x) than the bound does. A decoder that can do without the latent will, unless the
# rate comes in slowly (KL warm-up); the bound that is reported has it in full.


# %%
def vae(decoder: nn.Module) -> Model:
    encoder = GaussianEncoder(SHAPE, latent_dim=8, num_levels=LEVELS)
    model = Model(decoder, encoder)  # type: ignore[arg-type]

    def loss_of(rows: Tensor, done: float) -> Tensor:
        terms = model(train_x[rows])
        return terms.distortion + min(1.0, 2 * done) * terms.rate

    fit(model, loss_of)
    with torch.no_grad():
        terms = model(test_x)
        estimate = -importance_weighted(model, test_x, None, k=50).mean().item()
    distortion, rate = terms.distortion.mean().item(), terms.rate.mean().item()
    print(
        f"{type(decoder).__name__}: bound {distortion + rate:.2f} = distortion {distortion:.2f} + "
        f"rate {rate:.2f}; estimate with K = 50: {estimate:.2f} nats per image"
    )
    return model


plain = vae(DeconvDecoder(SHAPE, cond_shape=(8,), num_levels=LEVELS, hidden_channels=32))
pixel = vae(make_decoder((8,)))

# %% [markdown]
# ## 5. What the latent says
# An interpolation between the codes of two images: each h is decoded with the same random numbers.
# Below, the plain VAE's interpolation between the same two images.

# %%
rows = []
for model in (pixel, plain):
    assert model.encoder is not None
    with torch.no_grad():
        mean = model.encoder.posterior(test_x[[0, 8]])[0].mean
    h = model.encoder.to_h((interpolate(mean[:1], mean[1:], 10)[:, 0],))
    same_noise = torch.rand(1, *SHAPE).expand(10, -1, -1, -1)
    rows.append(model.decoder.sample(h, noise=same_noise))
save_picture(grid(torch.cat(rows), LEVELS, columns=10), Path("tutorial-interpolation.png"))

# %% [markdown]
# ## 6. Completion
# The lower halves, sampled given the upper ones: ten digits, and three completions of each.

# %%
known = torch.zeros(SHAPE, dtype=torch.bool)
known[:, :4] = True
completed = [decoder.sample(known=(test_x[:10], known), num=10) for _ in range(3)]
save_picture(
    grid(torch.cat([test_x[:10], *completed]), LEVELS, columns=10), Path("tutorial-completion.png")
)
print("wrote tutorial-samples.png, -labels.png, -interpolation.png and -completion.png")
