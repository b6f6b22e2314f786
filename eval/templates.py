"""HTML pages from templates, in which whatever a run wrote is text."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2

from eval.errors import ResultError
from eval.text import visible


def fill(name: str, **content: Any) -> str:
    """Fill a page's template; whatever the content holds is escaped.

    Raises:
        ResultError: the content lacks something that the page shows.
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
        raise ResultError(f"a result lacks what the page shows: {error.message}") from error


def _printable(value: Any) -> Any:
    """Make visible what a name may hold; the page's own markup stays."""
    return visible(value, keep="\n") if type(value) is str else value


def _template(name: str) -> str:
    return files("eval").joinpath(name).read_text(encoding="utf-8")
