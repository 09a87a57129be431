"""The demonstration: questions to a few pictures, with an annotated picture for each answer.

What to ask is the caller's; this module asks, saves, and binds everything into one page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from parfocal.boxes import Boxes
from parfocal.dialects.grounded import GroundedText, Phrase, Span, Text

if TYPE_CHECKING:
    from parfocal.predict.answer import Answer
    from parfocal.predict.predictor import Predictor
    from PIL import Image

Kind = Literal["describe", "locate", "ask", "name", "propose"]


@dataclass(frozen=True)
class Step:
    """One thing to show.

    Attributes:
        kind: which of the predictor's doors it goes through.
        title: what it shows, such as "one of several".
        words: the phrase or question, where there is one.
        boxes: the regions to be named, where there are some.
    """

    kind: Kind
    title: str
    words: str = ""
    boxes: Boxes | None = None


@dataclass(frozen=True)
class DemoPicture:
    """A picture, the name of its files, and what to show on it."""

    name: str
    image: Image.Image
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Shown:
    """A step with its answer and the picture that was written."""

    picture: DemoPicture
    step: Step
    answer: Answer
    file: Path


def run_demo(predictor: Predictor, pictures: Sequence[DemoPicture], out: Path) -> Iterator[Shown]:
    """Ask everything, writing one PNG an answer as it comes.

    Args:
        predictor: what `parfocal.load` returns.
        pictures: what to ask about what.
        out: an existing folder; each picture is saved there too, as NAME.png.

    Yields:
        One entry a step, in order.
    """
    for picture in pictures:
        picture.image.save(out / f"{picture.name}.png")
        for number, step in enumerate(picture.steps, start=1):
            answer = take_step(predictor, picture.image, step)
            file = out / f"{picture.name}_{number}_{step.kind}.png"
            answer.save(file)
            yield Shown(picture, step, answer, file)


def take_step(predictor: Predictor, image: Image.Image, step: Step) -> Answer:
    """The answer to one step; named regions and proposals become phrases, to be drawn."""
    if step.kind == "describe":
        return predictor.describe(image)
    if step.kind == "locate":
        return predictor.locate(image, step.words)
    if step.kind == "ask":
        return predictor.ask(image, step.words)
    if step.kind == "name" and step.boxes is not None:
        answers = predictor.describe(image, boxes=step.boxes)
        names = [answer.text.plain for answer in answers]
        return replace(answers[0], question=step.words, text=_listed(names, step.boxes))
    boxes = predictor.propose(image)
    return replace(
        predictor.describe(image), question=step.words, text=_listed([""] * len(boxes), boxes)
    )


def _listed(names: Sequence[str], boxes: Boxes) -> GroundedText:
    """`name, name, name`, each with its box."""
    spans: list[Span] = []
    for name, box in zip(names, boxes, strict=True):
        spans += [Phrase(name, box), Text(", ")]
    return GroundedText(tuple(spans[:-1]))
