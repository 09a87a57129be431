"""What the parts of a configuration share: strict reading, closed choices, a plain JSON form.

A part is a frozen dataclass. It rejects unknown keys, and nothing is rewritten after construction:
what does not fit is a `ConfigError`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from transformers import PreTrainedConfig

from parfocal.errors import ConfigError

Part = TypeVar("Part", bound="PartConfig")


@dataclass(frozen=True)
class PartConfig:
    """Base of the parts: to and from a plain mapping, rejecting unknown keys and other types."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in dataclasses.fields(self):
            hint, value = hints[item.name], getattr(self, item.name)
            choices = get_args(hint) if get_origin(hint) is Literal else ()
            if choices and value not in choices:
                raise ConfigError(
                    f"{type(self).__name__}.{item.name} is {value!r}; "
                    f"choose one of {list(choices)}."
                )
            if not _fits(value, hint):
                wanted = hint if get_args(hint) else hint.__name__
                raise ConfigError(
                    f"{type(self).__name__}.{item.name} is {value!r}; it must be {wanted}."
                )

    @classmethod
    def from_dict(cls: type[Part], values: Mapping[str, Any] | Part) -> Part:
        """Build the part from `values`.

        Raises:
            ConfigError: if they are no mapping, or have an unknown key; with the closest known.
        """
        if isinstance(values, cls):
            return values
        known = [item.name for item in dataclasses.fields(cls)]
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{cls.__name__} is {values!r}; give a mapping of its fields, which are {known}."
            )
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ConfigError(
                    f"{cls.__name__} has no field {key!r}.{hint} Its fields are {known}."
                )
        return cls(**{key: _frozen(value) for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}


def refuse_misspelt(values: Mapping[str, Any], config: PreTrainedConfig, where: str) -> None:
    """Refuse keys that are nearly fields of a config that takes whatever it is given.

    Args:
        values: that the config was made of.
        config: of Transformers.
        where: it stands, for the message.

    Raises:
        ConfigError: naming such a key, and the field.
    """
    # a letter off, no more: keys of some families are near to those of others
    fields = [item.name for item in dataclasses.fields(config)]
    public = [name.removeprefix("_") for name in fields]  # `out_features` is read and written so
    known = {*fields, *public, *config.attribute_map}
    for key in values:
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.94)
        if close and key not in known:
            raise ConfigError(f"{where} has no field {key!r}. Did you mean {close[0]!r}?")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; whole numbers are floats, lists are tuples."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in inner)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if hint in (int, float):
        wanted = int if hint is int else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool)
    return hint is Any or isinstance(value, origin or hint)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, PartConfig | PreTrainedConfig):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
