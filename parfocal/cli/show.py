"""How answers look: on a terminal with every phrase in the colour of its boxes, and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from parfocal.cli.common import console, error_console

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image
    from rich.table import Table
    from rich.text import Text

    from parfocal.boxes import Boxes
    from parfocal.dialects.base import Problem
    from parfocal.dialects.grounded import GroundedText
    from parfocal.predict import Answer


def colour_text(grounded: GroundedText) -> Text:
    """The words of a grounded text, its phrases in the colours that pictures and pages use."""
    from rich.text import Text

    from parfocal.data.drawing import colour_slots, slot_colour
    from parfocal.dialects.grounded import GroundedText as Words
    from parfocal.dialects.grounded import Phrase

    slots = iter(colour_slots(grounded.phrases))
    text = Text()
    for span in grounded.spans:
        slot = next(slots) if isinstance(span, Phrase) else None
        style = "" if slot is None else f"bold {slot_colour(slot)}"
        text.append(Words((span,)).plain, style)
    return text


def box_table(rows: Iterable[tuple[Text | str, Boxes]], first: str = "phrase") -> Table:
    """One line a box: the words, the corners in pixels and, if any has one, the score; aligned.

    A row without boxes has its words alone.
    """
    from rich import box
    from rich.table import Table

    pairs = list(rows)
    scored = any(boxes.scores is not None and len(boxes) for _, boxes in pairs)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column(first)
    for name in ("x1", "y1", "x2", "y2", *(["score"] if scored else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for words, boxes in pairs:
        if len(boxes) == 0:
            table.add_row(words)
        for row, xyxy in enumerate(boxes.xyxy):
            numbers = [f"{value:.1f}" for value in xyxy]
            if boxes.scores is not None:
                numbers.append(f"{boxes.scores[row]:.2f}")
            table.add_row(words, *numbers)
    return table


def phrase_rows(grounded: GroundedText) -> list[tuple[Text, Boxes]]:
    """The rows of `box_table` for one answer; a phrase without boxes is not a row."""
    from parfocal.dialects.grounded import GroundedText as Words

    coloured = colour_text(Words(grounded.phrases))
    rows: list[tuple[Text, Boxes]] = []
    start = 0
    for phrase in grounded.phrases:
        end = start + len(phrase.text)
        if len(phrase.boxes):
            rows.append((coloured[start:end] if phrase.text else _mark(coloured), phrase.boxes))
        start = end
    return rows


def _mark(text: Text) -> Text:
    from rich.text import Text

    return Text("(no words)", "dim")


def show_answer(answer: Answer) -> None:
    """Print one answer: its words, then a table of its boxes; problems go to stderr."""
    out = console()
    out.print(colour_text(answer.text), soft_wrap=True)
    rows = phrase_rows(answer.text)
    if rows:
        out.print()
        out.print(box_table(rows))
    show_problems(answer.problems)


def show_problems(problems: Iterable[Problem]) -> None:
    """Say on stderr what could not be read in the model's output."""
    for problem in problems:
        show_warning(f"{problem.kind}: {problem.detail}")


def show_warning(words: str) -> None:
    """Say on stderr what a person should know, though all went well."""
    from rich.text import Text

    error_console().print(Text("warning: ", "yellow") + Text(words), soft_wrap=True)


def show_saved(path: Path) -> None:
    """Say on stderr what was written."""
    from rich.text import Text

    error_console().print(Text(f"wrote {path}", "dim"), soft_wrap=True)


def boxes_json(boxes: Boxes) -> list[dict[str, Any]]:
    """`[{"xyxy": [...], "score": ...}]` in pixels; the score is null where there is none."""
    scores = [None] * len(boxes) if boxes.scores is None else boxes.scores.tolist()
    return [
        {
            "xyxy": [round(value, 2) for value in xyxy],
            "score": None if score is None else round(score, 4),
        }
        for xyxy, score in zip(boxes.to_json(), scores, strict=True)
    ]


