"""Detection of what a cached scan would ignore: hooks, adapters and exchanged layers.

A cached scan reads the weights and does the layers' work itself; it never calls them. Whatever is
attached to a layer from outside (a forward hook, pruning, an adapter such as LoRA in its place)
would change scores and not samples. `attached` finds it, so that such a decoder is sampled by
calling the network.

Parametrizations (`torch.nn.utils.parametrize`) are not among them: they change the weights
themselves, and a scan reads a layer's weights as the layer does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.parametrize import type_before_parametrizations

Structure = dict[str, tuple[type, dict[str, Any]]]


def structure(decoder: nn.Module) -> Structure:
    """Return the type of every submodule, by name, and the functions that it holds as attributes.

    A decoder with a cached scan keeps that of its construction as `built`.
    """
    return {
        name: (
            type_before_parametrizations(part),
            {key: value for key, value in vars(part).items() if key[0] != "_" and callable(value)},
        )
        for name, part in _parts(decoder)
    }


def attached(decoder: nn.Module, built: Structure | None) -> str | None:
    """Return the name of what a decoder's cached scan would ignore, or None.

    Args:
        decoder: the decoder.
        built: its `structure` when it was built, or None if that was not kept.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:  # pyright: ignore[reportPrivateUsage]
        return "a forward hook on all modules"
    for method in ("params", "trunk"):
        if _depth(decoder, method) < _depth(decoder, "scan"):
            return f"{method} of {type(decoder).__name__}, which has no scan of its own"
    for name, part in _parts(decoder):
        if part._forward_hooks or part._forward_pre_hooks:
            return f"a forward hook on {name}"
    if built is None:
        return None
    found = structure(decoder)
    for name in {**built, **found}:
        if built.get(name) != found.get(name):
            kind = found[name][0].__name__ if name in found else "nothing"
            return f"another {kind} in place of {name}" if name in built else f"{kind} {name}"
    return None


def _parts(decoder: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every submodule and its name, without those of parametrizations."""
    for name, part in decoder.named_modules():
        if name and "parametrizations" not in name.split("."):
            yield name, part


def _depth(decoder: nn.Module, method: str) -> int:
    """Return how far up its classes a method is defined: 0 its own class, -1 the object itself.

    Where it is not defined at all, it is further up than any.
    """
    if method in vars(decoder):
        return -1
    kinds = type(decoder).__mro__
    depths = (depth for depth, kind in enumerate(kinds) if method in vars(kind))
    return next(depths, len(kinds))
