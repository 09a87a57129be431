"""What the parts of a configuration share: strict reading, closed choices, a plain JSON form.

A part is a frozen dataclass. It rejects unknown keys, and nothing is rewritten after construction:
what does not fit is a `ConfigError`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from transformers import PreTrainedConfig

from parfocal.errors import ConfigError

Part = TypeVar("Part", bound="PartConfig")


@dataclass(frozen=True)
class PartConfig:
    """Base of the parts: to and from a plain mapping, rejecting unknown keys and choices."""

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

    @classmethod
    def from_dict(cls: type[Part], values: Mapping[str, Any] | Part) -> Part:
        """Build the part from `values`; ConfigError names an unknown key and the closest known."""
        if isinstance(values, cls):
            return values
        known = [item.name for item in dataclasses.fields(cls)]
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


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, PartConfig | PreTrainedConfig):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
