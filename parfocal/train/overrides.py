"""Typed overrides: `path=value` assignments that change a recipe before it runs."""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from parfocal.errors import ConfigError
from parfocal.train.recipe import Recipe
from parfocal.train.typed import build, of_type

_FORMS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: 'words in quotes, such as "text"',
    tuple: 'a list, such as [64, 80] or ["text"]',
}


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Apply `path=value` assignments such as `stages.perception.optim.lr=1e-3`.

    Stages and sources are named by their name or number, weights by the part of the model. Values
    are typed by the field they replace; `none` unsets one that may be unset. Whether they go with
    each other is looked at when all are applied, so their order is of no matter.

    Raises:
        ConfigError: for an unknown path (listing its siblings), a value of the wrong type, or a
            recipe that cannot be.
    """
    for assignment in assignments:
        path, separator, value = assignment.partition("=")
        if not separator:
            raise ConfigError(f"override {assignment!r} is not of the form path=value.")
        recipe = _assign(recipe, path.strip().split("."), value.strip(), path)
    return Recipe.from_json(recipe.to_json())


def _assign(owner: Any, path: list[str], value: str, whole: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(owner, tuple):
        index = _place(owner, head)
        if index is None or not rest:
            names = [getattr(item, "name", str(place)) for place, item in enumerate(owner)]
            raise ConfigError(
                f"override {whole!r}: {head!r} is not one of {names}, or names no field of it."
            )
        return (*owner[:index], _assign(owner[index], rest, value, whole), *owner[index + 1 :])
    if isinstance(owner, Mapping):
        inner = _assign(owner.get(head, {}), rest, value, whole) if rest else _read(value)
        return {**owner, head: inner}
    if owner is None:
        raise ConfigError(
            f"override {whole!r} goes into something that is not set; give all of it at once, "
            "as JSON."
        )
    if not dataclasses.is_dataclass(owner):
        raise ConfigError(f"override {whole!r} goes deeper than there are fields.")
    siblings = [item.name for item in dataclasses.fields(owner)]
    if head not in siblings:
        close = difflib.get_close_matches(head, siblings, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"override {whole!r}: {type(owner).__name__} has no field {head!r}.{hint} "
            f"Its fields are {siblings}."
        )
    current, kind = getattr(owner, head), _entry_kind(owner, head)
    if rest and kind is not Any:
        entry = value if kind is str else _of_type(kind, _read(value), value, whole)
        new: Any = {**current, ".".join(rest): entry}
    else:
        new = _assign(current, rest, value, whole) if rest else _typed(owner, head, value, whole)
    changed = copy.copy(owner)  # not `replace`, which would look at it before all is applied
    object.__setattr__(changed, head, new)
    return changed


def _entry_kind(owner: Any, name: str) -> Any:
    """Return the type of the values of a field that maps names, which may hold dots, to values.

    `Any` for one that maps names to whatever there is, and for any other field.
    """
    hint = get_type_hints(type(owner))[name]
    return get_args(hint)[1] if get_origin(hint) is collections.abc.Mapping else Any


def _place(items: tuple[Any, ...], head: str) -> int | None:
    """Return the index of the item that `head` names, by its name or by its number."""
    names = [getattr(item, "name", str(index)) for index, item in enumerate(items)]
    if head in names:
        return names.index(head)
    return int(head) if head.isdigit() and int(head) < len(items) else None


def _typed(owner: Any, name: str, value: str, whole: str) -> Any:
    """Read `value` as the type of the field it replaces."""
    hint = get_type_hints(type(owner))[name]
    choices = [kind for kind in get_args(hint) if kind is not type(None)]
    if type(None) in get_args(hint):
        if value in ("none", "null"):
            return None
        (hint,) = choices
    if hint is str or get_origin(hint) is Literal:
        return value
    parsed = _read(value)
    listed = get_origin(hint) is tuple and isinstance(parsed, list)
    named = get_origin(hint) is collections.abc.Mapping
    if dataclasses.is_dataclass(hint) or listed or named:
        try:
            return build(hint, parsed)
        except ConfigError as err:
            raise ConfigError(f"override {whole!r}: {err}") from err
    return _of_type(get_origin(hint) or hint, parsed, value, whole)


def _read(value: str) -> Any:
    """Read JSON; what is not JSON is a string."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _of_type(kind: type, parsed: Any, value: str, whole: str) -> Any:
    """Return `parsed`, which was read from `value`, as `of_type` does."""
    try:
        return of_type(kind, parsed)
    except ConfigError as err:
        raise ConfigError(
            f"override {whole!r}: {value!r} is not of type {kind.__name__}. Write {_FORMS[kind]}."
        ) from err
