"""The demonstration: questions to a few pictures, with an annotated picture for each answer.

What to ask is the caller's; this module asks, saves, and binds everything into one page and one
data file, so that the commands that read data have something to read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from parfocal.boxes import Boxes
from parfocal.data.jsonl import write_jsonl
from parfocal.data.page import render_page
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.dialects.grounded import GroundedText, Phrase, Span, Text
from parfocal.errors import ConfigError
from parfocal.predict.answer import Answer

if TYPE_CHECKING:
    from PIL import Image

    from parfocal.predict.predictor import Predictor

logger = logging.getLogger(__name__)

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
        One entry a step, in order. A step that the predictor refuses is left out with a warning:
        not every family does all of them.
    """
    for picture in pictures:
        picture.image.save(out / f"{picture.name}.png")
        for number, step in enumerate(picture.steps, start=1):
            try:
                answer = take_step(predictor, picture.image, step)
            except ConfigError as err:
                logger.warning("%s, %s: left out. %s", picture.name, step.title, err)
                continue
            file = out / f"{picture.name}_{number}_{step.kind}.png"
            answer.save(file)
            yield Shown(picture, step, answer, file)


def take_step(predictor: Predictor, image: Image.Image, step: Step) -> Answer:
    """The answer to one step; named regions and proposals become phrases, to be drawn."""
    if step.kind == "locate":
        return predictor.locate(image, step.words)
    if step.kind == "ask":
        return predictor.ask(image, step.words)
    if step.kind == "name" and step.boxes is not None:
        answers = predictor.describe(image, boxes=step.boxes)
        names = [answer.text.plain for answer in answers]
        return replace(answers[0], question=step.words, text=_listed(names, step.boxes))
    if step.kind == "describe":
        return predictor.describe(image)
    boxes = predictor.propose(image)
    text = _listed([f"thing {number}" for number in range(1, len(boxes) + 1)], boxes)
    return Answer(step.words, text, image, boxes, model=predictor.name)


def write_page(shown: Sequence[Shown], path: Path) -> None:
    """Everything that was shown on one self-contained page."""
    items = [
        replace(
            one.answer.page_item(),
            turns=[("user", GroundedText.of(one.step.words)), ("assistant", one.answer.text)],
            title=f"{one.picture.name}: {one.step.title}",
        )
        for one in shown
    ]
    path.write_text(render_page(items, "parfocal demo"), encoding="utf-8")


def write_samples(shown: Sequence[Shown], path: Path) -> None:
    """What was said about each picture as data, one Sample a picture."""
    pictures = {one.picture.name: one.picture for one in shown}
    write_jsonl((_sample(picture, shown) for picture in pictures.values()), path)


def _sample(picture: DemoPicture, shown: Sequence[Shown]) -> Sample:
    turns: list[Turn] = []
    for one in shown:
        if one.picture is picture:
            turns.append(Turn("user", GroundedText.of(one.step.words)))
            turns.append(Turn("assistant", _clipped(one.answer.text)))
    width, height = picture.image.size
    image = ImageRef(f"{picture.name}.png", width, height)
    return Sample(picture.name, (image,), tuple(turns), source="parfocal demo", licence="MIT")


def _clipped(text: GroundedText) -> GroundedText:
    """Without boxes that are empty and parts that leave the picture: a data file has neither."""
    spans: list[Span] = []
    for span in text.spans:
        if isinstance(span, Phrase) and len(span.boxes):
            inside = span.boxes.clip()
            kept = inside[inside.area > 0]
            span = Phrase(span.text, kept) if len(kept) else Text(span.text)
        spans.append(span)
    return GroundedText.of(*spans)


def _listed(names: Sequence[str], boxes: Boxes) -> GroundedText:
    """`name, name, name`, each with its box."""
    spans: list[Span] = []
    for name, box in zip(names, boxes, strict=True):
        spans += [Phrase(name, box), Text(", ")]
    return GroundedText(tuple(spans[:-1]))
