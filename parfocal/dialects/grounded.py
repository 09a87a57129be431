"""GroundedText: words whose phrases are tied to boxes, free of any model's markup.

Every dialect renders a GroundedText to the string a model family reads, and parses a model's string
back to one. Datasets store it, predictors return it, renderers draw it. Boxes are xyxy pixels in
the frame of the picture they point into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from parfocal.boxes import Boxes, Frame
from parfocal.errors import DataError, DialectError, FrameError

# A phrase that is not placed has no picture: all of them share one empty set of boxes, and are
# equal if their words are.
UNPLACED = Boxes.empty(Frame("nowhere", 1.0, 1.0))
_IMAGE_FRAME = re.compile(r"image(0|[1-9][0-9]*)?")


@dataclass(frozen=True)
class Text:
    """Words that point at nothing."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what is not a string."""
        _require_str(self.text, "Text.text")


@dataclass(frozen=True)
class Phrase:
    """Words and the boxes they name.

    Attributes:
        text: the words; "" for bare boxes, as in the answer to "where is the dog?".
        boxes: pixels of the picture; none for a phrase that is still to be located.
    """

    text: str
    boxes: Boxes = UNPLACED

    def __post_init__(self) -> None:
        """Refuse wrong types; forget the frame of an empty set of boxes."""
        _require_str(self.text, "Phrase.text")
        if not isinstance(self.boxes, Boxes):
            raise DialectError(
                f"Phrase.boxes is a {type(self.boxes).__name__}, must be Boxes: "
                "build Boxes(xyxy, frame) so that the numbers carry their frame."
            )
        if len(self.boxes) == 0:
            object.__setattr__(self, "boxes", UNPLACED)


@dataclass(frozen=True)
class RegionRef:
    """The user's region number `index`, counted from 0."""

    index: int

    def __post_init__(self) -> None:
        """Refuse negative and non-integer indices."""
        if isinstance(self.index, bool) or not isinstance(self.index, int) or self.index < 0:
            raise DialectError(
                f"RegionRef.index is {self.index!r}, must be an integer from 0: "
                "regions count from 0."
            )


@dataclass(frozen=True)
class ObjectRef:
    """An object shown as a picture of its own: picture number `image` of the Sample.

    Picture 0 is what the conversation is about, so object images count from 1.
    """

    image: int

    def __post_init__(self) -> None:
        """Refuse the picture itself and non-integer numbers."""
        if isinstance(self.image, bool) or not isinstance(self.image, int) or self.image < 1:
            raise DialectError(
                f"ObjectRef.image is {self.image!r}, must be an integer from 1: "
                "picture 0 is the one that is talked about."
            )


@dataclass(frozen=True)
class Nothing:
    """An explicit "there is none", for `phrase` where it is known."""

    phrase: str = ""

    def __post_init__(self) -> None:
        """Refuse what is not a string."""
        _require_str(self.phrase, "Nothing.phrase")


Span = Text | Phrase | RegionRef | ObjectRef | Nothing


@dataclass(frozen=True)
class GroundedText:
    """A sequence of spans in canonical form: no empty Text, no two Texts side by side.

    Example:
        >>> GroundedText.of("I see ", Phrase("a dog"), Text("."), " Good.").plain
        'I see a dog. Good.'
    """

    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        """Check the kinds of the spans and merge neighbouring Texts."""
        merged: list[Span] = []
        for span in self.spans:
            if not isinstance(span, Span):
                raise DialectError(
                    f"a span is a {type(span).__name__}, must be Text, Phrase, RegionRef, "
                    "ObjectRef or Nothing. GroundedText.of(...) also takes plain strings."
                )
            last = merged[-1] if merged else None
            if isinstance(span, Text) and isinstance(last, Text):
                merged[-1] = Text(last.text + span.text)
            elif not (isinstance(span, Text) and span.text == ""):
                merged.append(span)
        object.__setattr__(self, "spans", tuple(merged))

    @classmethod
    def of(cls, *parts: str | Span) -> GroundedText:
        """Build from spans and plain strings, in reading order."""
        return cls(tuple(Text(part) if isinstance(part, str) else part for part in parts))

    @property
    def plain(self) -> str:
        """What a person reads: words without boxes or markup."""
        return "".join(_plain_span(span) for span in self.spans)

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """The Phrase spans, in order."""
        return tuple(span for span in self.spans if isinstance(span, Phrase))

    @property
    def is_nothing(self) -> bool:
        """True if the text says "there is none" and points at no box."""
        says_none = any(isinstance(span, Nothing) for span in self.spans)
        return says_none and not any(len(phrase.boxes) for phrase in self.phrases)

    def boxes(self, frame: Frame) -> Boxes:
        """All boxes of all phrases, in order; scores and labels only if every phrase has them.

        Args:
            frame: the picture's frame.

        Raises:
            FrameError: if a phrase has boxes in another frame.
        """
        placed = [phrase.boxes for phrase in self.phrases if len(phrase.boxes)]
        for boxes in placed:
            if boxes.frame != frame:
                raise FrameError(
                    f"a phrase has boxes in frame {boxes.frame}, asked for {frame}. "
                    "Ask for the frame of the picture that the phrase points into."
                )
        for name in ("scores", "labels"):
            if any(getattr(boxes, name) is None for boxes in placed):
                placed = [boxes.replace(**{name: None}) for boxes in placed]
        return Boxes.concat(placed) if placed else Boxes.empty(frame)

    def to_json(self) -> list[dict[str, Any]]:
        """Spans as plain JSON values; boxes are xyxy pixels of image 0 unless "image" says else.

        Raises:
            FrameError: if a box is not in an image frame ("image", "image1", ...).
        """
        return [_span_to_json(span) for span in self.spans]

    @classmethod
    def from_json(cls, spans: Sequence[Mapping[str, Any]], frames: Sequence[Frame]) -> GroundedText:
        """Inverse of `to_json`.

        Args:
            spans: what `to_json` gave.
            frames: the frame of each picture, in order.

        Raises:
            DataError: if a span is not understood or names a picture that is not there.
        """
        return cls(tuple(_span_from_json(span, frames) for span in spans))


