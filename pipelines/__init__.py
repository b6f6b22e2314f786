"""Pipelines: the commands that train, score and sample models."""

from __future__ import annotations

import importlib.util
import os
import sys

from pipelines.runtime.provenance import __version__

__all__ = ["__version__"]


def _find_namesake() -> str | None:
    """Return a sentence about a user's own `eval.py` or `encoders/` that hides ours, if one does.

    Python looks first in the folder that `python -m` is started in, or that a script is in.
    """
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for name in ("decoders", "encoders", "eval"):
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [*(spec.submodule_search_locations or [spec.origin])]
        if places and os.path.realpath(places[0] or "") != os.path.join(home, name):
            return (
                f"{places[0]} hides the package {name!r} of pixel-decoders: rename it, start "
                "`python -m` in another folder, or use the command `pixel-decoders`"
            )
    return None


if _namesake := _find_namesake():
    if sys.argv[0] == "-m":  # Python is looking for the command's module
        print(f"error: {_namesake}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(_namesake)
