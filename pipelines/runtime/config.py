"""Configurations: nested frozen dataclasses, whose fields are one flat set of flags.

No two fields of a configuration share a name, wherever they are nested, so that files, presets and
command lines name a field alone. Bounds are on the fields, as `Annotated[int, msgspec.Meta(ge=1)]`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from pipelines.runtime.errors import ConfigError

C = TypeVar("C")

LARGEST = 1e30  # of any number: float32 has room for what is computed from it

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Amount = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]

_BOUNDS = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "more than"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "below"),
}
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"]


class Bounded:
    """Base of dataclasses that check the bounds of their fields.

    >>> @dataclass(frozen=True)
    ... class Drawing(Bounded):
    ...     num_samples: Positive = 64
    >>> Drawing(num_samples=0)
    Traceback (most recent call last):
    pipelines.runtime.errors.ConfigError: --num-samples must be at least 1, got 0
    """

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, (int, float)) and (bound := _violated(value, hint)):
                raise ConfigError(f"{flag(name)} must be {bound}, got {value}")


@dataclass(frozen=True)
class DeviceConfig(Bounded):
    """Devices to compute on."""

    accelerator: Accelerator = "auto"
    """Kind of device."""
    devices: str = "auto"
    """Number of devices, a list such as 0,2, or auto."""
    num_nodes: Positive = 1
    """Number of machines."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Several devices: whole copies (ddp), or weights in pieces (fsdp) for models too large."""


def flag(name: str) -> str:
    """Return the flag of a field: --batch-size for batch_size."""
    return "--" + name.replace("_", "-")


def flat(config: Any) -> dict[str, Any]:
    """Return the fields of a configuration by name, those of nested ones among them.

    >>> flat(DeviceConfig(devices="2"))["devices"]
    '2'
    """
    found: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        inner = flat(value) if dataclasses.is_dataclass(value) else {item.name: value}
        assert not found.keys() & inner, f"two fields share a name: {found.keys() & inner}"
        found |= inner
    return found


def changed(config: C, values: Mapping[str, Any]) -> C:
    """Return a configuration with other values of some fields, nested ones among them.

    JSON's lists become tuples where the field is one.

    Raises:
        ConfigError: there is no such field, or its value is of another type or out of bounds.

    >>> changed(DeviceConfig(), {"device": "2"})
    Traceback (most recent call last):
    pipelines.runtime.errors.ConfigError: there is no field 'device': did you mean 'devices'?
    """
    known = flat(config)
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f": did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"there is no field {name!r}{guess}")
    return _changed(config, values)


def _changed(config: Any, values: Mapping[str, Any]) -> Any:
    hints = _hints(type(config))
    new: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            new[item.name] = _changed(value, values)
        elif item.name in values:
            new[item.name] = _converted(item.name, values[item.name], hints[item.name])
    return dataclasses.replace(config, **new)


def _converted(name: str, value: Any, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        if isinstance(value, (int, float)) and (bound := _violated(value, hint)):
            raise ConfigError(f"{flag(name)} must be {bound}, got {value}") from error
        raise ConfigError(f"{name} can't be {value!r}: {error}") from error


def value_of(args: Sequence[str], name: str) -> str | None:
    """Return the value of a flag among raw arguments, before they are parsed; the last of several.

    >>> value_of(["--data", "mnist", "--lr=1"], "data"), value_of(["--data=a"], "out")
    ('mnist', None)
    """
    found = None
    for position, word in enumerate(args):
        if word == flag(name) and position + 1 < len(args):
            found = args[position + 1]
        if word.startswith(flag(name) + "="):
            found = word.partition("=")[2]
    return found


def is_given(args: Sequence[str], name: str) -> bool:
    """Tell whether a field's flag, or its --no- form, is among raw arguments."""
    words = {word.partition("=")[0].replace("_", "-") for word in args if word.startswith("--")}
    return bool({flag(name), flag("no_" + name)} & words)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a question that names the closest of the known words, or else all of them.

    >>> suggestion("minst", ["mnist", "digits"]), suggestion("x", ["mnist", "digits"])
    (": did you mean 'mnist'?", ': choose one of mnist, digits')
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {close[0]!r}?" if close else f": choose one of {', '.join(known)}"


@functools.cache
def _hints(config_class: type) -> dict[str, Any]:
    return get_type_hints(config_class, include_extras=True)


def _violated(value: float, hint: Any) -> str:
    """Say which bound a number violates; empty for one within all."""
    for meta in getattr(hint, "__metadata__", ()):
        if not isinstance(meta, Meta):
            continue
        bounds = {key: getattr(meta, key) for key in _BOUNDS if getattr(meta, key) is not None}
        if not all(_BOUNDS[key][0](value, bound) for key, bound in bounds.items()):
            return " and ".join(f"{_BOUNDS[key][1]} {bound}" for key, bound in bounds.items())
    if isinstance(value, float) and not (math.isfinite(value) and abs(value) <= LARGEST):
        return f"finite, and at most {LARGEST:g}"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "below 2^63"
    return ""
