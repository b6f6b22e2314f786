"""HTML pages from templates, with everything that a run wrote escaped."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2

from eval.errors import ResultError
from eval.text import visible


def fill(name: str, **content: Any) -> str:
    """Fill a page's template with escaped content.

    Raises:
        ResultError: a value that the page shows is missing.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_template),
        finalize=_printable,
    )
    try:
        return environment.get_template(f"{name}.html.j2").render(**content)
    except jinja2.UndefinedError as error:
        raise ResultError(f"a value that the page shows is missing: {error.message}") from error


def _printable(value: Any) -> Any:
    """Escape unprintable characters in text; markup of the page is unchanged."""
    return visible(value, keep="\n") if type(value) is str else value


def _template(name: str) -> str:
    return files("eval").joinpath(name).read_text(encoding="utf-8")
