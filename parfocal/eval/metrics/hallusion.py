"""HallusionBench: right answers by question, by figure and by question over all its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from parfocal.errors import DataError
from parfocal.eval.metrics.checks import check_some


@dataclass(frozen=True)
class HallusionItem:
    """One question about one figure.

    Attributes:
        index: its id; parts 3, 4 and 5 between underscores (from 0) number set, figure, question.
        category: such as "VD".
        l2_category: such as "chart"; sets are numbered within it.
        correct: whether it went right; see `yes_no_match`.
    """

    index: str
    category: str
    l2_category: str
    correct: bool


@dataclass(frozen=True)
class HallusionScores:
    """Percentages of items (a), of figures (f) and of questions (q) with everything right."""

    a_acc: float
    f_acc: float
    q_acc: float


@dataclass(frozen=True)
class HallusionReport:
    """Scores of everything, and by the two levels of categories."""

    overall: HallusionScores
    by_category: dict[str, HallusionScores]
    by_l2_category: dict[str, HallusionScores]


def hallusion_scores(items: Iterable[HallusionItem]) -> HallusionReport:
    """aAcc, fAcc and qAcc.

    Raises:
        DataError: if there are no items, or an index does not have six parts.

    Source: HallusionBench (arXiv:2310.14566) as in MG-LLaVA's official
    xtuner/dataset/evaluation/utils.py, Hallusion_rating. Deviates: no.

    Example:
        >>> items = [HallusionItem(f"VD_x_y_0_{f}_0", "VD", "chart", f == 0) for f in (0, 1)]
        >>> hallusion_scores(items).overall
        HallusionScores(a_acc=50.0, f_acc=50.0, q_acc=0.0)
    """
    found = list(items)
    check_some("HallusionBench items", found)
    return HallusionReport(
        _scores(found),
        _grouped(found, lambda item: item.category),
        _grouped(found, lambda item: item.l2_category),
    )


def _grouped(
    items: Sequence[HallusionItem], key: Callable[[HallusionItem], str]
) -> dict[str, HallusionScores]:
    groups: dict[str, list[HallusionItem]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return {name: _scores(groups[name]) for name in sorted(groups)}


def _scores(items: Sequence[HallusionItem]) -> HallusionScores:
    figures: dict[tuple[str, ...], list[bool]] = {}
    questions: dict[tuple[str, ...], list[bool]] = {}
    for item in items:
        group, figure, question = _numbers(item.index)
        figures.setdefault((item.l2_category, group, figure), []).append(item.correct)
        questions.setdefault((item.l2_category, group, question), []).append(item.correct)
    return HallusionScores(
        100.0 * sum(item.correct for item in items) / len(items),
        100.0 * sum(map(all, figures.values())) / len(figures),
        100.0 * sum(map(all, questions.values())) / len(questions),
    )


def _numbers(index: str) -> tuple[str, str, str]:
    parts = index.split("_")
    if len(parts) < 6:
        raise DataError(
            f"the HallusionBench index {index!r} has {len(parts)} parts between underscores, it "
            "must have 6, of which the last three number set, figure and question. Use the indices "
            "of VLMEvalKit's table."
        )
    return parts[3], parts[4], parts[5]
