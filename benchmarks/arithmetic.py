"""Cost of an epoch of ImageNet64 for each preset: operations, bytes, and time on H100s.

    python benchmarks/arithmetic.py [--share 0.3] [--decoding 4860]

Operations and bytes are counted on tensors without data, one call of PyTorch after another, forward
and backward: the products of convolutions and matrices, two operations for each multiplication and
addition; and what every call reads and writes, in bfloat16, nothing fused, so that a compiled step
moves less. A step takes the longest of operations over a share of the peak rate, bytes over a share
of the memory's bandwidth, and calls times what starting one costs; shares and cost are assumptions,
not measurements. For eight devices the exchange of float32 gradients is added, as if none of it
overlapped with the backward pass.

Source of the H100 SXM's figures: NVIDIA H100 Tensor Core GPU Datasheet (2023),
https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
import tyro
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pipelines import pixelcnn, pixelvae
from pipelines.model import Model
from pipelines.runs.record import ImageSpec

IMAGES = 1_281_149
SHAPE = (3, 64, 64)
PEAK = 989e12  # operations per second in bfloat16, dense
BANDWIDTH = 3.35e12  # bytes per second
LINK = 450e9  # bytes per second in one direction
VIEWS = ("view", "expand", "transpose", "permute", "detach", "slice", "split", "unsqueeze", "alias")


class Traffic(TorchDispatchMode):
    """Count of calls, and of the bytes that they read and write, floats as bfloat16."""

    calls = total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not any(view in func.__name__ for view in VIEWS):
            self.calls += 1
            for tensor in tree_leaves((args, kwargs, out)):
                if isinstance(tensor, torch.Tensor):
                    size = 2 if tensor.is_floating_point() else tensor.element_size()
                    self.total += tensor.numel() * size
        return out


def count(model: Model, images: int = 4) -> tuple[float, float, int]:
    """Return operations and bytes of one image in training, and calls of one step."""
    model = model.to("meta").train()
    x = torch.zeros(images, *SHAPE, dtype=torch.uint8, device="meta")
    with torch.device("meta"), FlopCounterMode(display=False) as operations, Traffic() as traffic:
        terms = model(x)
        (terms.distortion + terms.rate).sum().backward()
    return operations.get_total_flops() / images, traffic.total / images, traffic.calls


def main(
    share: float = 0.3,
    bandwidth_share: float = 0.6,
    call_seconds: float = 5e-6,
    decoding: float = 4860.0,
) -> None:
    """Print a Markdown table.

    Args:
        share: of the peak rate of operations that is assumed.
        bandwidth_share: of the bandwidths, of memory and between devices, that is assumed.
        call_seconds: what starting a call costs, assumed.
        decoding: PNGs that a core packs in a second, as benchmarks/data.py measures it.
    """
    presets = {
        "pixelvae --preset small": (pixelvae.PRESETS["small"], pixelvae.build),
        "pixelvae --preset big": (pixelvae.PRESETS["big"], pixelvae.build),
        "pixelcnn --preset paper": (pixelcnn.PRESETS["paper"], pixelcnn.build),
    }
    print(
        "| preset | parameters | batch | steps per epoch | operations per image | bytes per image |"
        " operations per epoch | calls per step | one H100 | eight |\n" + "| --- " * 10 + "|"
    )
    for name, (config, build) in presets.items():
        model = build(config, ImageSpec(SHAPE, 256))  # type: ignore[operator]
        parameters = sum(p.numel() for p in model.parameters())
        operations, moved, calls = count(model)
        batch = config.training.batch_size
        steps = ceil(IMAGES / batch)
        image = max(operations / (share * PEAK), moved / (bandwidth_share * BANDWIDTH))
        one = steps * max(batch * image, calls * call_seconds)
        exchange = 2 * 7 / 8 * 4 * parameters / (bandwidth_share * LINK)
        eight = steps * (max(batch / 8 * image, calls * call_seconds) + exchange)
        print(
            f"| `{name}` | {parameters / 1e6:.1f} M | {batch} | {steps:,} | "
            f"{operations / 1e9:,.0f} G | {moved / 1e9:.1f} GB | {operations * IMAGES:.1e} | "
            f"{calls:,} | {one / 3600:.1f} h | {eight / 3600:.1f} h |"
        )
    print(f"\npacking {IMAGES:,} PNGs on 16 cores: {IMAGES / decoding / 16:.0f} s")


if __name__ == "__main__":
    tyro.cli(main)
