"""Results: the scores of a run, with the data and the command they come from.

A `Result` checks itself when it is created, so that no file contains a contradiction.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

import msgspec
import numpy as np

from eval.collapse import Latents
from eval.errors import ResultError
from eval.scores import bits_per_dim

SCHEMA = 1
RANKED_KINDS = ("exact", "bound", "estimate")
DERIVED = ("schema", "unit", "bits_per_dim", "bits_per_dim_stderr")  # written, but not fields


def agree(a: float, b: float) -> bool:
    """Tell whether two numbers of a result are the same but for rounding."""
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Importance-weighted NLL: the number of samples, nats per image and its standard error."""

    k: int
    nats: float
    stderr: float = math.nan  # for a single image


@dataclass(frozen=True)
class Probe:
    """Test accuracy in 0..1 of one classifier on one set of features."""

    features: str  # "code" or the name of a level, "pixels", "pca"
    classifier: str  # "logistic regression" or "nearest neighbors"
    dims: int
    accuracy: float
    stderr: float  # binomial, over the test set
    count: int  # test examples


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores of a model on one split of a data set, in nats per image.

    Attributes:
        kind: "exact"; "bound" (a negative ELBO); "estimate" (importance-weighted with `k` samples);
            or "given label", "given code", … for log p(x | h), not a likelihood of x alone.
        value: mean negative log-likelihood, or its bound or estimate.
        stderr: standard error of the mean; NaN (null in the file) for a single image.
        estimate: importance-weighted estimate for a bound.
        estimates: that estimate for rising K.
        rate, distortion: the two terms of a bound; rate is None without latents.
        rates: rate of each latent level, top first.
        subset: whether only part of the split was scored.
        train_seconds: training time without interruptions; None if another command trained.
        seconds: running time of the process that wrote the file.
        latents: measurements of the latents, if the model has any.
        probes: accuracies of simple classifiers on the code.
        extra: further keys of the file, unchanged.

    Raises:
        ResultError: the parts contradict one another.

    >>> images = dict(data="mine", variant="", split="test", count=100, subset=False, levels=2)
    >>> images |= dict(fingerprint="", image_shape=(1, 8, 8), binarize="none", condition="none")
    >>> model = dict(pipeline="own", name="net", command="python net.py", date="2026-01-01")
    >>> scores = dict(kind="exact", value=20.0, stderr=0.5, distortion=20.0)
    >>> round(Result(**model, **images, **scores).bits_per_dim, 4)
    0.4508
    >>> Result(**model, **images, **{**scores, "distortion": 19.0})
    Traceback (most recent call last):
    eval.errors.ResultError: rate + distortion is 19 nats, but value is 20
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
    estimates: tuple[Estimate, ...] = ()
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
    latents: Latents | None = None
    probes: tuple[Probe, ...] = ()
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
        """Return the JSON object for a file, in both units."""
        record: dict[str, Any] = {"schema": SCHEMA, **asdict(self), "unit": "nats/image"}
        stated = [] if self.estimate is None else [record["estimate"]]
        for point in [*stated, *record["estimates"]]:
            point["bits_per_dim"] = bits_per_dim(point["nats"], self.dims)
        record["latents"] = None if self.latents is None else self.latents.to_json()
        record.update(record.pop("extra"))
        record["bits_per_dim"] = self.bits_per_dim
        record["bits_per_dim_stderr"] = bits_per_dim(self.stderr, self.dims)
        return _null(record)

    @classmethod
    def from_json(cls, record: Any) -> Result:
        """Return the result in a file's JSON object.

        Raises:
            ResultError: a field is missing, has the wrong type, or contradicts another.
        """
        if not isinstance(record, dict):
            raise ResultError(f"expected a JSON object, got {type(record).__name__}")
        if record.get("schema") != SCHEMA:
            raise ResultError(f"expected schema {SCHEMA}, got {record.get('schema')!r}")
        known = {f.name for f in fields(cls)} - {"extra"}
        extra = {n: value for n, value in record.items() if n not in known and n not in DERIVED}
        given = {n: value for n, value in record.items() if n in known}
        result = _convert({**_nan_for_null(given), "extra": extra}, cls)
        _check_derived(record, result)
        if result.baseline is not None:
            _convert(result.baseline.get("value"), float, "baseline.value")
        return result


