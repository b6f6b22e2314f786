"""Measure on one GPU what a machine without one cannot show, and write it all to one JSON file.

    bash benchmarks/gpu.sh [--data-dir DIR] [--out benchmarks/gpu.json]
    python benchmarks/gpu.py --show benchmarks/gpu.json

The parts, about eight minutes together: the `gpu` tests; training rate of each decoder, in images
per second and in useful operations per second (see `benchmarks/training.py`) over the measured rate
of bf16 matrix products, with and without compilation; the cached scan against one forward pass and
against the plain scan, with its rows recorded as CUDA graphs and without; float32 scores against
the CPU's; resuming on the GPU; several cards, where there are several; and short trainings to a
score, for which --data-dir holds `binarized_mnist/` and `cifar10_npz/`.

A part that fails is reported in the file, the others still run, and the exit code is 1. With
--parts, the file's other parts stay as they are. `--small` runs every part with tiny sizes on any
machine, to test the script itself.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from training import useful_operations

from decoders import Decoder, DeconvDecoder, GatedPixelCNN, PixelCNN
from decoders.scan import Draw, PlainScan, run
from eval import scoring
from pipelines.runs.load import open_run

MOST_WHOLE = 4096  # images of which a forward pass fits into memory
ROOT = Path(__file__).resolve().parents[1]
Record = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Flags of `benchmarks/gpu.sh`."""

    out: Path = Path("benchmarks/gpu.json")
    """File to write."""
    data_dir: Path | None = None
    """Folder that holds `binarized_mnist/` and `cifar10_npz/`, for the trainings to a score."""
    parts: tuple[str, ...] = ()
    """Parts to run (default: all)."""
    small: bool = False
    """Tiny sizes on any device, to test the script."""
    show: Path | None = None
    """Print an earlier file as Markdown tables, and measure nothing."""

    @property
    def device(self) -> torch.device:
        """The device that is measured."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# Timing


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(do: Callable[[], object], device: torch.device, *, repeats: int = 5) -> float:
    """Median time of `do` after two calls that do not count."""
    times = []
    for number in range(2 + repeats):
        wait(device)
        start = time.perf_counter()
        do()
        wait(device)
        if number >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations per second of square matrix products of random numbers."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, device, repeats=10)


# The parts


def machine(config: Config) -> Record:
    """The device and its two ceilings: matrix products and memory."""
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


def card(config: Config) -> str:
    """Name of the device."""
    return torch.cuda.get_device_name() if config.device.type == "cuda" else "cpu"


def commit() -> str:
    """The commit measured, or "unknown" outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return os.environ.get("COMMIT") or done.stdout.strip() or "unknown"


