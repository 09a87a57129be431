"""Geometry with frames: boxes that know where they were measured, and maps between those frames.

`Frame` names a rectangle, `Boxes` live in one, `Warp` moves them to another; `iou`, `giou`, `nms`
and `area` measure them. Numpy only, so that data tools and scoring start fast.
"""

from __future__ import annotations

from parfocal.boxes.boxes import Boxes
from parfocal.boxes.frame import Frame
from parfocal.boxes.ops import area, giou, iou, nms
from parfocal.boxes.warp import Warp

__all__ = ["Boxes", "Frame", "Warp", "area", "giou", "iou", "nms"]
