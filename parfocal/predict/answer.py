"""Answer: what every predictor returns. A text whose phrases hold boxes, and how it came about.

Boxes are always xyxy pixels of the picture that the user gave. What was wrong in the model's output
is data (`problems`), never an exception.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.drawing import draw_answer
from parfocal.data.outputs import atomic_file
from parfocal.data.page import PageItem, render_fragment, render_page
from parfocal.dialects.base import Problem
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, Text
from parfocal.errors import ConfigError
from parfocal.images import image_frame

SCHEMA = "parfocal.answer/1"
_TASK_MARK = re.compile(r"^\[(?:grounding|refer|detection|identify)\]\s*")  # dialects write them
_BOX_DECIMALS, _SCORE_DECIMALS, _TIME_DECIMALS = 2, 4, 4


@dataclass(frozen=True)
class Answer:
    """A grounded text about one picture.

    Attributes:
        question: what was asked; its RegionRefs count `regions`.
        text: the answer; its phrases hold boxes with scores, pixels of `image`.
        image: the picture as the user sees it (EXIF orientation applied).
        proposals: the model's region slots, the user's boxes first, pixels of `image`.
        problems: what was wrong in the model's output.
        timing: seconds a step, such as {"encode": 0.05, "generate": 0.2}.
        model: name or folder of the model.
        regions: the user's boxes, pixels of `image`; None if there were none.

    Example:
        >>> from parfocal.boxes import Frame
        >>> frame, image = Frame("image", 80, 60), Image.new("RGB", (80, 60))
        >>> dog = Phrase("a dog", Boxes([[10, 20, 30, 40]], frame, scores=[0.9]))
        >>> text = GroundedText.of("I see ", dog, ".")
        >>> answer = Answer("What is there?", text, image, Boxes.empty(frame))
        >>> str(answer), answer.boxes.to_json()
        ('I see a dog.', [[10.0, 20.0, 30.0, 40.0]])
    """

    question: GroundedText | str
    text: GroundedText
    image: Image.Image = field(repr=False)
    proposals: Boxes = field(repr=False)
    problems: tuple[Problem, ...] = ()
    timing: Mapping[str, float] = field(default_factory=dict, compare=False)
    model: str = ""
    regions: Boxes | None = None

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """The phrases of the text, in order, each with its boxes."""
        return self.text.phrases

    @property
    def boxes(self) -> Boxes:
        """All boxes of all phrases, in order, pixels of `image`."""
        return self.text.boxes(image_frame(self.image))

    def __str__(self) -> str:
        return self.text.plain

    def to_json(self) -> dict[str, Any]:
        """The answer as plain JSON values; pixels have two decimals.

        Returns:
            `spans` is the whole text, for `GroundedText.from_json`. `results` has an entry for each
            phrase, with no boxes where the answer is that there is none; the problems of each are
            those of the answer that it is part of.
        """
        spans = self.text.to_json()
        problems = [{"kind": p.kind, "detail": p.detail} for p in self.problems]
        for span in spans:
            if span.get("boxes"):
                span["boxes"] = [_rounded(row, _BOX_DECIMALS) for row in span["boxes"]]
            if "scores" in span:
                span["scores"] = _rounded(span["scores"], _SCORE_DECIMALS)
        return {
            "schema": SCHEMA,
            "image": {"width": self.image.width, "height": self.image.height},
            "question": _plain(self.question),
            "text": self.text.plain,
            "spans": spans,
            "results": [
                {**_result(span), "problems": problems}
                for span in self.text.spans
                if isinstance(span, Phrase | Nothing)
            ],
            "problems": problems,
            "proposals": len(self.proposals),
            "timing": {step: round(s, _TIME_DECIMALS) for step, s in self.timing.items()},
            "model": self.model,
        }

    def draw(self) -> Image.Image:
        """The picture with its boxes, question and text, as `save` writes it to PNG."""
        return draw_answer(
            self.image, self.text, question=_spoken(self.question), regions=self.regions
        )

    def page_item(self) -> PageItem:
        """The answer as an item of an HTML page, to show several on one with `render_page`."""
        question = _spoken(self.question)
        turns = [("user", question)] if question.plain.strip() else []
        seconds = f"{sum(self.timing.values()):.2f} s" if self.timing else ""
        return PageItem(
            image=self.image,
            turns=[*turns, ("assistant", self.text)],
            regions=self.regions,
            caption="  |  ".join(filter(None, (self.model, seconds))),
            problems=self.problems,
            proposals=self.proposals,
        )

    def save(self, path: str | Path) -> Path:
        """Write the answer as the suffix of `path` says: .png, .html or .json.

        The file appears complete or not at all.

        Returns:
            `path`.

        Raises:
            ConfigError: if the suffix is another.
            DataError: if the file cannot be written.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix not in (".png", ".html", ".json"):
            raise ConfigError(
                f"cannot save an answer as {target.name!r}: the suffix {target.suffix!r} is none "
                "of .png (a drawing), .html (an interactive page), .json (text and boxes). Give "
                "the file one of these suffixes."
            )
        if suffix == ".png":
            picture = self.draw()
            with atomic_file(target) as file:
                picture.save(file, "PNG")
            return target
        if suffix == ".html":
            content = render_page([self.page_item()], _plain(self.question) or "parfocal")
        else:
            content = json.dumps(self.to_json(), ensure_ascii=False, indent=2) + "\n"
        with atomic_file(target) as file:
            file.write(content.encode())
        return target

    def show(self) -> None:
        """Open the drawing in the system's image viewer."""
        self.draw().show(title=_plain(self.question) or "parfocal")

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return render_fragment(self.page_item())


def _spoken(question: GroundedText | str) -> GroundedText:
    """The question as a person would say it: without a task mark such as `[grounding]`."""
    text = question if isinstance(question, GroundedText) else GroundedText.of(question)
    first = text.spans[0] if text.spans else None
    if not isinstance(first, Text):
        return text
    return GroundedText.of(_TASK_MARK.sub("", first.text), *text.spans[1:])


def _plain(question: GroundedText | str) -> str:
    return _spoken(question).plain


def _result(span: Phrase | Nothing) -> dict[str, Any]:
    if isinstance(span, Nothing):
        return {"phrase": span.phrase, "boxes": []}
    scores = span.boxes.scores
    boxes = [
        {
            "xyxy": _rounded(row, _BOX_DECIMALS),
            "score": None if scores is None else round(float(scores[k]), _SCORE_DECIMALS),
        }
        for k, row in enumerate(span.boxes.to_json())
    ]
    return {"phrase": span.text, "boxes": boxes}


def _rounded(values: list[float], decimals: int) -> list[float]:
    return [round(value, decimals) for value in values]
