"""Compare coding by the scan with a faster way that can't be decoded: sizes, times, agreement.

    python benchmarks/compression.py [--threads 1]

An encoder could compute the parameters of a whole batch at once (teacher forcing); a decoder can't.
This script prints, for float32 and float64,

- encoding by the scan and decoding, in seconds, and over one forward pass of the same batch;
- the file's bits over the model's negative log-likelihood;
- on how many sub-pixels the coder's table (24-bit steps) differs between the two ways, and whether
  the scan decodes what was encoded the faster way;
- whether a file is decoded by a scan of another batch shape, and with another number of threads.

The weights are random, but large enough that the probabilities are far from uniform.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from torch import Tensor

from decoders import GatedPixelCNN, coding
from decoders.scan import ReadyScan

CASES = [((1, 28, 28), 2, 32), ((3, 32, 32), 256, 4), ((3, 64, 64), 256, 2)]
TABLE_STEPS = 2**24


@torch.no_grad()
def build(shape: tuple[int, int, int], levels: int, dtype: torch.dtype) -> GatedPixelCNN:
    torch.manual_seed(0)
    decoder = GatedPixelCNN(shape, num_levels=levels).to(dtype).eval()
    for parameter in decoder.parameters():
        parameter.mul_(1.5)
    return decoder


@torch.no_grad()
def encoded(decoder: GatedPixelCNN, x: Tensor, *, at_once: bool) -> tuple[np.ndarray, list]:
    """Return the words of a file, and the table of every sub-pixel."""
    tape = coding._Tape()
    if at_once:
        ready = ReadyScan(decoder.params(x))
        choose = coding._Encode(decoder.likelihood, x, tape)  # pyright: ignore
        coding.run(ready, choose, decoder.image_shape, len(x), decoder.dtype)
    else:
        coding.encode(decoder, x, tape)
    coder = coding.RangeEncoder()
    for symbols, table in tape.entries:
        coder.encode(symbols, coding._TABLE, table)
    return coder.get_compressed(), [table for _, table in tape.entries]


def decodes(decoder: GatedPixelCNN, words: np.ndarray, x: Tensor, batch: int | None = None) -> str:
    try:
        reader = coding.RangeDecoder(words)
        back = coding.decode(decoder, len(x), reader, batch=batch or len(x))
    except coding.CodingError:
        return "fails"
    return "exact" if torch.equal(back, x) else "WRONG IMAGES"


def steps(table: np.ndarray) -> np.ndarray:
    return np.floor(np.cumsum(table, axis=1)[:, :-1] * TABLE_STEPS)  # the last is 1


def measure(shape: tuple[int, int, int], levels: int, num: int, dtype: torch.dtype) -> None:
    decoder = build(shape, levels, dtype)
    x = torch.randint(levels, (num, *shape), generator=torch.Generator().manual_seed(1))
    x = x.to(torch.uint8)
    began = time.perf_counter()
    with torch.no_grad():
        nll = -float(decoder.log_prob(x).double().sum()) / math.log(2)
    forward = time.perf_counter() - began
    began = time.perf_counter()
    coder = coding.RangeEncoder()
    coding.encode(decoder, x, coder)
    encoding = time.perf_counter() - began
    words = coder.get_compressed()
    began = time.perf_counter()
    here = decodes(decoder, words, x)
    decoding = time.perf_counter() - began
    fast, fast_tables = encoded(decoder, x, at_once=True)
    _, tables = encoded(decoder, x, at_once=False)
    differ = np.mean(
        [(steps(a) != steps(b)).any(axis=1) for a, b in zip(fast_tables, tables, strict=True)]
    )
    print(f"{'×'.join(map(str, shape))}, {levels} levels, batch {num}, {str(dtype)[6:]}")
    print(f"  forward {forward:.2f} s   encode {encoding:.2f} s   decode {decoding:.2f} s")
    print(f"  encode / forward {encoding / forward:.1f}   bits / NLL {32 * len(words) / nll:.5f}")
    print(f"  same path                     {here}")
    print(f"  tables differ, at once / scan {differ:.2%} of sub-pixels")
    print(f"  encoded at once               {decodes(decoder, fast, x)}")
    print(f"  decoded in a larger batch     {decodes(decoder, words, x, num + 5)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    print(f"  decoded with other threads    {decodes(decoder, words, x)}", flush=True)
    torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    for case in CASES:
        for dtype in (torch.float32, torch.float64):
            measure(*case, dtype)


if __name__ == "__main__":
    main()
