"""Flags from the keyword arguments of a class's constructor, with their types and defaults.

package.module:Class ─ signature, docstring ─> dataclass of flags ─ command line ─> Class(**options)

The toolkit's own classes are read from their source text: importing them takes seconds, and
`--help` should answer at once. A user's class, named on the command line, is imported.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from docstring_parser import parse

from pipelines.runtime.errors import UserError
from pipelines.runtime.user_modules import import_name

ROOT = Path(__file__).parents[2]
OWN = ("decoders", "encoders", "pipelines")
_TYPES = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")}


@dataclasses.dataclass(frozen=True)
class Options:
    """Keyword arguments of a class. `options_of` makes a subclass for each class."""


class Argument(NamedTuple):
    """A keyword argument: its name, type, default and one line of help."""

    name: str
    type: Any
    default: Any
    help: str


@functools.cache
def options_of(target: str, given: tuple[str, ...] = ()) -> type[Options]:
    """Return the dataclass of flags of `package.module:Class`.

    Args:
        target: the class.
        given: names of arguments without a flag, since the data or other flags decide them.

    Raises:
        UserError: there is no such class, or an argument has no default, or a type that a command
            line can't express.
    """
    arguments = read_arguments(target) if is_own(target) else import_arguments(target)
    fields = []
    for one in arguments:
        if one.name not in given:
            _check(target, one)
            metavar = "INT" if one.type == int | None else None
            hint = Annotated[one.type, tyro.conf.arg(help=one.help or one.name, metavar=metavar)]
            fields.append((one.name, hint, one.default))
    name = target.rpartition(":")[2] + "Options"
    return dataclasses.make_dataclass(name, fields, bases=(Options,), frozen=True)


def is_own(target: str) -> bool:
    """Return True for a class of the toolkit."""
    return target.split(".")[0].split(":")[0] in OWN


def _check(target: str, argument: Argument) -> None:
    if argument.default is inspect.Parameter.empty:
        raise UserError(
            f"expected {target} to have a default for its argument {argument.name!r}, got none"
        )
    if argument.type is inspect.Parameter.empty:
        raise UserError(
            f"expected {target} to annotate its argument {argument.name!r} with int, float, bool, "
            "str or Literal, got no annotation"
        )


# A user's class, which is imported


def import_class(target: str, what: str, base: type) -> Any:
    """Import `package.module:Class`, a subclass of `base`.

    Raises:
        UserError: as for `import_name`, or it is not such a class.
    """
    found = import_name(target, what)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"expected {what} {target} to be a subclass of {base.__name__}")
    return found


def import_arguments(target: str) -> list[Argument]:
    """Import a class, and return its keyword arguments."""
    found: dict[str, Argument] = {}
    imported = import_name(target, "the class")
    if not isinstance(imported, type):
        raise UserError(f"expected {target} to be a class, got a {type(imported).__name__}")
    for cls in imported.__mro__:
        constructor = cls.__dict__.get("__init__")
        if constructor is None:
            continue
        parameters = inspect.signature(constructor).parameters.values()
        try:
            hints = typing.get_type_hints(constructor)
        except Exception as error:  # names that only a type checker knows
            raise UserError(f"{target}: its annotations can't be read ({error})") from error
        texts = _texts(cls.__doc__)
        for parameter in parameters:
            if _is_option(parameter):
                name = parameter.name
                hint = hints.get(name, inspect.Parameter.empty)
                new = Argument(name, hint, parameter.default, texts.get(name, ""))
                found.setdefault(name, new)
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
            break
    return list(found.values())


def _is_option(parameter: inspect.Parameter) -> bool:
    has_default = parameter.default is not inspect.Parameter.empty
    return parameter.kind is inspect.Parameter.KEYWORD_ONLY or (
        parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and has_default
    )


# A class of the toolkit, whose source is read


def read_arguments(target: str) -> list[Argument]:
    """Return the keyword arguments of a class of the toolkit, without importing it."""
    module, _, name = target.partition(":")
    found: dict[str, Argument] = {}
    for arguments in _read_classes(module, name):
        for one in arguments:
            found.setdefault(one.name, one)
    return list(found.values())


def _read_classes(module: str, name: str) -> Iterator[list[Argument]]:
    """Yield the arguments of a class, and of its bases while constructors pass them on."""
    module, name = _origin(name, module)
    tree = _tree(module)
    (definition,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    constructor = next(
        (n for n in definition.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"),
        None,
    )
    if constructor is not None:
        texts = _texts(ast.get_docstring(definition))
        args = constructor.args
        defaults = args.defaults
        given = [
            *zip(args.args[len(args.args) - len(defaults) :], defaults, strict=True),
            *zip(args.kwonlyargs, args.kw_defaults, strict=True),
        ]
        yield [
            Argument(
                arg.arg,
                _evaluated(arg.annotation, module),
                inspect.Parameter.empty if default is None else _evaluated(default, module),
                texts.get(arg.arg, ""),
            )
            for arg, default in given
        ]
    if constructor is None or constructor.args.kwarg is not None:
        for base in definition.bases:
            if isinstance(base, ast.Name) and is_own(_origin(base.id, module)[0]):
                yield from _read_classes(module, base.id)


@functools.cache
def _tree(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _origin(name: str, module: str) -> tuple[str, str]:
    """Return the module that defines a name, and its name there."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module, alias.name
    return module, name


def _evaluated(expression: ast.expr | None, module: str) -> Any:
    """Return the value of an annotation or default: built-in types, Literal or their aliases."""
    if expression is None:
        return inspect.Parameter.empty
    names = {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)}
    values = {name: _value(name, module) for name in names}
    return eval(compile(ast.Expression(expression), module, "eval"), {"__builtins__": {}}, values)


def _value(name: str, module: str) -> Any:
    if name in _TYPES or hasattr(builtins, name):
        return _TYPES.get(name) or getattr(builtins, name)
    origin, original = _origin(name, module)
    for node in _tree(origin).body if is_own(origin) else ():
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == original for target in node.targets
        ):
            return _evaluated(node.value, origin)
    return Any  # another class, such as a likelihood, which a flag cannot hold


def _texts(docstring: str | None) -> dict[str, str]:
    """Return the help of each argument that a docstring describes."""
    described = parse(docstring or "").params
    return {
        name.strip(): _sentence(one.description or "")
        for one in described
        for name in one.arg_name.split(",")
    }


def _sentence(text: str) -> str:
    flat = " ".join(text.split())
    return flat[:1].upper() + flat[1:]