def tests(config: Config) -> Record:
    """The tests marked `gpu`."""
    chosen = ["tests/decoders/test_conditioning.py"] if config.small else ["tests"]
    marker = "not slow and not gpu" if config.small else "gpu"
    command = [sys.executable, "-m", "pytest", "-q", "-m", marker, "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-200:]
    if done.returncode:
        raise RuntimeError(f"pytest exited with {done.returncode}: {done.stdout[-2000:]}")
    return {"summary": last.strip("= ")}


def trained_decoders(small: bool) -> dict[str, tuple[Decoder, int]]:
    """The decoders whose training is timed, each with its batch size."""
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


MODES = {"eager": False, "compiled": True}


def training(config: Config) -> Record:
    """Rate of training steps in bf16: forward, backward, clipping, AdamW."""
    device = config.device
    products = matrix_rate(device, torch.bfloat16, 64 if config.small else 8192)
    record: Record = {"bf16_matrix_rate": products, "decoders": {}}
    torch.manual_seed(0)
    for name, (decoder, batch) in trained_decoders(config.small).items():
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
        for mode in MODES:
            step = train_step(decoder, x, h, MODES[mode])
            start = time.perf_counter()
            step()
            wait(device)
            first = time.perf_counter() - start
            taken = seconds(step, device)
            row[mode] = {
                "first_step": first,
                "step": taken,
                "images_per_second": batch / taken,
                "share_of_matrix_rate": useful / taken / products,
            }
        if device.type == "cuda":
            row["peak_bytes"] = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        record["decoders"][name] = row
        decoder.cpu()
        torch.compiler.reset()
    return record


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
    """The cached scan over a forward pass, and over the plain scan at its own best batch."""
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
    steps, rows = math.prod(shape), []
    for batch in batches:
        noise = torch.rand(batch, *shape, device=device)

        def sample(record: bool, noise: Tensor = noise) -> Tensor:
            scan, draw = decoder.scan(None, len(noise)), Draw(decoder.likelihood, noise)
            return run(scan, draw, shape, len(noise), torch.uint8, record=record)

        x = sample(True)
        row: Record = {"batch": batch, "recorded": once(lambda: sample(True), device)}
        row["images_per_second"] = batch / row["recorded"]
        if batch <= MOST_WHOLE:
            assert torch.equal(x, sample(False)), "a recorded scan drew other images"
            row["launched"] = once(lambda: sample(False), device)
            row["forward"] = seconds(lambda x=x: decoder.log_prob(x), device, repeats=3)
            row["over_forward"] = row["recorded"] / row["forward"]
            row["plain"] = steps * time_plain_step(decoder, noise)
            row["plain_images_per_second"] = batch / row["plain"]
        rows.append(row)
    best = max(row["images_per_second"] for row in rows)
    plain = max(row.get("plain_images_per_second", 0) for row in rows)
    return {"batches": rows, "best_over_best_plain": best / plain}


def once(do: Callable[[], object], device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    do()
    wait(device)
    return time.perf_counter() - start


def time_plain_step(decoder: GatedPixelCNN, noise: Tensor) -> float:
    """Seconds of one sub-pixel of the plain scan: the whole network, and a draw."""
    scan, draw = PlainScan(decoder, None, len(noise)), Draw(decoder.likelihood, noise)
    draw.begin_row(0)

    def step() -> None:
        params = scan.params(0, 0, 0)
        scan.push(0, 0, 0, draw(params, scan.x[:, :, 0, 0], 0, 0, 0))

    return seconds(step, noise.device, repeats=3)


def scores(config: Config) -> Record:
    """Nats per image of the bundled weights in float32, on the device and on the CPU."""
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


def command(pipeline: str, **flags: Any) -> Record:
    """Run a training command and return its result."""
    words = []
    for key, value in flags.items():
        words.append(f"--{key.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    done = subprocess.run(
        [sys.executable, "-m", f"pipelines.{pipeline}", *words],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
    return json.loads((Path(flags["out"]) / "result.json").read_text())


def resume(config: Config) -> Record:
    """A run stopped half-way and resumed, and another whole one, against the same run whole."""
    steps = 4 if config.small else 60
    flags = {
        "data": "shapes", "accelerator": "cuda" if config.device.type == "cuda" else "cpu",
        "limit": 200, "num_layers": 2, "batch_size": 32, "num_samples": 0, "checkpoint_every": 0,
        "lr_decay": "constant",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        whole, twin, halves = (Path(folder) / name for name in ("whole", "twin", "halves"))
        command("pixelcnn", **flags, steps=steps, out=whole)
        command("pixelcnn", **flags, steps=steps, out=twin)
        command("pixelcnn", **flags, steps=steps // 2, out=halves)
        again = [sys.executable, "-m", "pipelines.pixelcnn", "--resume", "--steps", str(steps)]
        subprocess.run([*again, "--out", str(halves)], cwd=ROOT, check=True, capture_output=True)
        a, b, c = (load_file(run / "weights.safetensors") for run in (whole, halves, twin))

    def largest(other: dict[str, Tensor]) -> float:
        return max(float((a[name] - other[name]).abs().max()) for name in a)

    return {
        "steps": steps,
        "largest_difference": largest(b),
        "largest_difference_of_two_whole_runs": largest(c),
    }


def devices(config: Config) -> Record:
    """Training rate of the same global batch on one card and on more."""
    cards = torch.cuda.device_count()
    if cards < 2 and not config.small:
        return {"skipped": "expected several cards, found one"}
    steps, accelerator = (2, "auto") if config.small else (200, "cuda")
    flags = {
        "data": "shapes", "limit": 4000, "steps": steps, "batch_size": 16 if config.small else 512,
        "hidden_channels": 8 if config.small else 64, "num_samples": 0, "checkpoint_every": 0,
        "accelerator": accelerator,
    }  # fmt: skip
    counts = [2**n for n in range(max(cards, 1).bit_length())]
    record: Record = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            result = command("pixelcnn", **flags, devices=count, out=Path(folder) / str(count))
            record[str(count)] = steps * flags["batch_size"] / result["train_seconds"]
    return {"images_per_second": record}


def quality(config: Config) -> Record:
    """Short trainings by the toolkit's commands, to a score on the test set."""
    record: Record = {}
    if config.small:
        runs = {"digits": {"data": "digits", "limit": 40, "steps": 3, "num_samples": 0}}
    elif config.data_dir is None:
        raise ValueError("expected --data-dir with binarized_mnist/ and cifar10_npz/, got none")
    else:
        runs = quality_runs(config.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in runs.items():
            result = command("pixelcnn", **flags, out=Path(folder) / "run")
            (Path(folder) / "run").rename(Path(folder) / name.replace(" ", "-"))
            flags = {key: value for key, value in flags.items() if key != "data_dir"}
            record[name] = {"flags": flags, **{key: result[key] for key in KEPT}}
    return {"runs": record}


KEPT = ("kind", "value", "stderr", "bits_per_dim", "count", "parameters", "train_seconds")


def quality_runs(data_dir: Path) -> dict[str, Record]:
    common = {
        "precision": "bf16-mixed", "weight_decay": 0.1, "ema": 0.998, "num_samples": 0,
        "checkpoint_every": 0, "eval_every": 0, "score_batch": 512, "lr_decay": "cosine",
        "warmup_steps": 100, "compile": True,
    }  # fmt: skip
    return {
        "static MNIST": {
            **common, "data": "binarized_mnist", "data_dir": data_dir / "binarized_mnist",
            "hidden_channels": 64, "num_layers": 12, "batch_size": 128, "learning_rate": 3e-3,
            "dropout": 0.1, "steps": 1000,
        },
        "CIFAR-10 subset": {
            **common, "data": "imagenet32", "data_dir": data_dir / "cifar10_npz",
            "hidden_channels": 128, "num_layers": 12, "batch_size": 128, "learning_rate": 1e-3,
            "steps": 800,
        },
    }  # fmt: skip


PARTS: dict[str, Callable[[Config], Record]] = {
    part.__name__: part
    for part in (machine, tests, training, sampling, scores, resume, devices, quality)
}


# The report


def tables(record: Record) -> str:
    """The measurements as Markdown."""
    lines: list[str] = []
    if "cards" in (part := record.get("machine", {})):
        lines += [
            f"{part['device']}, torch {part['torch']}: bf16 matrix products "
            f"{part['bf16_matrix_rate'] / 1e12:.0f} TFLOP/s, float32 "
            f"{part['float32_matrix_rate'] / 1e12:.0f} TFLOP/s, memory "
            f"{part['copied_bytes_per_second'] / 1e12:.2f} TB/s ({_when(part)}).",
            "",
        ]
    if "decoders" in (part := record.get("training", {})):
        lines += [
            "| training in bf16 | batch | images/s | share of the bf16 rate | compiled: images/s "
            "| share | first step | memory |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(_training_row(name, row) for name, row in part["decoders"].items()),
            "",
            f"{part['device']}, {_when(part)}.",
            "",
        ]
    part = record.get("sampling", {})
    for name, case in part.get("cases", {}).items():
        lines += [
            f"| sampling {name} | forward pass, s | recorded scan, s | over forward "
            "| launched scan, s | plain scan, s | images/s |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(_sampling_row(row) for row in case["batches"]),
            "",
            f"{part['device']}, {_when(part)}. Best batch over the plain scan's best batch: "
            f"{case['best_over_best_plain']:,.0f} times the images per second.",
            "",
        ]
    if "runs" in (part := record.get("quality", {})):
        lines += [
            "| training to a score | nats/image | bits/dim | test images | parameters | training |",
            "| --- | --- | --- | --- | --- | --- |",
            *(_quality_row(name, row) for name, row in part["runs"].items()),
            "",
            f"{part['device']}, {_when(part)}.",
            "",
        ]
    if "mean_nats" in (part := record.get("scores", {})):
        lines += [
            f"Float32 scores of {part['images']} images by the bundled weights differ from the "
            f"CPU's by at most {part['largest_difference_from_cpu']:.1e} nats of "
            f"{part['mean_nats']:.1f} ({part['device']}, {_when(part)}).",
            "",
        ]
    if "steps" in (part := record.get("resume", {})):
        lines += [
            f"After {part['steps']} steps the weights of a run stopped half-way and resumed differ "
            f"by at most {part['largest_difference']:.1e} from those of the run in one piece, and "
            "those of two runs in one piece by "
            f"{part['largest_difference_of_two_whole_runs']:.1e}: "
            f"sums on a GPU are not repeatable bit for bit ({part['device']}, {_when(part)}).",
            "",
        ]
    return "\n".join(lines)


def _when(part: Record) -> str:
    return f"{part['date']}, commit {part['commit']}"


def _quality_row(name: str, row: Record) -> str:
    flags = row["flags"]
    cells = (
        f"{name}, {flags['hidden_channels']} × {flags['num_layers']}, {flags['steps']:,} steps of "
        f"{flags['batch_size']}",
        f"{row['value']:.2f} ± {row['stderr']:.2f}", f"{row['bits_per_dim']:.4f}",
        f"{row['count']:,}", f"{row['parameters']:,}", f"{row['train_seconds']:.0f} s",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _training_row(name: str, row: Record) -> str:
    eager, compiled = row["eager"], row["compiled"]
    memory = f"{row['peak_bytes'] / 2**30:.1f} GiB" if "peak_bytes" in row else ""
    cells = (
        name, row["batch"], f"{eager['images_per_second']:,.0f}",
        f"{eager['share_of_matrix_rate']:.1%}", f"{compiled['images_per_second']:,.0f}",
        f"{compiled['share_of_matrix_rate']:.1%}", f"{compiled['first_step']:.0f} s", memory,
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _sampling_row(row: Record) -> str:
    def cell(name: str, form: str) -> str:
        return format(row[name], form) if name in row else ""

    cells = (
        f"batch {row['batch']}", cell("forward", ".4f"), cell("recorded", ".3f"),
        cell("over_forward", ".1f"), cell("launched", ".3f"), cell("plain", ",.0f"),
        cell("images_per_second", ",.0f"),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(config: Config) -> None:
    """Run the parts and write the file."""
    if config.show is not None:
        print(tables(json.loads(config.show.read_text())))
        return
    if config.device.type != "cuda" and not config.small:
        sys.exit("error: expected a CUDA device, found none: --small tests the script without one")
    unknown = set(config.parts) - set(PARTS)
    if unknown:
        sys.exit(f"error: expected --parts among {', '.join(PARTS)}, got {', '.join(unknown)}")
    if config.data_dir is not None:
        config = replace(config, data_dir=config.data_dir.expanduser().resolve())
    record: Record = {}
    if config.parts and config.out.exists():
        record = json.loads(config.out.read_text())
    for name in tqdm(config.parts or PARTS, unit="part"):
        start = time.monotonic()
        try:
            part = PARTS[name](config)
        except Exception as error:
            traceback.print_exc()
            part = {"error": f"{type(error).__name__}: {error}"}
        about = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "device": card(config)}
        record[name] = {**about, "seconds": time.monotonic() - start, **part}
        config.out.write_text(json.dumps(record, indent=1) + "\n")
    print(tables(record))
    print(f"written to {config.out}")
    failed = [name for name, part in record.items() if "error" in part]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