def _require_str(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise DialectError(f"{name} is a {type(value).__name__}, must be a string.")


_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)


def _plain_span(span: Span) -> str:
    if isinstance(span, Text | Phrase):
        return span.text
    if isinstance(span, RegionRef):
        return f"[region {span.index}]"
    if isinstance(span, ObjectRef):
        return f"[object {span.image}]"
    return f"no {_ARTICLE.sub('', span.phrase)}" if span.phrase else "none"


def _span_to_json(span: Span) -> dict[str, Any]:
    if isinstance(span, Text):
        return {"type": "text", "text": span.text}
    if isinstance(span, RegionRef):
        return {"type": "region", "index": span.index}
    if isinstance(span, ObjectRef):
        return {"type": "object", "image": span.image}
    if isinstance(span, Nothing):
        return {"type": "nothing", "phrase": span.phrase} if span.phrase else {"type": "nothing"}
    out: dict[str, Any] = {"type": "phrase", "text": span.text, "boxes": span.boxes.to_json()}
    image = _image_index(span.boxes.frame) if len(span.boxes) else 0
    if image:
        out["image"] = image
    if span.boxes.scores is not None and len(span.boxes):
        out["scores"] = [float(score) for score in span.boxes.scores]
    return out


def _image_index(frame: Frame) -> int:
    match = _IMAGE_FRAME.fullmatch(frame.name)
    if match is None:
        raise FrameError(
            f"boxes are in frame {frame.name!r}, JSON holds pixels of a picture (frame 'image', "
            "'image1', ...). Apply the inverse Warp first."
        )
    return int(match[1] or 0)


def _span_from_json(span: Mapping[str, Any], frames: Sequence[Frame]) -> Span:
    kind = span.get("type") if isinstance(span, Mapping) else None
    try:
        if kind == "text":
            return Text(span["text"])
        if kind == "phrase":
            return _phrase_from_json(span, frames)
        if kind == "region":
            return RegionRef(span["index"])
        if kind == "object":
            return _object_from_json(span, frames)
        if kind == "nothing":
            return Nothing(span.get("phrase", ""))
    except KeyError as err:
        raise DataError(f"a {kind} span lacks the field {err}: {dict(span)!r}") from err
    except (DialectError, FrameError) as err:
        raise DataError(f"a {kind} span is not valid: {err}") from err
    raise DataError(
        f"span {span!r} has no known type. Types: text, phrase, region, object, "
        'nothing (for example {"type": "text", "text": "a dog"}).'
    )


def _object_from_json(span: Mapping[str, Any], frames: Sequence[Frame]) -> ObjectRef:
    found = ObjectRef(span["image"])
    if found.image >= len(frames):
        raise DataError(
            f"object image {found.image} is referred to, there are {len(frames)} images "
            "(they count from 0)."
        )
    return found


def _phrase_from_json(span: Mapping[str, Any], frames: Sequence[Frame]) -> Phrase:
    rows = cast(list[list[float]], span["boxes"])
    image = span.get("image", 0)
    if not rows:
        return Phrase(span["text"])
    if isinstance(image, bool) or not isinstance(image, int) or not 0 <= image < len(frames):
        raise DataError(
            f"phrase {span['text']!r} points into image {image!r}, there are {len(frames)} images "
            "(they count from 0)."
        )
    return Phrase(span["text"], Boxes(rows, frames[image], scores=span.get("scores")))
