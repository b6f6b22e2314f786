"""Result files: what a run scored, on what, and how; strictly read, so that a table can be trusted.

A `Result` checks itself when it is made, so a contradiction can neither be written nor read.
"""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from eval.errors import ResultError
from eval.files import read_array, write_whole
from eval.scores import bits_per_dim

SCHEMA = 1
RANKED_KINDS = ("exact", "bound", "estimate")


def _agree(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An importance-weighted NLL: nats per image, its standard error, and the number of samples."""

    k: int
    nats: float
    stderr: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a model scored on one split of one data set, in nats per image.

    Attributes:
        kind: "exact"; "bound" (a negative ELBO); "estimate" (importance-weighted with `k` samples);
            or "given label", "given code", … for log p(x | h), which is no likelihood of x alone.
        value: mean negative log-likelihood, or its bound or estimate.
        stderr: standard error of the mean; NaN (null in the file) for a single image.
        estimate: the importance-weighted estimate beside a bound.
        rate, distortion: the bound's two parts; rate is None without latents.
        rates: of each latent level, top first.
        subset: whether fewer images than the whole split were scored.
        train_seconds: of the training, interruptions left out; None where it was another command's.
        seconds: of the process that wrote the file, everything included.
        extra: further keys of the file, kept as they are.

    Raises:
        ResultError: the parts contradict one another.
    """

    pipeline: str
    name: str
    kind: str
    value: float
    stderr: float
    distortion: float
    data: str
    variant: str
    split: str
    count: int
    subset: bool
    fingerprint: str
    image_shape: tuple[int, ...]
    levels: int
    binarize: str
    condition: str
    command: str
    date: str
    rate: float | None = None
    rates: tuple[float, ...] = ()
    k: int | None = None
    estimate: Estimate | None = None
    baseline: dict[str, Any] | None = None
    parameters: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    seconds: float | None = None
    precision: str | None = None
    seed: int | None = None
    commit: str | None = None
    versions: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        problem = _contradiction(self)
        if problem:
            raise ResultError(problem)

    @property
    def dims(self) -> int:
        """Sub-pixels of an image, C·H·W."""
        return math.prod(self.image_shape)

    @property
    def bits_per_dim(self) -> float:
        """`value` in bits per dimension."""
        return bits_per_dim(self.value, self.dims)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the file, both units written out."""
        record = {"schema": SCHEMA, **asdict(self), "unit": "nats/image"}
        record.update(record.pop("extra"))
        record["bits_per_dim"] = self.bits_per_dim
        record["bits_per_dim_stderr"] = bits_per_dim(self.stderr, self.dims)
        if self.estimate is not None:
            record["estimate"]["bits_per_dim"] = bits_per_dim(self.estimate.nats, self.dims)
        return _null(record)

    @classmethod
    def from_json(cls, record: Any) -> Result:
        """Read the JSON object of a file; whatever is missing, mistyped or contradictory raises."""
        if not isinstance(record, dict):
            raise ResultError(f"a result is a JSON object, got {type(record).__name__}")
        if record.get("schema") != SCHEMA:
            raise ResultError(
                f"schema {record.get('schema')!r} is not {SCHEMA}, the one known here"
            )
        known = {f.name: f for f in fields(cls) if f.name != "extra"}
        missing = [n for n, f in known.items() if _required(f) and n not in record]
        if missing:
            raise ResultError(f"missing: {', '.join(missing)}")
        given = {n: _typed(n, record[n], known[n]) for n in known if n in record}
        beside = {"schema", "unit", "bits_per_dim", "bits_per_dim_stderr"}
        extra = {n: value for n, value in record.items() if n not in known and n not in beside}
        result = cls(**given, extra=extra)
        if record.get("unit", "nats/image") != "nats/image":
            raise ResultError(f"unit {record['unit']!r} is not 'nats/image'")
        _check_stated(record, "bits_per_dim", result.bits_per_dim)
        _check_stated(record, "bits_per_dim_stderr", bits_per_dim(result.stderr, result.dims))
        if result.estimate is not None:
            estimated = bits_per_dim(result.estimate.nats, result.dims)
            _check_stated(record["estimate"], "bits_per_dim", estimated)
        return result


def _check_stated(record: dict[str, Any], name: str, value: float) -> None:
    """Hold a number of the file that follows from others against them."""
    stated = record.get(name)
    if stated is None:
        return
    if not _agree(_typed_as(name, stated, (int, float)), value):
        raise ResultError(f"{name} is {value:.5g} by the nats, but it says {stated:.5g}")


def _null(value: Any) -> Any:
    """Return JSON's null for every NaN: the standard error of a single image is one."""
    if isinstance(value, dict):
        return {name: _null(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _required(item: Any) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "dict[str, Any]": (dict,),
    "tuple[int, ...]": (list, tuple),
    "tuple[float, ...]": (list, tuple),
    "Estimate": (dict,),
}


def _typed_as(name: str, value: Any, types: tuple[type, ...]) -> Any:
    # bool is an int to Python, but a result that says `true` images is none to us.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ResultError(f"{name} must be {types[-1].__name__}, got {json.dumps(value)[:60]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ResultError(f"{name} must be a finite number, got {value}")
    return value


def _typed(name: str, value: Any, item: Any) -> Any:
    """Check one field against its annotation, and turn JSON's lists and objects into ours."""
    kind = str(item.type).removesuffix(" | None")
    if value is None:
        if name == "stderr":
            return math.nan
        if kind == str(item.type) and _required(item):
            raise ResultError(f"{name} must not be null")
        return item.default if item.default is not MISSING else item.default_factory()
    _typed_as(name, value, _TYPES[kind])
    if kind.startswith("tuple"):
        inner = (int,) if "int" in kind else (int, float)
        return tuple(_typed_as(f"{name}[{i}]", part, inner) for i, part in enumerate(value))
    if kind == "Estimate":
        stderr = value.get("stderr")
        return Estimate(
            k=_typed_as("estimate.k", value.get("k"), (int,)),
            nats=_typed_as("estimate.nats", value.get("nats"), (int, float)),
            stderr=math.nan
            if stderr is None
            else _typed_as("estimate.stderr", stderr, (int, float)),
        )
    return value


def _contradiction(r: Result) -> str | None:
    """Return what is wrong with a result in one sentence, or None."""
    numbers = [r.value, r.distortion, r.rate or 0.0, *r.rates]
    if not all(math.isfinite(number) for number in numbers):
        return f"value, distortion and rate must be finite, got {numbers}"
    if r.kind not in RANKED_KINDS and not r.kind.startswith("given "):
        return f"kind {r.kind!r} is not exact, bound, estimate or 'given …'"
    if (r.kind == "estimate") != (r.k is not None) or (r.k is not None and r.k < 1):
        return f"a result of kind {r.kind!r} has k={r.k}: K of at least 1 belongs to an estimate"
    if r.stderr < 0 or (math.isnan(r.stderr) and r.count > 1):
        return f"stderr {r.stderr} over {r.count} images is no standard error"
    if r.count < 1 or r.levels < 2 or len(r.image_shape) != 3 or min(r.image_shape) < 1:
        return f"{r.count} images of shape {list(r.image_shape)} with {r.levels} levels can't be"
    if r.binarize != "none" and r.levels != 2:
        return f"binarize {r.binarize!r} leaves 2 levels, not {r.levels}"
    if r.kind == "exact" and r.rate:
        return f"an exact likelihood has no rate, got {r.rate}"
    total = r.distortion + (r.rate or 0.0)
    if r.kind != "estimate" and not _agree(total, r.value):
        return f"rate + distortion is {total:.5g} nats, but value says {r.value:.5g}"
    if r.rates and not _agree(sum(r.rates), r.rate or 0.0):
        return f"the levels' rates sum to {sum(r.rates):.5g} nats, but rate says {r.rate}"
    if r.estimate is not None:
        if r.estimate.k < 1 or r.kind != "bound" or not math.isfinite(r.estimate.nats):
            return f"an estimate (K={r.estimate.k}) belongs beside a bound, got kind {r.kind!r}"
        slack = 4 * max(r.stderr, r.estimate.stderr) if r.count > 1 else math.inf
        if r.estimate.nats > r.value + slack:
            return f"the estimate {r.estimate.nats:.5g} is worse than its bound {r.value:.5g}"
    return None


def write_result(result: Result, path: Path | str) -> None:
    """Write a result file as a whole or not at all."""
    write_whole(Path(path), to_bytes(result))


def to_bytes(result: Result) -> bytes:
    """Return the content of a result file.

    Half of a surrogate pair, from bytes of a command line that are not UTF-8, is escaped: JSON
    reads that as what it was.
    """
    text = json.dumps(result.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def _no_constant(name: str) -> Any:
    raise ResultError(f"{name} is not a number")


def scores_beside(path: Path) -> Path:
    """Return where a result file's per-image nats are: nll.npy, or <name>.nll.npy of another."""
    return path.parent / ("nll.npy" if path.name == "result.json" else f"{path.stem}.nll.npy")


def read_result(path: Path | str) -> Result:
    """Read a result file, or a run directory's `result.json`.

    Raises:
        ResultError: it can't be read or contradicts itself or the scores beside it; names the file.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
        result = Result.from_json(json.loads(text, parse_constant=_no_constant))
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ResultError(f"{path}: {reason}") from error
    if scores_beside(path).exists():
        read_scores(path, result)
    return result


def read_scores(path: Path, result: Result) -> np.ndarray:
    """Read the per-image nats (N,) beside a result file, float64.

    Raises:
        ResultError: there are none, they can't be read, or they contradict the result.
    """
    file = scores_beside(path)
    if not file.exists():
        raise ResultError(f"{file} is missing: evaluate the run again to write it")
    stored = read_array(file)
    if stored.shape != (result.count,):
        raise ResultError(
            f"{path}: says {result.count} images, but {file.name} has {list(stored.shape)}"
        )
    values = np.asarray(stored, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ResultError(f"{file} holds scores that are not finite: evaluate the run again")
    if result.kind != "estimate" and not _agree(float(values.mean()), result.value):
        raise ResultError(
            f"{path}: says {result.value:.5g} nats, but {file.name} has {values.mean():.5g}"
        )
    return values
