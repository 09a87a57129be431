"""Scores as pure functions of numbers: numpy only, no model, no file, no picture.

Thresholds are inclusive everywhere (IoU >= t). Intervals resample pictures, not items.
"""

from parfocal.eval.metrics.bootstrap import bootstrap_interval
from parfocal.eval.metrics.caption import CaptionCounts, match_caption
from parfocal.eval.metrics.names import names_equal, normalise_name, parse_count
from parfocal.eval.metrics.rates import Rate, rate
from parfocal.eval.metrics.rec import first_box_ious, rec_hits
from parfocal.eval.metrics.recall import covered, proposal_recall, proposals_per_image

__all__ = [
    "CaptionCounts",
    "Rate",
    "bootstrap_interval",
    "covered",
    "first_box_ious",
    "match_caption",
    "names_equal",
    "normalise_name",
    "parse_count",
    "proposal_recall",
    "proposals_per_image",
    "rate",
    "rec_hits",
]
