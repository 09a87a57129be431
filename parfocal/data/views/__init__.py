"""Task views: what one annotated picture can teach, a file a task. `VIEWS` is the whole list.

A reader yields what a dataset says; a view asks about it. The same Visual Genome picture becomes
expressions to locate, regions to describe, relations to complete, objects to tell apart.
"""

from __future__ import annotations

from parfocal.data.views.absent import Absent
from parfocal.data.views.base import Draft, QuestionView, TaskView, apply
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

__all__ = ["VIEWS", "Draft", "Draw", "ObjectRules", "QuestionView", "TaskView", "apply", "get_view"]


def get_view(name: str) -> type[TaskView]:
    """Return the view of a task; ConfigError lists the names."""
    if name not in VIEWS:
        raise ConfigError(f"no view {name!r}; there are {', '.join(sorted(VIEWS))}.")
    return VIEWS[name]