def problems_json(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """`[{"kind": ..., "detail": ...}]`."""
    return [{"kind": problem.kind, "detail": problem.detail} for problem in problems]


def locations_json(
    picture: Image.Image, phrases: Sequence[str], answers: Sequence[Answer]
) -> dict[str, Any]:
    """Where each phrase is, as `--json` prints and `--save` writes it; no boxes: not there."""
    results = [
        {
            "phrase": phrase,
            "boxes": [box for found in answer.text.phrases for box in boxes_json(found.boxes)],
            "problems": problems_json(answer.problems),
        }
        for phrase, answer in zip(phrases, answers, strict=True)
    ]
    return _document(picture, answers[0].model, results)


def descriptions_json(
    picture: Image.Image, regions: Boxes, answers: Sequence[Answer]
) -> dict[str, Any]:
    """What is in each region, as `--json` prints and `--save` writes it."""
    results = [
        {
            "region": boxes_json(box)[0]["xyxy"],
            "text": answer.text.plain,
            "problems": problems_json(answer.problems),
        }
        for box, answer in zip(regions, answers, strict=True)
    ]
    return _document(picture, answers[0].model, results)


def proposals_json(picture: Image.Image, boxes: Boxes, model: str) -> dict[str, Any]:
    """Suggested boxes, as `--json` prints and `--save` writes them."""
    return _document(picture, model, boxes_json(boxes))


def _document(picture: Image.Image, model: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """The frame of a document of many results about one picture."""
    from parfocal.predict.answer import SCHEMA

    return {
        "schema": SCHEMA,
        "image": {"width": picture.width, "height": picture.height},
        "results": results,
        "model": model,
    }


def named(regions: Boxes, answers: Sequence[Answer]) -> Answer:
    """One answer for several described regions: each region with its description as its name."""
    from parfocal.dialects.grounded import GroundedText as Words
    from parfocal.dialects.grounded import Phrase

    names = [answer.text.plain for answer in answers]
    texts = [Words.of(Phrase(name, region)) for name, region in zip(names, regions, strict=True)]
    return joined(answers, texts, "What is in each region?")


def joined(answers: Sequence[Answer], texts: Sequence[GroundedText], question: str) -> Answer:
    """Several answers about one picture as one, for a picture or a page of all of them."""
    from parfocal.dialects.grounded import GroundedText as Words
    from parfocal.dialects.grounded import Text

    spans = [span for text in texts for span in (*text.spans, Text("; "))][:-1]
    problems = tuple(problem for answer in answers for problem in answer.problems)
    text = Words(tuple(spans))
    return replace(answers[0], question=question, text=text, problems=problems, regions=None)


def show_located(phrases: Sequence[str], answers: Sequence[Answer]) -> None:
    """Print where each phrase is, or why there is no box of it."""
    from rich.text import Text

    boxes = [answer.boxes for answer in answers]
    words = coloured(phrases, boxes)
    for line, answer, found in zip(words, answers, boxes, strict=True):
        if not len(found):
            none = "not there" if answer.text.is_nothing else "no box read"
            line.append_text(Text(f"  {none}", "dim"))
    console().print(box_table(zip(words, boxes, strict=True)))
    for answer in answers:
        show_problems(answer.problems)


def show_regions(regions: Boxes, answers: Sequence[Answer]) -> None:
    """Print what is in each region, in the order in which they were given."""
    names = coloured([answer.text.plain for answer in answers], list(regions))
    console().print(box_table(zip(names, regions, strict=True), first="description"))
    for answer in answers:
        show_problems(answer.problems)


def show_proposals(boxes: Boxes) -> None:
    """Print suggested boxes; they count from 1, as on pages."""
    numbers = coloured([str(number) for number in range(1, len(boxes) + 1)], list(boxes))
    rows = zip(numbers, boxes, strict=True)
    console().print(box_table(rows, first="#") if numbers else "no proposals")


def proposed(picture: Image.Image, boxes: Boxes, model: str) -> Answer:
    """Suggested boxes as an answer, each with its number in its name, as the demo names them."""
    from parfocal.dialects.grounded import GroundedText as Words
    from parfocal.dialects.grounded import Phrase
    from parfocal.predict import Answer

    names = [Phrase(f"thing {number}", box) for number, box in enumerate(boxes, start=1)]
    text = Words.of(*(part for name in names for part in (name, " ")))
    return Answer("Where are things?", text, picture, boxes, model=model)


def save_answer(answer: Answer, path: Path | None, document: dict[str, Any] | None = None) -> None:
    """Write the file of `--save`, if there is one, and say so.

    Args:
        answer: drawn on a picture or a page.
        path: of `--save`.
        document: what a .json file is to hold; None for the answer itself.
    """
    if path is None:
        return
    from parfocal.data.outputs import atomic_file

    if document is not None and path.suffix.lower() == ".json":
        with atomic_file(path) as file:
            content = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
            file.write(content.encode())
    else:
        answer.save(path)
    show_saved(path)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_json_line(value: Any) -> None:
    """One JSON document as one line of a stream."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


def coloured(words: Sequence[str], boxes: Sequence[Boxes]) -> list[Text]:
    """Words in the colours that pictures and pages give to phrases with these boxes."""
    from rich.text import Text

    from parfocal.data.drawing import colour_slots, slot_colour
    from parfocal.dialects.grounded import Phrase

    slots = colour_slots([Phrase(*pair) for pair in zip(words, boxes, strict=True)])
    return [
        Text(word) if slot is None else Text(word, f"bold {slot_colour(slot)}")
        for word, slot in zip(words, slots, strict=True)
    ]
