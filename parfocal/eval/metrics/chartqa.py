"""ChartQA's relaxed accuracy: numbers may be off by five percent, words must be equal."""

from __future__ import annotations

from collections.abc import Sequence

from parfocal.eval.metrics.checks import check_some

TOLERANCE = 0.05


def relaxed_match(output: str, answers: Sequence[str], tolerance: float = TOLERANCE) -> bool:
    """Whether the output is near enough to one of the answers.

    ChartQA's published number is the mean of the accuracies of its two files, human and augmented
    questions; see `split_mean`.

    Args:
        output: what the model said; outer blanks do not count.
        answers: labels as they stand in the file; "50%" is read as 0.5.
        tolerance: largest |output - answer| / |answer|, inclusive. An answer of 0, and anything
            that is no number on either side, must be equal but for capitals.

    Raises:
        DataError: if there is no answer.

    Source: Methani et al. 2020 and ChartQA (arXiv:2203.10244, section 5.1), as in MG-LLaVA's
    official chartqa_dataset.py, relaxed_correctness. Deviates: no.

    Example:
        >>> [relaxed_match("100", [answer]) for answer in ("104", "106", "10000%")]
        [True, False, True]
    """
    check_some("answers", answers)
    return any(_near(output.strip(), answer, tolerance) for answer in answers)


def _near(output: str, answer: str, tolerance: float) -> bool:
    said, meant = _number(output), _number(answer)
    if said is None or not meant:
        return output.lower() == answer.lower()
    return abs(said - meant) / abs(meant) <= tolerance


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None
