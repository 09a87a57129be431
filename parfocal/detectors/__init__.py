"""Detectors and taggers: what is in a picture, and where; from picture to boxes in `RegionFinder`.

Importing this room loads no deep-learning library; the networks load with `load_detector` and
`load_tagger`.
"""

from __future__ import annotations

from parfocal.data.selection import BoxLimits, limit, official_limits, suppress
from parfocal.detectors.base import Detector, Labels, Tagger
from parfocal.detectors.cache import BoxCache
from parfocal.detectors.fixed import COCO_80, FixedTagger
from parfocal.detectors.loading import DETECTORS, TAGGERS, load_detector, load_finder, load_tagger
from parfocal.detectors.pipeline import MG_LLAVA, RegionFinder, RegionSettings

__all__ = [
    "COCO_80",
    "DETECTORS",
    "MG_LLAVA",
    "TAGGERS",
    "BoxCache",
    "BoxLimits",
    "Detector",
    "FixedTagger",
    "Labels",
    "RegionFinder",
    "RegionSettings",
    "Tagger",
    "limit",
    "load_detector",
    "load_finder",
    "load_tagger",
    "official_limits",
    "suppress",
]
