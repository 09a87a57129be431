"""Yes or no: reading it from an answer, and the rates of a set of answers, as POPE reports them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from parfocal.errors import DataError
from parfocal.eval.metrics.checks import check_pairs
from parfocal.eval.metrics.evalai import remove_punctuation

YesNo = Literal["Yes", "No", "Unknown"]


def extract_yes_no(text: str) -> YesNo:
    """What an answer says: exactly one of the words yes and no, anywhere, or "Unknown".

    Source: MG-LLaVA official xtuner/dataset/evaluation/utils.py, YOrN_Extraction. Deviates: no.
    POPE's own script reads all without "no" or "not" as yes, MME's reads the first four letters.

    Example:
        >>> extract_yes_no("The answer is yes."), extract_yes_no("Yes, no doubt")
        ('Yes', 'Unknown')
    """
    words = remove_punctuation(text.lower()).split()
    if ("yes" in words) == ("no" in words):
        return "Unknown"
    return "Yes" if "yes" in words else "No"


def yes_no_match(output: str, answer: str) -> bool:
    """Whether an output says what the answer does; one that says neither is wrong.

    Raises:
        DataError: if the answer itself is neither yes nor no.

    Example:
        >>> yes_no_match("No, there is not.", "no"), yes_no_match("I cannot see", "no")
        (True, False)
    """
    return extract_yes_no(output) == _label(answer)


@dataclass(frozen=True)
class YesNoScores:
    """Rates of yes/no answers with yes as the positive class, each 0 to 1.

    Attributes:
        f1: harmonic mean of precision and recall; 0 when nothing right was said yes to.
        accuracy: share of right answers.
        precision: right among the answers "yes"; 0 when there are none.
        recall: found among the questions whose answer is yes; 0 when there are none.
        yes_ratio: share of the answers "yes".
        n: number of questions.
    """

    f1: float
    accuracy: float
    precision: float
    recall: float
    yes_ratio: float
    n: int


def yes_no_scores(said_yes: Sequence[bool], is_yes: Sequence[bool]) -> YesNoScores:
    """Rates of answers that were read already.

    Args:
        said_yes: N, whether the model said yes; anything else counts as no.
        is_yes: N, whether yes is right.

    Raises:
        ShapeError: if the lengths differ.
        DataError: if there are none.

    Source: POPE (arXiv:2305.10355) as in MG-LLaVA's official pope_dataset.py, eval_func. Deviates:
    without a positive prediction the official code divides by zero; precision and F1 are 0 here.

    Example:
        >>> yes_no_scores([True, True, False], [True, False, True]).f1
        0.5
    """
    check_pairs("outputs", said_yes, "answers", is_yes)
    pairs = [(bool(said), bool(right)) for said, right in zip(said_yes, is_yes, strict=True)]
    hits, yes, true = pairs.count((True, True)), sum(map(bool, said_yes)), sum(map(bool, is_yes))
    precision, recall = (hits / total if total else 0.0 for total in (yes, true))
    return YesNoScores(
        f1=2 * precision * recall / (precision + recall) if hits else 0.0,
        accuracy=(hits + pairs.count((False, False))) / len(pairs),
        precision=precision,
        recall=recall,
        yes_ratio=yes / len(pairs),
        n=len(pairs),
    )


def pope_scores(outputs: Sequence[str], answers: Sequence[str]) -> YesNoScores:
    """Rates of one of POPE's three files.

    The headline is the mean F1 over random, popular and adversarial; see `split_mean`.

    Args:
        outputs: N, what the model said.
        answers: N, "yes" or "no".

    Raises:
        ShapeError: if the lengths differ.
        DataError: if there are none, or an answer is neither yes nor no.

    Source: MG-LLaVA official pope_dataset.py. Deviates: as `yes_no_scores`.

    Example:
        >>> pope_scores(["Yes, there is", "No", "nope"], ["yes", "no", "yes"]).recall
        0.5
    """
    said = [extract_yes_no(output) == "Yes" for output in outputs]
    return yes_no_scores(said, [_label(answer) == "Yes" for answer in answers])


def _label(answer: str) -> YesNo:
    label = extract_yes_no(answer)
    if label == "Unknown":
        raise DataError(
            f"the answer {answer!r} is neither yes nor no. Give 'yes' or 'no' for every question, "
            "as the dataset's file does."
        )
    return label
