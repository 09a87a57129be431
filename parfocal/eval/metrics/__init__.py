"""Scores as pure functions of answers and numbers: numpy only, no model, no file, no picture.

Thresholds are inclusive everywhere (IoU >= t, ANLS >= 0.5). Intervals resample pictures, not items.

| file | scores |
|---|---|
| `rec`, `recall`, `caption`, `names` | boxes, proposals, grounded captions, names and counts |
| `evalai`, `vqa` | TextVQA, exact match, OCRVQA, VQAv2's upload |
| `anls`, `chartqa` | DocVQA and InfoVQA; ChartQA |
| `yes_no`, `mme`, `hallusion` | POPE; MME; HallusionBench |
| `multiple_choice` | MMBench, SEED-Bench, MMStar, ScienceQA, AI2D, MMMU |
| `gqa` | GQA, with the official log |
| `rates`, `bootstrap` | any rate with its interval; means over splits |
"""

from parfocal.eval.metrics.anls import anls_distance, anls_score, best_anls, edit_distance
from parfocal.eval.metrics.bootstrap import bootstrap_interval
from parfocal.eval.metrics.caption import CaptionCounts, match_caption
from parfocal.eval.metrics.chartqa import relaxed_match
from parfocal.eval.metrics.evalai import evalai_normalise
from parfocal.eval.metrics.gqa import GqaQuestion, GqaScores, gqa_answer, gqa_scores
from parfocal.eval.metrics.hallusion import (
    HallusionItem,
    HallusionReport,
    HallusionScores,
    hallusion_scores,
)
from parfocal.eval.metrics.mme import (
    MME_PERCEPTION,
    MME_REASONING,
    MmeItem,
    mme_category_score,
    mme_scores,
)
from parfocal.eval.metrics.multiple_choice import (
    ChoiceRow,
    ChoiceScores,
    choice_scores,
    extract_choice,
    options_text,
)
from parfocal.eval.metrics.names import names_equal, normalise_name, parse_count
from parfocal.eval.metrics.rates import Rate, rate, split_mean
from parfocal.eval.metrics.rec import first_box_ious, rec_hits
from parfocal.eval.metrics.recall import covered, proposal_recall, proposals_per_image
from parfocal.eval.metrics.vqa import (
    evalai_match,
    ocrvqa_match,
    textvqa_accuracy,
    textvqa_question,
    vqav2_submission,
)
from parfocal.eval.metrics.yes_no import (
    YesNoScores,
    extract_yes_no,
    pope_scores,
    yes_no_match,
    yes_no_scores,
)

__all__ = [
    "MME_PERCEPTION",
    "MME_REASONING",
    "CaptionCounts",
    "ChoiceRow",
    "ChoiceScores",
    "GqaQuestion",
    "GqaScores",
    "HallusionItem",
    "HallusionReport",
    "HallusionScores",
    "MmeItem",
    "Rate",
    "YesNoScores",
    "anls_distance",
    "anls_score",
    "best_anls",
    "bootstrap_interval",
    "choice_scores",
    "covered",
    "edit_distance",
    "evalai_match",
    "evalai_normalise",
    "extract_choice",
    "extract_yes_no",
    "first_box_ious",
    "gqa_answer",
    "gqa_scores",
    "hallusion_scores",
    "match_caption",
    "mme_category_score",
    "mme_scores",
    "names_equal",
    "normalise_name",
    "ocrvqa_match",
    "options_text",
    "parse_count",
    "pope_scores",
    "proposal_recall",
    "proposals_per_image",
    "rate",
    "rec_hits",
    "relaxed_match",
    "split_mean",
    "textvqa_accuracy",
    "textvqa_question",
    "vqav2_submission",
    "yes_no_match",
    "yes_no_scores",
]
