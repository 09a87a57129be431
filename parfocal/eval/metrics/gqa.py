"""GQA: accuracy by kind of question, and how far the answers' distribution is from the true one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parfocal.errors import DataError
from parfocal.eval.metrics.checks import check_some

Share = tuple[float, int]  # percent, number of questions
_NO_STEP = ("exist", "query: name", "choose name")  # operations that end a question


@dataclass(frozen=True)
class GqaQuestion:
    """What scoring needs of a question.

    Attributes:
        question: its words.
        answer: the right one.
        structural: "verify", "query", "choose", "logical" or "compare".
        semantic: "attr", "cat", "global", "obj" or "rel".
        steps: number of reasoning steps, without the one that asks.
        group: of questions alike, for the distribution; None for one of no group.
        balanced: False for questions that are not scored.
    """

    question: str
    answer: str
    structural: str
    semantic: str
    steps: int
    group: str | None = None
    balanced: bool = True

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str = "question") -> GqaQuestion:
        """Read one value of GQA's question file.

        Raises:
            DataError: if something is missing; the message starts with `where`.
        """
        try:
            operations = [f"{step['operation']}: {step['argument']}" for step in row["semantic"]]
            return cls(
                question=str(row["question"]),
                answer=str(row["answer"]),
                structural=str(row["types"]["structural"]),
                semantic=str(row["types"]["semantic"]),
                steps=sum(not any(end in text for end in _NO_STEP) for text in operations),
                group=row["groups"]["global"],
                balanced=bool(row["isBalanced"]),
            )
        except (KeyError, TypeError) as err:
            raise DataError(
                f"{where} is no question of GQA ({type(err).__name__}: {err}). It needs question, "
                "answer, types, semantic, groups and isBalanced, as in "
                "testdev_balanced_questions.json."
            ) from err


@dataclass(frozen=True)
class GqaScores:
    """Percentages over balanced questions.

    Attributes:
        accuracy: of all.
        binary: of all but "query" questions; 0 where there are none.
        open: of "query" questions; likewise.
        distribution: chi-square of the answers against the true ones, weighted over groups, over
            100; lower is better. None if no question has a group.
        by_structural: kind to (accuracy, number of questions).
        by_semantic: likewise.
        by_steps: number of reasoning steps to the same.
        by_words: number of words to the same.
        n: number of questions.
    """

    accuracy: float
    binary: float
    open: float
    distribution: float | None
    by_structural: dict[str, Share]
    by_semantic: dict[str, Share]
    by_steps: dict[int, Share]
    by_words: dict[int, Share]
    n: int

    def lines(self) -> list[str]:
        """The official script's log, line by line.

        Deviates: it needs the choices file for validity and plausibility and has that part switched
        off; its log says 0.00% for both and so do these lines, but neither is a score here.
        """
        found = [
            f"Binary: {self.binary:.2f}%",
            f"Open: {self.open:.2f}%",
            f"Accuracy: {self.accuracy:.2f}%",
            "Validity: 0.00%",
            "Plausibility: 0.00%",
        ]
        if self.distribution is not None:
            found.append(f"Distribution: {self.distribution:.2f} (lower is better)")
        tables: tuple[tuple[str, Mapping[Any, Share]], ...] = (
            ("structural type", self.by_structural),
            ("semantic type", self.by_semantic),
            ("steps number", self.by_steps),
            ("words number", self.by_words),
        )
        for title, table in tables:
            found.append(f"Accuracy / {title}:")
            found += [f"  {key}: {value:.2f}% ({n} questions)" for key, (value, n) in table.items()]
        return found


def gqa_answer(output: str) -> str:
    """The form in which an output is compared: lower case, without full stops at the end.

    Source: MG-LLaVA official mg_llava/evaluation/gqa_llava_eval_dataset.py. Deviates: no.

    Example:
        >>> gqa_answer("Yes.")
        'yes'
    """
    return output.rstrip(".").lower()


def gqa_scores(questions: Mapping[str, GqaQuestion], outputs: Mapping[str, str]) -> GqaScores:
    """Score the balanced questions.

    Args:
        questions: by id.
        outputs: what the model said, by the same ids; more than asked for does no harm.

    Raises:
        DataError: if there is no balanced question, or one has no output.

    Source: GQA's eval.py (Hudson and Manning, arXiv:1902.09506) as in MG-LLaVA's official
    mg_llava/evaluation/eval_gqa.py. Deviates: without any group it divides by zero.

    Example:
        >>> asked = GqaQuestion("Is it red?", "yes", "verify", "attr", 1)
        >>> gqa_scores({"1": asked}, {"1": "Yes."}).accuracy
        100.0
    """
    scored = {key: question for key, question in questions.items() if question.balanced}
    check_some("balanced GQA questions", scored)
    missing = [key for key in scored if key not in outputs]
    if missing:
        raise DataError(
            f"{len(missing)} GQA questions have no output (first: {missing[0]!r}). Give one for "
            'every balanced question, "" where the model said nothing.'
        )
    said = {key: gqa_answer(outputs[key]) for key in scored}
    rows = [(question, said[key] == question.answer) for key, question in scored.items()]
    return GqaScores(
        accuracy=_percent([hit for _, hit in rows]),
        binary=_percent([hit for question, hit in rows if question.structural != "query"]),
        open=_percent([hit for question, hit in rows if question.structural == "query"]),
        distribution=_distribution(scored, said),
        by_structural=_table(rows, lambda question: question.structural),
        by_semantic=_table(rows, lambda question: question.semantic),
        by_steps=_table(rows, lambda question: question.steps),
        by_words=_table(rows, lambda question: len(question.question.split())),
        n=len(rows),
    )


def _percent(hits: Sequence[bool]) -> float:
    return 100.0 * sum(hits) / len(hits) if hits else 0.0


def _table(
    rows: Sequence[tuple[GqaQuestion, bool]], key: Callable[[GqaQuestion], Any]
) -> dict[Any, Share]:
    groups: dict[Any, list[bool]] = {}
    for question, hit in rows:
        groups.setdefault(key(question), []).append(hit)
    return {name: (_percent(groups[name]), len(groups[name])) for name in sorted(groups)}


def _distribution(questions: Mapping[str, GqaQuestion], said: Mapping[str, str]) -> float | None:
    """Chi-square of each group, weighted by its number of questions, over 100."""
    true: dict[str, Counter[str]] = {}
    given: dict[str, Counter[str]] = {}
    for key, question in questions.items():
        if question.group is not None:
            true.setdefault(question.group, Counter())[question.answer] += 1
            given.setdefault(question.group, Counter())[said[key]] += 1
    if not true:
        return None
    weighted = 0.0
    for group, counts in true.items():
        chi = sum((given[group][answer] - n) ** 2 / n for answer, n in counts.items())
        weighted += chi * counts.total()
    return weighted / sum(counts.total() for counts in true.values()) / 100.0
