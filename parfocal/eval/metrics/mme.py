"""MME: two yes/no questions a picture, scored singly and together, in fourteen categories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from parfocal.errors import DataError
from parfocal.eval.metrics.checks import check_some

MME_PERCEPTION = (
    *("OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position"),
    *("posters", "scene"),
)
MME_REASONING = (
    *("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"),
)
_PER_IMAGE = 2


@dataclass(frozen=True)
class MmeItem:
    """One question: category, picture (unique within its category), and whether it went right."""

    category: str
    image: str
    correct: bool


def mme_scores(items: Iterable[MmeItem]) -> dict[str, float]:
    """Score of every category and the sums over perception and reasoning.

    A category scores 100 times accuracy plus 100 times the share of pictures with both questions
    right, up to 200. Perception sums ten categories (up to 2000), reasoning four (up to 800).

    Args:
        items: every question of all fourteen categories; `yes_no_match` says what is correct.

    Returns:
        "perception", "reasoning", then the categories.

    Raises:
        DataError: if there are none, a category is unknown or missing, or a picture does not have
            exactly two questions.

    Source: MME (arXiv:2306.13394) as in MG-LLaVA's official xtuner/dataset/evaluation/utils.py,
    MME_rating. Deviates: of a picture with three questions the official code uses two for the
    second half, with one it fails; both are errors here. Unknown categories are left out of its
    sums in silence.
    """
    by_category: dict[str, list[MmeItem]] = {}
    for item in items:
        by_category.setdefault(item.category, []).append(item)
    check_some("MME questions", by_category)
    names = (*MME_PERCEPTION, *MME_REASONING)
    unknown = sorted(by_category.keys() - set(names))
    missing = [name for name in names if name not in by_category]
    if unknown or missing:
        raise DataError(
            f"MME has the categories {', '.join(names)}; unknown here: {unknown}, missing: "
            f"{missing}. Score the whole benchmark, or single categories with mme_category_score."
        )
    scores = {name: mme_category_score(by_category[name]) for name in names}
    sums = {
        "perception": sum(scores[name] for name in MME_PERCEPTION),
        "reasoning": sum(scores[name] for name in MME_REASONING),
    }
    return sums | scores


def mme_category_score(items: Iterable[MmeItem]) -> float:
    """Score of one category, 0 to 200; see `mme_scores`.

    Raises:
        DataError: if there are no questions, or a picture does not have exactly two.

    Example:
        >>> mme_category_score([MmeItem("color", "1.jpg", True), MmeItem("color", "1.jpg", False)])
        50.0
    """
    by_image: dict[str, list[bool]] = {}
    for item in items:
        by_image.setdefault(item.image, []).append(item.correct)
    check_some("MME questions", by_image)
    for image, correct in by_image.items():
        if len(correct) != _PER_IMAGE:
            raise DataError(
                f"the MME picture {image!r} has {len(correct)} questions, it must have "
                f"{_PER_IMAGE}. Score whole pictures, and each category on its own."
            )
    single = sum(map(sum, by_image.values())) / (_PER_IMAGE * len(by_image))
    both = sum(map(all, by_image.values())) / len(by_image)
    return 100.0 * single + 100.0 * both
