"""Measure a training step's useful operations per second against the matrix-product rate.

    python benchmarks/training.py [--settings 1 2 3 4 5 6] [--batch 32] [--steps 5]

The decoder is `GatedPixelCNN((1, 28, 28), hidden_channels=64, num_layers=12)`. Useful operations
are the multiplications and additions of the cropped kernels, masked weights not counted: two for
each weight and place forward, and as many again for each of the two gradients backward (one for
the first layer, since no gradient goes to the image). Activations, optimizer and loss count as
time, not as operations. The rate of float32 matrix products is measured between the steps, in the
same process. The fastest step and the fastest product count, since the machine may be shared. A
share above one is possible: convolutions (oneDNN) and products (MKL) are different code, and on
some processors only the first uses the widest vectors.

Each setting first trains for some steps on the same batches of MNIST-like images (scikit-learn's
digits, enlarged to 28×28 and made binary); its bits per dimension on held-out images, scored in
float32, are to be compared with those of float32 training. `autocast - float32` is how far the same
weights' score moves under bf16 autocast.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
import tyro
from sklearn.datasets import load_digits
from torch import Tensor, nn

from decoders import Decoder, GatedPixelCNN
from decoders.layers import LeftConv2d, PixelLinear

MATRIX_SIZES = (512, 1024, 2048)
Run = Callable[[Tensor], Tensor]


class Setting(NamedTuple):
    name: str
    bf16: bool
    channels_last: bool
    compiled: bool


SETTINGS = [
    Setting("float32", False, False, False),
    Setting("float32, channels last", False, True, False),
    Setting("float32, compiled", False, False, True),
    Setting("bf16 autocast", True, False, False),
    Setting("bf16 autocast, channels last", True, True, False),
    Setting("bf16 autocast, compiled", True, False, True),
]


def build(setting: Setting) -> GatedPixelCNN:
    torch.manual_seed(0)
    decoder = GatedPixelCNN((1, 28, 28), num_levels=2, hidden_channels=64, num_layers=12)
    if setting.channels_last:
        decoder = decoder.to(memory_format=cast(torch.memory_format, torch.channels_last))
    return decoder


def useful_operations(decoder: Decoder, x: Tensor, h: Tensor | None = None) -> float:
    """Multiplications and additions of one training step on the images x, see above."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        masked = isinstance(module, (LeftConv2d, PixelLinear))
        weight = module.causal_weight() if masked else module.weight
        places = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        # No gradient goes to the image, nor to a code that is given.
        passes = 3 if inputs[0].requires_grad else 2
        total += 2 * passes * int(weight.count_nonzero()) * (places.numel() // places.shape[1])

    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    hooks = [m.register_forward_hook(count) for m in decoder.modules() if isinstance(m, layers)]
    decoder(x, h)
    for hook in hooks:
        hook.remove()
    return total


def images() -> Tensor:
    """Return 1797 binary digits of 28×28, shuffled."""
    pixels = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    large = F.interpolate(pixels, size=(28, 28), mode="bilinear", align_corners=False)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(0))
    return (large[order] > 0.5).to(torch.uint8)


def autocast(setting: Setting) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if setting.bf16 else nullcontext()


def train_step(run: Run, optimizer: torch.optim.Optimizer, x: Tensor, setting: Setting) -> None:
    with autocast(setting):
        loss = -run(x).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def matrix_rate() -> float:
    """Return float32 operations per second of the fastest of several square products."""
    rates = []
    for size in MATRIX_SIZES:
        a, b, out = (torch.randn(size, size) for _ in range(3))
        for _ in range(3):
            taken = seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
            rates.append(2 * size**3 / taken)
    return max(rates)


class Measured(NamedTuple):
    rate: float
    products: float
    step: float
    bits: float
    autocast_moves: float


def measure(setting: Setting, data: Tensor, batch: int, steps: int, learn: int) -> Measured:
    decoder = build(setting)
    run: Run = torch.compile(decoder) if setting.compiled else decoder
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-3)
    held_out, data = data[:200], data[200:]
    batches = data.split(batch)[: len(data) // batch]
    for n in range(learn):  # warms up, too
        train_step(run, optimizer, batches[n % len(batches)], setting)
    with torch.no_grad():
        exact = decoder(held_out).double().mean()
        with torch.autocast("cpu", torch.bfloat16):
            rough = decoder(held_out).double().mean()
    times, products = [], []
    for n in range(steps):
        x = batches[n % len(batches)]
        products.append(matrix_rate())
        times.append(seconds(lambda x=x: train_step(run, optimizer, x, setting)))
    step = min(times)
    per_bit = -28 * 28 * math.log(2)
    return Measured(
        useful_operations(decoder, batches[0]) / step,
        max(products),
        step,
        float(exact) / per_bit,
        float(rough - exact) / per_bit,
    )


def main(
    settings: tuple[int, ...] = (1, 2, 3, 4, 5, 6),
    batch: int = 32,
    steps: int = 5,
    learn: int = 20,
    threads: int = 2,
) -> None:
    """Time training steps.

    Args:
        settings: which of the six settings to time.
        batch: images of one step.
        steps: how many steps to time; the fastest counts.
        learn: steps of training before the bits per dimension are compared.
        threads: how many threads to use.
    """
    torch.set_num_threads(threads)
    data = images()
    print(f"torch {torch.__version__}, {threads} threads, batch {batch}, best of {steps} steps")
    print(
        f"{'setting':30s} {'step s':>8s} {'useful Gop/s':>12s} {'products Gop/s':>14s}"
        f" {'share':>6s} {'bits/dim':>9s} {'autocast - float32':>19s}"
    )
    for number in settings:
        setting = SETTINGS[number - 1]
        m = measure(setting, data, batch, steps, learn)
        print(
            f"{setting.name:30s} {m.step:8.3f} {m.rate / 1e9:12.1f} {m.products / 1e9:14.1f}"
            f" {m.rate / m.products:6.1%} {m.bits:9.5f} {m.autocast_moves:+19.6f}",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main)
