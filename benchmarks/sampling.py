"""Time the cached scan against one forward pass and against the plain scan.

    python benchmarks/sampling.py [--cases 1 2 3 4 5 6 7 8 9]

Prints, for each case, the seconds of one teacher-forced forward (`decoder(x)`) and of sampling a
batch of the same size by the cached scan, and two ratios. The plain scan runs the whole network
for each sub-pixel: it is timed on a few of its steps, evenly spread, and scaled. Float32, two
threads; all of a case is timed in turns in one process, and the medians are taken.

Colors are ordered by masked channel groups (a step of the network for each sub-pixel) in the third
case; in the fourth by the head (a step for each pixel), as by `--color-order head`. The first four
are a `GatedPixelCNN`, the next three a `PixelCNNPlusPlus` of 64 maps and 2 blocks at each scale,
the last two a `PixelSNAIL` of 64 maps and 3 blocks of 2 layers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import tyro
from torch import Tensor, nn

from decoders import FactorizedDecoder, GatedPixelCNN, PixelCNNPlusPlus, PixelSNAIL
from decoders.heads import ColorOrder
from decoders.scan import Draw, PlainScan, Scan


class Case(NamedTuple):
    image_shape: tuple[int, int, int]
    num_levels: int
    batch: int
    most_over_forward: float
    least_over_plain: float
    repeats: int
    color_order: ColorOrder = "groups"
    plus_plus: bool = False
    snail: bool = False


CASES = [
    Case((1, 28, 28), 2, 64, 1.5, 400, 5),
    Case((1, 28, 28), 2, 1, 10, 75, 15),
    Case((3, 32, 32), 256, 64, 2.5, 1000, 3),
    Case((3, 64, 64), 256, 16, 3, 3000, 3, "head"),
    Case((1, 28, 28), 2, 64, 2, 300, 5, "head", plus_plus=True),
    Case((1, 28, 28), 2, 1, 15, 50, 15, "head", plus_plus=True),
    Case((3, 32, 32), 256, 64, 2, 1000, 3, "head", plus_plus=True),
    Case((1, 28, 28), 2, 64, 2, 300, 5, "head", snail=True),
    Case((3, 32, 32), 256, 64, 2, 1000, 3, "head", snail=True),
]
PLAIN_STEPS = 5


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def build(
    image_shape: tuple[int, int, int],
    num_levels: int,
    color_order: ColorOrder = "groups",
    plus_plus: bool = False,
    snail: bool = False,
) -> FactorizedDecoder:
    """Return a decoder of 64 maps × 12 layers and 5×5 kernels, or another one of 64 maps."""
    torch.manual_seed(0)
    if snail:
        return PixelSNAIL(image_shape, num_levels=num_levels, hidden_channels=64).eval()
    if plus_plus:
        return PixelCNNPlusPlus(
            image_shape, num_levels=num_levels, hidden_channels=64, num_blocks=2
        ).eval()
    return GatedPixelCNN(
        image_shape,
        num_levels=num_levels,
        hidden_channels=64,
        num_layers=12,
        kernel_size=5,
        color_order=color_order,
    ).eval()


def time_plain_scan(decoder: FactorizedDecoder, batch: int) -> float:
    """Return seconds of a whole plain scan, from a few of its steps."""
    channels, height, width = decoder.image_shape
    scan = PlainScan(decoder, None, batch)
    draw = Draw(decoder.likelihood, torch.rand(batch, *decoder.image_shape))
    steps = channels * height * width

    def step(index: int) -> None:
        row, col, channel = index // (channels * width), index // channels % width, index % channels
        draw.begin_row(row)
        params = scan.params(row, col, channel)
        values = draw(params, scan.x[:, :, row, col], row, col, channel)
        scan.push(row, col, channel, values)

    step(0)
    places = [steps * n // PLAIN_STEPS for n in range(PLAIN_STEPS)]
    return steps * statistics.median(seconds(lambda at=at: step(at)) for at in places)


@torch.no_grad()
def measure(case: Case) -> None:
    decoder = build(case.image_shape, case.num_levels, case.color_order, case.plus_plus, case.snail)
    noise = torch.rand(case.batch, *case.image_shape)
    x = decoder.sample(noise=noise)  # warm
    decoder(x)
    forward, cached = [], []
    for _ in range(case.repeats):
        forward.append(seconds(lambda: decoder(x)))
        cached.append(seconds(lambda: decoder.sample(noise=noise)))
        forward.append(seconds(lambda: decoder(x)))
    one, scan = statistics.median(forward), statistics.median(cached)
    plain = time_plain_scan(decoder, case.batch)
    name = f"{'×'.join(map(str, case.image_shape))}, {case.num_levels} levels, batch {case.batch}"
    if case.plus_plus:
        name += ", PixelCNN++"
    elif case.snail:
        name += ", PixelSNAIL"
    elif case.image_shape[0] > 1:
        name += f", {case.color_order}"
    print(
        f"{name:37s} {one:9.4f} {scan:9.4f} {plain:10.1f}"
        f" {scan / one:8.2f} (≤ {case.most_over_forward:g})"
        f" {plain / scan:8.0f} (≥ {case.least_over_plain:g})",
        flush=True,
    )


def cache_bytes(scan: Scan) -> int:
    """Return the memory of all tensors that a scan holds, except those of the decoder."""
    sizes: dict[int, int] = {}

    def visit(value: object) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, (list, tuple)):
            for item in value:
                visit(item)
        elif hasattr(value, "__dict__") and not isinstance(value, nn.Module):
            for item in vars(value).values():
                visit(item)

    visit(scan)
    return sum(sizes.values())


@torch.no_grad()
def show_memory() -> None:
    sizes = {
        height: cache_bytes(build((1, height, 28), 2).scan(None, 64)) for height in (28, 112, 448)
    }
    text = ", ".join(f"{height}×28: {size / 2**20:.1f} MiB" for height, size in sizes.items())
    print(f"memory of the scan's caches, batch 64: {text}")


def main(cases: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9), threads: int = 2) -> None:
    """Time the cached scan.

    Args:
        cases: numbers of the cases to time, 1 to 9.
        threads: number of threads.
    """
    torch.set_num_threads(threads)
    print(f"torch {torch.__version__}, {threads} threads, float32, 64 maps × 12 layers, 5×5")
    print(f"plain scan: {PLAIN_STEPS} of its steps timed, and their median scaled to all")
    print(f"{'case':37s} {'forward s':>9s} {'cached s':>9s} {'plain s':>10s}  over forward  faster")
    for number in cases:
        measure(CASES[number - 1])
    show_memory()


if __name__ == "__main__":
    tyro.cli(main)
