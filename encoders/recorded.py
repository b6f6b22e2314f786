"""Objects that remember the arguments they were made with, so that they can be made again.

Class(*args, **kwargs) ── Recorded ── {"class": …, "arguments": …} ── rebuild ── the same object

This file is the same in `decoders` and in `encoders`, which do not import one another.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
import sys
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self

OWN = ("decoders", "encoders", "pipelines")  # packages whose classes need no trust
HERE = __name__.partition(".")[0]


class PretrainedError(ValueError):
    """A model can't be saved or loaded; the message says why, and what to do."""

    for_user = True  # a command prints the message alone, without a traceback


class Recorded:
    """Remembers the arguments that an object is made with, so that it can be made again.

    Decoders, encoders and likelihoods are recorded. A network of your own that is an argument of
    one of them can be saved with it if it is recorded too: name this class before `nn.Module`. Its
    own arguments may be numbers, texts, tuples, lists, dicts, None and recorded objects.

    Attributes:
        recorded: class and arguments, as JSON holds them; or a sentence that says why they can't
            be saved.

    >>> class Linear(Recorded, torch.nn.Module):
    ...     def __init__(self, size, bias=True):
    ...         super().__init__()
    >>> Linear(3).recorded["arguments"]
    {'size': 3, 'bias': True}
    """

    is_recorded: ClassVar[bool] = True
    recorded: dict[str, Any] | str

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        # Not by attribute: nn.Module accepts none before its own constructor.
        self.__dict__["recorded"] = _describe(cls, args, kwargs)
        return self


