"""Multiple choice: MMBench, SEED-Bench, MMStar, ScienceQA, AI2D and MMMU, by their tables' rules.

A question may stand in several rows with its options rotated; such circular rows are numbered
`index + k * 1,000,000` and the question counts only if every row of it is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from parfocal.errors import DataError
from parfocal.eval.metrics.checks import check_pairs

ROTATION = 1_000_000
ALL = "all"  # the split of rows that name none
_LETTERS = re.compile(r"[A-D]+")


@dataclass(frozen=True)
class ChoiceRow:
    """One row of a table.

    Attributes:
        index: number of the question; rotated rows add multiples of `ROTATION`.
        answer: the letter that is right.
        category: of the question.
        l2_category: the coarser one; "" where the table has none.
        split: such as "dev".
    """

    index: int
    answer: str
    category: str
    l2_category: str = ""
    split: str = ALL


@dataclass(frozen=True)
class ChoiceScores:
    """Accuracies over questions, 0 to 1.

    Attributes:
        average: of all of them.
        by_l2_category: name to accuracy, in name order; empty where the table has no such column.
        by_category: likewise.
        n: number of questions.
    """

    average: float
    by_l2_category: dict[str, float]
    by_category: dict[str, float]
    n: int

    def to_flat(self) -> dict[str, float]:
        """Everything in one mapping, "Average" first, as the official code returns it.

        A category with the name of a coarser one takes its place, as it does there.
        """
        return {"Average": self.average} | self.by_l2_category | self.by_category


def options_text(options: Mapping[str, object]) -> str:
    r"""The options as a prompt shows them, a line each, in the order of their letters.

    Args:
        options: a table's row; keys that are no single capital letter are left out, and so are
            options that are empty (None, NaN or "").

    Source: MG-LLaVA official multiple_choice_dataset.py. Deviates: no; its table reader gives NaN
    for an empty cell.

    Example:
        >>> options_text({"question": "?", "A": "red", "B": 2, "C": None})
        'A. red\nB. 2\n'
    """
    shown = ((letter, options.get(letter)) for letter in ascii_uppercase)
    return "".join(f"{letter}. {value}\n" for letter, value in shown if not _empty(value))


def extract_choice(output: str) -> str:
    """The first run of the letters A to D in capitals, "" without one.

    Footgun: it reads "Cannot tell" as C, "Both" as B, and never finds E or a small letter. A run of
    several letters, such as "AB", equals no answer.

    Source: MG-LLaVA official multiple_choice_dataset.py. Deviates: no.

    Example:
        >>> extract_choice("The answer is C."), extract_choice("a"), extract_choice("AB")
        ('C', '', 'AB')
    """
    found = _LETTERS.search(output)
    return found[0] if found else ""


def choice_scores(rows: Sequence[ChoiceRow], outputs: Sequence[str]) -> dict[str, ChoiceScores]:
    """Accuracy over questions by split, each with its categories.

    Args:
        rows: of the table, in any order, rotated ones included.
        outputs: what the model said, one a row.

    Returns:
        Scores by split, in name order; a table without splits has the one split "all". Split and
        categories are those of the row that is not rotated.

    Raises:
        ShapeError: if the lengths differ.
        DataError: if there are no rows, an index stands twice, a rotated row has no first one, or
            an answer is missing.

    Source: MG-LLaVA official multiple_choice_dataset.py. Deviates: it returns the last split only,
    we return each; it gives NaN to categories that a split does not have, we leave them out.

    Example:
        >>> rows = [ChoiceRow(1, "A", "color"), ChoiceRow(1_000_001, "B", "color")]
        >>> choice_scores(rows, ["A", "B."])["all"].average
        1.0
    """
    check_pairs("outputs", outputs, "rows", rows)
    first, hits = _questions(rows, outputs)
    splits = sorted({row.split for row in first.values()})
    return {
        split: _scores([(row, hits[index]) for index, row in first.items() if row.split == split])
        for split in splits
    }


def _questions(
    rows: Sequence[ChoiceRow], outputs: Sequence[str]
) -> tuple[dict[int, ChoiceRow], dict[int, bool]]:
    """The first row of each question, and whether all of its rows are right."""
    first: dict[int, ChoiceRow] = {}
    hits: dict[int, bool] = {}
    seen: set[int] = set()
    for row, output in zip(rows, outputs, strict=True):
        _check_row(row, seen)
        seen.add(row.index)
        question = row.index % ROTATION
        if row.index < ROTATION:
            first[question] = row
        hits[question] = hits.get(question, True) and extract_choice(output) == row.answer
    lost = sorted(hits.keys() - first.keys())
    if lost:
        raise DataError(
            f"{len(lost)} questions have rotated rows but not the first one (first: index "
            f"{lost[0]}). Score whole questions: keep all rows with the same index % {ROTATION}."
        )
    return first, hits


def _check_row(row: ChoiceRow, seen: set[int]) -> None:
    if row.index in seen:
        raise DataError(f"the index {row.index} stands in two rows. Keep one row an index.")
    if len(row.answer) != 1 or row.answer not in ascii_uppercase:
        raise DataError(
            f"row {row.index} has the answer {row.answer!r}, which is no letter A to Z. Tables "
            "without answers, such as MMBench's test split, are scored by their servers."
        )


def _scores(found: Sequence[tuple[ChoiceRow, bool]]) -> ChoiceScores:
    return ChoiceScores(
        _mean(hit for _, hit in found),
        _by(found, lambda row: row.l2_category),
        _by(found, lambda row: row.category),
        len(found),
    )


def _by(
    found: Sequence[tuple[ChoiceRow, bool]], key: Callable[[ChoiceRow], str]
) -> dict[str, float]:
    names = sorted({key(row) for row, _ in found} - {""})
    return {name: _mean(hit for row, hit in found if key(row) == name) for name in names}


def _mean(values: Iterable[bool]) -> float:
    flags = list(values)
    return sum(flags) / len(flags)


def _empty(value: object) -> bool:
    return value is None or value == "" or value != value  # only NaN differs from itself