def _nan_for_null(record: dict[str, Any]) -> dict[str, Any]:
    """Undo `_null`: a null standard error becomes NaN, other null fields get their default."""
    given: dict[str, Any] = {n: v for n, v in record.items() if v is not None or n in REQUIRED}
    if given.get("stderr", 0) is None:
        given["stderr"] = math.nan
    if isinstance(given.get("estimate"), dict):
        given["estimate"] = _without_null(given["estimate"])
    if isinstance(given.get("estimates"), list):
        given["estimates"] = [_without_null(point) for point in given["estimates"]]
    return given


def _without_null(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if part is not None}


def _convert(value: Any, kind: Any, name: str = "") -> Any:
    """Return a JSON value as a type, strictly: true is not an int, nor "1" a number.

    Raises:
        ResultError: it has another type, or contradicts itself; names the field.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ResultError):
            raise error.__cause__ from None
        problem, _, path = str(error).replace("`", "").partition(" - at $")
        path = f"{name}{path}".lstrip(".")
        problem = problem[0].lower() + problem[1:]
        raise ResultError(f"{path}: {problem}" if path else problem) from error


def _check_derived(record: dict[str, Any], result: Result) -> None:
    """Check the numbers of a file that follow from others."""
    if record.get("unit", "nats/image") != "nats/image":
        raise ResultError(f"expected the unit 'nats/image', got {record['unit']!r}")
    derived = {
        "bits_per_dim": (record, result.value),
        "bits_per_dim_stderr": (record, result.stderr),
        "estimate.bits_per_dim": (record.get("estimate"), result.estimate and result.estimate.nats),
    }
    for name, (place, nats) in derived.items():
        stated = place and place.get(name.rpartition(".")[2])
        if stated is None or nats is None:
            continue
        value = bits_per_dim(nats, result.dims)
        if not agree(_convert(stated, float, name), value):
            raise ResultError(f"{name} is {stated:.5g}, but {value:.5g} follows from the nats")


REQUIRED = {f.name for f in fields(Result) if f.default is MISSING and f.default_factory is MISSING}


def _null(value: Any) -> Any:
    """Replace every NaN, such as the standard error of a single image, by JSON's null."""
    if isinstance(value, dict):
        return {name: _null(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _contradiction(r: Result) -> str | None:
    """Return one sentence about what contradicts what in a result, or None."""
    for name in ("value", "distortion", "rate", "rates", "train_seconds", "seconds"):
        numbers = np.array(getattr(r, name) or 0.0)
        if not np.isfinite(numbers).all():
            return f"{name} must be finite, got {numbers.tolist()}"
    if r.kind not in RANKED_KINDS and not r.kind.startswith("given "):
        return f"expected the kind exact, bound, estimate or 'given …', got kind {r.kind!r}"
    if (r.kind == "estimate") != (r.k is not None) or (r.k is not None and r.k < 1):
        return f"kind {r.kind!r} has k={r.k}: K of at least 1 belongs to an estimate alone"
    if r.stderr < 0 or math.isinf(r.stderr) or (math.isnan(r.stderr) and r.count > 1):
        return f"stderr {r.stderr} of {r.count} images is not a standard error"
    if r.count < 1 or r.levels < 2 or len(r.image_shape) != 3 or min(r.image_shape) < 1:
        return (
            f"{r.count} images of shape {list(r.image_shape)} with {r.levels} levels are impossible"
        )
    if r.binarize != "none" and r.levels != 2:
        return f"binarize {r.binarize!r} leaves 2 levels, not {r.levels}"
    if r.kind == "exact" and r.rate:
        return f"an exact likelihood has no rate, got {r.rate}"
    total = r.distortion + (r.rate or 0.0)
    if r.kind != "estimate" and not agree(total, r.value):
        return f"rate + distortion is {total:.5g} nats, but value is {r.value:.5g}"
    if r.rates and not agree(sum(r.rates), r.rate or 0.0):
        return f"the levels' rates sum to {sum(r.rates):.5g} nats, but rate is {r.rate}"
    if r.estimate is not None:
        if r.estimate.k < 1 or r.kind != "bound" or not math.isfinite(r.estimate.nats):
            return f"an estimate (K={r.estimate.k}) needs a bound, got kind {r.kind!r}"
        slack = 4 * max(r.stderr, r.estimate.stderr) if r.count > 1 else math.inf
        if r.estimate.nats > r.value + slack:
            return f"the estimate {r.estimate.nats:.5g} is worse than its bound {r.value:.5g}"
    return None