def _describe(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | str:
    """Return class and arguments as JSON holds them, or why they can't be saved."""
    try:
        positional, named = _arguments(cls, args, kwargs)
        described: dict[str, Any] = {"class": name_of(cls)}
        if positional:
            described["positional"] = [
                _encoded(value, f"argument {place}", cls) for place, value in enumerate(positional)
            ]
        described["arguments"] = {
            name: _encoded(value, f"argument {name!r}", cls) for name, value in named.items()
        }
    except PretrainedError as error:
        return str(error)
    except TypeError as error:  # the constructor refuses the arguments too
        return f"a {cls.__name__} can't be saved: {error}"
    return described


def name_of(cls: type) -> str:
    """Return package:Class where a package of the toolkit exports it, else package.module:Class."""
    top = cls.__module__.partition(".")[0]
    public = top in OWN and getattr(sys.modules.get(top), cls.__name__, None) is cls
    return f"{top if public else cls.__module__}:{cls.__qualname__}"


def _arguments(
    cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and named arguments of a constructor, defaults among them.

    A default may change, and a saved model must not.
    """
    signature = inspect.signature(cls.__init__)
    bound = signature.bind(None, *args, **kwargs)
    bound.apply_defaults()
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in list(signature.parameters.values())[1:]:
        value = bound.arguments[parameter.name]
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= value
        elif parameter.kind is parameter.VAR_POSITIONAL:
            positional += value
        elif parameter.kind is parameter.KEYWORD_ONLY or (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and parameter.VAR_POSITIONAL not in kinds
        ):
            named[parameter.name] = value
        else:
            positional.append(value)
    return positional, {**_inherited(cls), **named}


def _inherited(cls: type) -> dict[str, Any]:
    """Return the defaults of the base classes that a constructor hands its other arguments to.

    Of the toolkit's classes: others may fix an argument of their base class themselves.
    """
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        constructor = base.__dict__.get("__init__")
        if constructor is None:
            continue
        if base.__module__.partition(".")[0] not in OWN:
            break
        parameters = inspect.signature(constructor).parameters.values()
        for parameter in parameters if base is not cls else ():
            if (
                parameter.kind is parameter.KEYWORD_ONLY
                and parameter.default is not parameter.empty
            ):
                found.setdefault(parameter.name, parameter.default)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _encoded(value: Any, what: str, cls: type) -> Any:
    """Return a value as JSON holds it: tuples are its lists, lists and dicts are marked."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) in (tuple, torch.Size):
        return [_encoded(one, what, cls) for one in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, list):
        return {"list": [_encoded(one, what, cls) for one in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encoded(one, what, cls) for key, one in value.items()}}
    described = getattr(value, "recorded", None)
    if isinstance(described, dict):
        return described
    if isinstance(described, str):
        raise PretrainedError(described)
    kind = value if isinstance(value, (float, type)) else f"a {type(value).__name__}"
    raise PretrainedError(
        f"a {cls.__name__} with {kind} as its {what} can't be saved: give a number, a text, a "
        f"tuple, or an object whose class derives from {HERE}.Recorded"
    )


def _decoded(value: Any, trusted: Sequence[str] | None) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(one, trusted) for one in value)
    if not isinstance(value, dict):
        return value
    if "class" in value:
        return rebuild(value, trusted)
    if isinstance(value.get("list"), list):
        return list(_decoded(value["list"], trusted))
    if isinstance(value.get("dict"), dict):
        return {key: _decoded(one, trusted) for key, one in value["dict"].items()}
    raise PretrainedError(f"expected a class, a list or a dict in config.json, got {value!r:.80}")


def rebuild(
    described: Mapping[str, Any], trusted: Sequence[str] | None, *, known: type | None = None
) -> Any:
    """Make an object of its description, with new weights.

    Args:
        described: its class and arguments, as `Recorded.recorded`.
        trusted: modules that may be imported besides the toolkit's; None for any.
        known: a class that the description may mean, which needs no import.

    Raises:
        PretrainedError: it describes nothing, or what is not trusted; the constructor refuses.
    """
    name, arguments = described.get("class"), described.get("arguments")
    positional = described.get("positional", [])
    if not (isinstance(name, str) and isinstance(arguments, dict) and isinstance(positional, list)):
        raise PretrainedError(
            f"expected a class and its arguments in config.json, got {', '.join(described)}: name "
            "a folder that save_pretrained wrote, or open a run with pipelines.load"
        )
    found = _class_of(name, trusted, known)
    args = _decoded(positional, trusted)
    kwargs = {key: _decoded(value, trusted) for key, value in arguments.items()}
    try:
        return found(*args, **kwargs)
    except Exception as error:  # whatever a file that was edited leads to
        raise PretrainedError(f"config.json describes no {name} ({error!r})") from error


def classes_in(described: Any) -> list[str]:
    """Return the names of all classes in a description."""
    if isinstance(described, list):
        return [name for one in described for name in classes_in(one)]
    if not isinstance(described, dict):
        return []
    own = [described["class"]] if isinstance(described.get("class"), str) else []
    return own + [name for one in described.values() for name in classes_in(one)]


def _class_of(name: str, trusted: Sequence[str] | None, known: type | None) -> Any:
    """Return the class of a name, without an import that nobody asked for."""
    if not re.fullmatch(r"\w+(\.\w+)*:[\w.<>]+", name):
        raise PretrainedError(f"expected package.module:Class in config.json, got {name!r:.80}")
    module, _, path = name.partition(":")
    if (
        known is not None
        and path == known.__qualname__
        and (name == name_of(known) or "__main__" in (module, known.__module__))
    ):
        return known
    allowed = [*OWN, *([module] if trusted is None else trusted)]
    if not any(module == one or module.startswith(one + ".") for one in allowed):
        raise PretrainedError(
            f"{name} is not a class of this toolkit: to run its code, give trust=[{module!r}]"
        )
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a user's module does
        raise PretrainedError(f"{name} can't be imported ({error})") from error
    if not (isinstance(found, type) and getattr(found, "is_recorded", False)):
        raise PretrainedError(f"expected {name} to be a class that derives from {HERE}.Recorded")
    return found


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a module on the CPU, named as if no part were wrapped.

    `torch.compile` and DistributedDataParallel add a level to the names of what they wrap.
    """
    wrapped = {
        f"{name}.{inner}".lstrip(".") + "."
        for name, part in module.named_modules()
        for inner in ("_orig_mod", "module")
        if inner in part._modules
        and type(part).__module__.startswith(("torch._dynamo", "torch.nn.parallel"))
    }
    tensors: dict[str, Tensor] = {}
    for key, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise PretrainedError(f"expected tensors in the state to save, got {key!r}")
        for prefix in sorted(wrapped, key=len, reverse=True):
            if key.startswith(prefix):
                key = prefix[: prefix.rstrip(".").rfind(".") + 1] + key[len(prefix) :]
        tensors[key] = value.detach().cpu().contiguous()
    return tensors
