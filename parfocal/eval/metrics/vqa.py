"""Short answers to questions: TextVQA's soft accuracy, exact matches, and VQAv2's upload.

Every function scores one answer, 0 to 1; `rate` averages them. TextVQA's published number is that
average in percent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from parfocal.errors import DataError
from parfocal.eval.metrics.checks import check_some
from parfocal.eval.metrics.evalai import evalai_normalise

ANNOTATORS = 10  # people who answered each question of TextVQA
_ENOUGH = 3  # others who say the same make an answer fully right
_OCR = "Reference OCR token: "
_FIELDS = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)


def textvqa_accuracy(output: str, answers: Sequence[str]) -> float:
    """Share of agreement with ten people, leaving each of them out in turn.

    Args:
        output: what the model said.
        answers: of the ten people, in any form; both sides are normalised.

    Returns:
        The mean over the ten of min(1, number of the other nine who say the same / 3): 0, 0.3, 0.6
        and 0.9 for none to three who agree, 1 from four on.

    Raises:
        DataError: unless there are ten answers.

    Source: MG-LLaVA official mg_llava/evaluation/m4c_evaluator.py, TextVQAAccuracyEvaluator.
    Deviates: no.

    Example:
        >>> textvqa_accuracy("Coke.", ["coke"] * 3 + ["cola"] * 7)
        0.9
    """
    if len(answers) != ANNOTATORS:
        raise DataError(
            f"a TextVQA question has {len(answers)} answers, it must have {ANNOTATORS}. Use the "
            "answers of the validation file; the test file has none."
        )
    said = evalai_normalise(output)
    agree = [evalai_normalise(answer) == said for answer in answers]
    count = sum(agree)
    return sum(min(1.0, (count - own) / _ENOUGH) for own in agree) / ANNOTATORS


def textvqa_question(prompt: str) -> str:
    r"""The lower-cased question inside a TextVQA prompt, by which its annotation is found.

    Args:
        prompt: with or without OCR tokens, in one of the three forms of LLaVA's files.

    Raises:
        DataError: if it has none of the forms.

    Source: LLaVA's eval_textvqa and MG-LLaVA's official textvqa_dataset.py. Deviates: a prompt that
    cannot be read is a DataError, not an assertion.

    Example:
        >>> textvqa_question("What Brand?\nAnswer the question using a single word or phrase.")
        'what brand?'
    """
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        found = _FIELDS.search(prompt)
        if found:
            return found[1].lower()
    elif _OCR in prompt and len(lines) == 3:
        return lines[1 if prompt.startswith(_OCR.rstrip()) else 0].lower()
    elif len(lines) == 2:
        return lines[0].lower()
    raise DataError(
        f"the TextVQA prompt {prompt!r} has no question that can be told. Allowed are question and "
        f"instruction on two lines, a third that starts with {_OCR!r}, or 'OCR tokens: ... "
        "Question: ... Short answer:'. Take the prompts from LLaVA's TextVQA file."
    )


def evalai_match(output: str, answers: Sequence[str]) -> bool:
    """Whether the output equals an answer after EvalAI normalisation; an empty one equals nothing.

    Raises:
        DataError: if there is no answer.

    Source: MMF's ST-VQA accuracy, which lets empty ones equal. MG-LLaVA's evaluation has no such
    score.

    Example:
        >>> evalai_match("A dog.", ["dog"]), evalai_match("", ["the"])
        (True, False)
    """
    check_some("answers", answers)
    said = evalai_normalise(output)
    return said != "" and said in map(evalai_normalise, answers)


def ocrvqa_match(output: str, answers: Sequence[str]) -> bool:
    """Whether the output equals an answer but for capitals and outer blanks.

    Raises:
        DataError: if there is no answer.

    Source: MG-LLaVA official xtuner/dataset/evaluation/general_vqa_dataset.py. Deviates: no.

    Example:
        >>> ocrvqa_match(" Stephen King", ["stephen king"]), ocrvqa_match("King.", ["King"])
        (True, False)
    """
    check_some("answers", answers)
    return output.strip().lower() in [answer.strip().lower() for answer in answers]


def vqav2_submission(
    question_ids: Iterable[int], outputs: Mapping[int, str]
) -> list[dict[str, int | str]]:
    """The rows that VQAv2's server takes: one for every question of the test set.

    Args:
        question_ids: of the whole test set, in the order to write.
        outputs: what the model said by question id; test-dev is a part of the test set.

    Returns:
        `{"question_id", "answer"}` rows; the answer is normalised, or "" for a question that was
        not asked.

    Raises:
        DataError: if there are no questions, or an output belongs to none of them.

    Source: MG-LLaVA official mg_llava/evaluation/vqav2_llava_eval_dataset.py. Deviates: outputs of
    unknown questions are an error, there they are left out in silence.

    Example:
        >>> vqav2_submission([1, 2], {2: "A cat"})
        [{'question_id': 1, 'answer': ''}, {'question_id': 2, 'answer': 'cat'}]
    """
    ids = list(question_ids)
    check_some("questions", ids)
    unknown = sorted(outputs.keys() - set(ids))
    if unknown:
        raise DataError(
            f"{len(unknown)} outputs belong to no question of the test set (first: {unknown[0]}). "
            "Give the question ids of the split that was asked."
        )
    return [
        {"question_id": number, "answer": evalai_normalise(outputs.get(number, ""))}
        for number in ids
    ]
