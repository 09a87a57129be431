"""Values of annotated types made of what JSON holds, strictly: saved recipes, plans, overrides."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from parfocal.errors import ConfigError

_SCALARS = (bool, int, float, str)


def build(kind: Any, value: Any, where: str = "") -> Any:
    """Make a value of an annotated type: dataclasses, tuples, mappings, scalars and None.

    Args:
        kind: the annotation; nothing is asked of `Any` and of choices.
        value: what JSON holds.
        where: it is, for messages.

    Raises:
        ConfigError: if a dataclass has no field of a name, or one without a default is not given, a
            value is of another type, or a tuple has another number of them.
    """
    if get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = [choice for choice in get_args(kind) if choice is not type(None)]
        return None if value is None else build(kind, value, where)
    if dataclasses.is_dataclass(kind):
        return _record(kind, of_type(dict, value, where), where)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), of_type(list, value, where), where)
    if get_origin(kind) is collections.abc.Mapping:
        inner = get_args(kind)[1]
        entries = of_type(dict, value, where).items()
        return {key: build(inner, item, _inside(where, key)) for key, item in entries}
    return of_type(kind, value, where) if kind in _SCALARS else value


def _tuple(kinds: tuple[Any, ...], items: list[Any], where: str) -> tuple[Any, ...]:
    """Make a tuple of any number of values of one type, or of one value of each."""
    if kinds[1:] == (Ellipsis,):
        kinds = kinds[:1] * len(items)
    if len(kinds) != len(items):
        place = f"{where}: " if where else ""
        raise ConfigError(f"{place}{items!r} needs {len(kinds)} values.")
    pairs = enumerate(zip(kinds, items, strict=True))
    return tuple(build(kind, item, _inside(where, index)) for index, (kind, item) in pairs)


def _record(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    """Make a dataclass of its fields."""
    hints = get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ConfigError(
            f"{kind.__name__} has no field {unknown[0]!r}; its fields are {sorted(hints)}."
        )
    needed = [item.name for item in dataclasses.fields(kind) if _is_needed(item)]
    missing = [name for name in needed if name not in value]
    if missing:
        raise ConfigError(
            f"{where + ': ' if where else ''}{kind.__name__} needs the field {missing[0]!r}."
        )
    fields = {name: build(hints[name], item, _inside(where, name)) for name, item in value.items()}
    return kind(**fields)


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    """Whether a field has no default."""
    return field.default is field.default_factory is dataclasses.MISSING


def _inside(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


def of_type(kind: type, value: Any, where: str = "") -> Any:
    """Return a value if it is of a type; integers become floats where floats are wanted.

    >>> of_type(float, 2)
    2.0

    Raises:
        ConfigError: if it is not; `where` it is stands before.
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        place = f"{where}: " if where else ""
        raise ConfigError(f"{place}{value!r} is not of type {kind.__name__}.")
    return value
