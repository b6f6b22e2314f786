"""Parts that run in this process: the device's ceilings, training steps, sampling, scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from gpu_parts.config import ROOT, Config, Record
from gpu_parts.timing import matrix_rate, once, seconds
from torch import Tensor
from training import useful_operations

from decoders import Decoder, DeconvDecoder, GatedPixelCNN, PixelCNN
from decoders.scan import Draw, PlainScan, run
from eval import scoring
from pipelines.runs.load import open_run

MOST_WHOLE = 4096  # images whose forward pass fits into memory
MODES = {"eager": False, "compiled": True}


def machine(config: Config) -> Record:
    """Measure the device's two ceilings: matrix products and memory."""
    device, size = config.device, 64 if config.small else 8192
    block = torch.empty(2**20 if config.small else 2**31, dtype=torch.uint8, device=device)
    other = torch.empty_like(block)
    copied = 2 * len(block) / seconds(lambda: other.copy_(block), device)
    return {
        "cards": torch.cuda.device_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "bf16_matrix_rate": matrix_rate(device, torch.bfloat16, size),
        "float32_matrix_rate": matrix_rate(device, torch.float32, size // 2),
        "copied_bytes_per_second": copied,
    }


def trained_decoders(small: bool) -> dict[str, tuple[Decoder, int]]:
    """Return the decoders whose training is timed, each with its batch size."""
    if small:
        sizes: Record = {"num_levels": 4, "hidden_channels": 8, "num_layers": 1}
        return {
            "GatedPixelCNN": (GatedPixelCNN((3, 8, 8), **sizes), 2),
            "PixelCNN": (PixelCNN((1, 8, 8), **sizes), 2),
            "DeconvDecoder": (DeconvDecoder((1, 8, 8), num_levels=4, cond_shape=(4,)), 2),
        }
    return {
        "GatedPixelCNN, 1×28×28, 32 × 8 (MNIST preset)": (
            GatedPixelCNN((1, 28, 28), num_levels=2, hidden_channels=32, num_layers=8),
            512,
        ),
        "PixelCNN, 1×28×28, 64 × 12": (
            PixelCNN((1, 28, 28), num_levels=2, hidden_channels=64, num_layers=12),
            512,
        ),
        "DeconvDecoder, 3×32×32, 128": (
            DeconvDecoder((3, 32, 32), cond_shape=(128,), hidden_channels=128),
            512,
        ),
        "GatedPixelCNN, 3×32×32, 64 × 8 (CIFAR-10 preset)": (
            GatedPixelCNN((3, 32, 32), hidden_channels=64, num_layers=8),
            256,
        ),
        "GatedPixelCNN, 3×32×32, 384 × 20 (paper preset)": (
            GatedPixelCNN((3, 32, 32), hidden_channels=384, num_layers=20, head_channels=1024),
            128,
        ),
    }


def training(config: Config) -> Record:
    """Measure the rate of training steps in bf16: forward, backward, clipping, AdamW."""
    device = config.device
    products = matrix_rate(device, torch.bfloat16, 64 if config.small else 8192)
    record: Record = {"bf16_matrix_rate": products, "decoders": {}}
    torch.manual_seed(0)
    for name, (decoder, batch) in trained_decoders(config.small).items():
        record["decoders"][name] = training_case(device, decoder, batch, products)
        decoder.cpu()
        torch.compiler.reset()
    return record


def training_case(device: torch.device, decoder: Decoder, batch: int, products: float) -> Record:
    """Time training steps of a decoder; `products` is the rate of bf16 matrix products."""
    decoder.to(device)
    levels = decoder.num_levels or 256
    x = torch.randint(levels, (batch, *decoder.image_shape), device=device).to(torch.uint8)
    h = torch.randn(batch, *decoder.cond_shape, device=device) if decoder.cond_shape else None
    useful = useful_operations(decoder, x[:2], None if h is None else h[:2]) * batch / 2
    row: Record = {
        "batch": batch,
        "parameters": sum(p.numel() for p in decoder.parameters()),
        "useful_operations": useful,
    }
    for mode, compiled in MODES.items():
        step = train_step(decoder, x, h, compiled)
        first, taken = once(step, device), seconds(step, device)
        row[mode] = {
            "first_step": first,
            "step": taken,
            "images_per_second": batch / taken,
            "share_of_matrix_rate": useful / taken / products,
        }
    if device.type == "cuda":
        row["peak_bytes"] = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    return row


def train_step(
    decoder: Decoder, x: Tensor, h: Tensor | None, compiled: bool
) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(decoder.parameters(), 1e-4)
    forward = torch.compile(decoder) if compiled else decoder

    def step() -> None:
        with torch.autocast(x.device.type, torch.bfloat16):
            loss = -forward(x, h).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def sampling(config: Config) -> Record:
    """Compare the cached scan with a forward pass, and with the plain scan at its best batch."""
    cases = {
        "1×28×28, 2 levels": ((1, 28, 28), 2, (1, 64, 1024, 4096, 16384)),
        "3×32×32, 256 levels, channel groups": ((3, 32, 32), 256, (1, 64, 1024, 4096, 16384)),
    }
    width, layers = 64, 12
    if config.small:
        cases = {"1×6×6, 2 levels": ((1, 6, 6), 2, (1, 4))}
        width, layers = 8, 1
    measured = {
        name: sampling_case(config.device, shape, levels, batches, width, layers)
        for name, (shape, levels, batches) in cases.items()
    }
    return {"cases": measured}


@torch.inference_mode()
def sampling_case(
    device: torch.device,
    shape: tuple[int, int, int],
    levels: int,
    batches: tuple[int, ...],
    width: int,
    layers: int,
) -> Record:
    torch.manual_seed(0)
    decoder = GatedPixelCNN(shape, num_levels=levels, hidden_channels=width, num_layers=layers)
    decoder.to(device).eval()
    rows = [sampling_row(decoder, torch.rand(b, *shape, device=device)) for b in batches]
    best = max(row["images_per_second"] for row in rows)
    plain = max(row.get("plain_images_per_second", 0) for row in rows)
    return {"batches": rows, "best_over_best_plain": best / plain}


def sampling_row(decoder: GatedPixelCNN, noise: Tensor) -> Record:
    """Time sampling of a batch by each kind of scan, and a forward pass."""
    device, batch, shape = noise.device, len(noise), decoder.image_shape

    def sample(record: bool) -> Tensor:
        scan, draw = decoder.scan(None, batch), Draw(decoder.likelihood, noise)
        return run(scan, draw, shape, batch, torch.uint8, record=record)

    x = sample(True)
    row: Record = {"batch": batch, "recorded": once(lambda: sample(True), device)}
    row["images_per_second"] = batch / row["recorded"]
    if batch <= MOST_WHOLE:
        assert torch.equal(x, sample(False)), "a recorded scan drew other images"
        row["launched"] = once(lambda: sample(False), device)
        row["forward"] = seconds(lambda: decoder.log_prob(x), device, repeats=3)
        row["over_forward"] = row["recorded"] / row["forward"]
        row["plain"] = math.prod(shape) * time_plain_step(decoder, noise)
        row["plain_images_per_second"] = batch / row["plain"]
    return row


def time_plain_step(decoder: GatedPixelCNN, noise: Tensor) -> float:
    """Return seconds per sub-pixel of the plain scan: the whole network, and a draw."""
    scan, draw = PlainScan(decoder, None, len(noise)), Draw(decoder.likelihood, noise)
    draw.begin_row(0)

    def step() -> None:
        params = scan.params(0, 0, 0)
        scan.push(0, 0, 0, draw(params, scan.x[:, :, 0, 0], 0, 0, 0))

    return seconds(step, noise.device, repeats=3)


def scores(config: Config) -> Record:
    """Score samples of the bundled weights in float32, on the device and on the CPU."""
    decoder = open_run(ROOT / "weights" / "mnist-gated").model.decoder
    x = decoder.sample(num=4 if config.small else 256, generator=torch.Generator().manual_seed(0))
    with scoring(decoder):
        exact = decoder.double()(x)
        on_cpu = decoder.float()(x)
        on_device = decoder.to(config.device)(x.to(config.device)).cpu()
    return {
        "images": len(x),
        "mean_nats": float(-exact.mean()),
        "largest_difference_from_cpu": float((on_device - on_cpu).abs().max()),
        "largest_difference_from_float64": float((on_device - exact).abs().max()),
        "cpu_from_float64": float((on_cpu - exact).abs().max()),
    }
