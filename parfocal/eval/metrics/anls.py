"""ANLS, the score of document questions: how few letters an answer has wrong.

1 minus the edit distance over the length, of the best of several answers, and nothing below one
half. DocVQA's published number is the mean over questions in percent.
"""

from __future__ import annotations

from collections.abc import Sequence

from parfocal.eval.metrics.checks import check_some

THRESHOLD = 0.5


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance: letters to insert, delete or replace.

    Example:
        >>> edit_distance("kitten", "sitting")
        3
    """
    row = list(range(len(second) + 1))
    for place, letter in enumerate(first, start=1):
        above, row = row, [place]
        for column, other in enumerate(second):
            if letter == other:
                row.append(above[column])
            else:
                row.append(1 + min(above[column], above[column + 1], row[column]))
    return row[-1]


def anls_distance(answer: str, output: str) -> float:
    """Edit distance over the longer length, 0 (same) to 1; capitals and extra blanks do not count.

    Source: MG-LLaVA official xtuner/dataset/evaluation/general_vqa_dataset.py, anls_compute.
    Deviates: no. The lengths are those of the strings as given, in capitals, so that needless
    blanks make an answer slightly easier; VLMEvalKit and lmms-eval do the same.

    Example:
        >>> anls_distance("abc", "abd"), anls_distance("", "")
        (0.3333333333333333, 0.0)
    """
    length = max(len(answer.upper()), len(output.upper()))
    if not length:
        return 0.0
    return edit_distance(_squeezed(answer), _squeezed(output)) / length


def anls_score(distances: Sequence[float], threshold: float = THRESHOLD) -> float:
    """From the distances to each answer to the score of a question: the best, if good enough.

    Args:
        distances: one an answer, 0 to 1.
        threshold: a score below it is 0; one that equals it counts.

    Raises:
        DataError: if there is no distance.

    Source: MG-LLaVA official general_vqa_dataset.py, hit_calculate. Deviates: no.

    Example:
        >>> anls_score([0.9, 0.5]), anls_score([0.51])
        (0.5, 0.0)
    """
    check_some("answers", distances)
    best = 1.0 - min(distances)
    return best if best >= threshold else 0.0


def best_anls(output: str, answers: Sequence[str], threshold: float = THRESHOLD) -> float:
    """Score of one output, 0 to 1; see `anls_score`.

    Raises:
        DataError: if there is no answer.

    Example:
        >>> best_anls("jan 3 1995", ["Jan 3, 1995", "3 January"])
        0.9090909090909091
    """
    return anls_score([anls_distance(answer, output) for answer in answers], threshold)


def _squeezed(text: str) -> str:
    return " ".join(text.lower().split())
