"""A user's own code, imported because its name was given on the command line."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from pipelines.runtime.errors import UserError


def import_name(target: str, what: str) -> Any:
    """Import `package.module:name`, also from the working directory.

    Args:
        target: as the user wrote it.
        what: the flag that it was given to.

    Raises:
        UserError: there is no such module or name, or importing it failed.
    """
    if "" not in sys.path:  # the last place to look in, so that nothing there hides a package
        sys.path.append("")
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module does
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module_name):
            raise UserError(
                f"{what} {target}: there is no module {error.name}: check the name, or add its "
                "folder to PYTHONPATH"
            ) from error
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"{what} {target}: importing it failed ({said})") from error
    if not name or not hasattr(module, name):
        raise UserError(
            f"{what} {target}: {module_name} has no {name!r}: write package.module:name"
        )
    return getattr(module, name)


def _is_part(missing: str | None, module: str) -> bool:
    """Tell whether the missing module is the one that was asked for, or a package around it."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")
