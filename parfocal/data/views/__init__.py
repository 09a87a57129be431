"""Task views: what one annotated picture can teach, a file a task. `VIEWS` is the whole list.

A reader yields what a dataset says; a view asks about it. The same Visual Genome picture becomes
expressions to locate, regions to describe, relations to complete, objects to tell apart.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from parfocal.data.views.absent import Absent
from parfocal.data.views.base import Draft, QuestionView, TaskView, apply
from parfocal.data.views.conversation import Conversation
from parfocal.data.views.detect import Detect
from parfocal.data.views.draw import Draw
from parfocal.data.views.ground_all import GroundAll
from parfocal.data.views.grounded_caption import GroundedCaption
from parfocal.data.views.image_coordinates import ImageCoordinates
from parfocal.data.views.objects import ObjectRules
from parfocal.data.views.rec import Rec
from parfocal.data.views.region_caption import RegionCaption
from parfocal.data.views.relation_qa import RelationQa
from parfocal.data.views.text_coordinates import TextCoordinates
from parfocal.data.views.text_image import TextImage
from parfocal.errors import ConfigError

VIEWS: dict[str, type[TaskView]] = {
    "absent": Absent,
    "conversation": Conversation,
    "detect": Detect,
    "ground_all": GroundAll,
    "grounded_caption": GroundedCaption,
    "image_coordinates": ImageCoordinates,
    "rec": Rec,
    "region_caption": RegionCaption,
    "relation_qa": RelationQa,
    "text_coordinates": TextCoordinates,
    "text_image": TextImage,
}

__all__ = [
    "VIEWS",
    "Draft",
    "Draw",
    "ObjectRules",
    "QuestionView",
    "TaskView",
    "apply",
    "build_view",
    "get_view",
]

_WORDS = re.compile(r"(\w+)(?:\((.*)\))?")


def get_view(name: str) -> type[TaskView]:
    """Return the view of a task; ConfigError lists the names."""
    if name not in VIEWS:
        raise ConfigError(f"no view {name!r}; there are {', '.join(sorted(VIEWS))}.")
    return VIEWS[name]


def build_view(words: str) -> TaskView:
    """Build a view as mixtures name it: its name, and options in parentheses.

    Args:
        words: such as `rec` or `region_caption(rounds=10, limit=1)`; values are JSON or plain
            words.

    Raises:
        ConfigError: for an unknown view or option, or a value that the view cannot take.

    Example:
        >>> build_view("region_caption(wording=groma_detail, limit=1)").limit
        1
    """
    found = _WORDS.fullmatch(words.strip())
    if found is None:
        raise ConfigError(f"view {words!r} is not of the form NAME or NAME(OPTION=VALUE, ...).")
    kind, chosen = get_view(found[1]), {}
    fields = [item for item in dataclasses.fields(kind) if item.init]
    known = [item.name for item in fields if not dataclasses.is_dataclass(item.default)]
    for word in re.split(r",\s*(?=\w+\s*=)", found[2]) if found[2] else ():
        name, separator, value = (part.strip() for part in word.partition("="))
        if not separator or name not in known:
            raise ConfigError(
                f"view {words!r}: {word.strip()!r} is no OPTION=VALUE; {found[1]!r} has the "
                f"options {', '.join(known) or 'none'}."
            )
        chosen[name] = _value(value)
    try:
        return kind(**chosen)
    except (TypeError, AttributeError) as err:
        raise ConfigError(f"view {words!r}: a value is of the wrong type ({err}).") from err


def _value(text: str) -> Any:
    """Read JSON; what is not JSON is a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text
