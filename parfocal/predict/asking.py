"""What comes before any model: questions, phrases and boxes of the user, checked and understood."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import PIL.Image

from parfocal.boxes import Boxes
from parfocal.data.check import guess_convention
from parfocal.data.sample import cut
from parfocal.dialects.base import Problem
from parfocal.dialects.grounded import GroundedText, Nothing, ObjectRef, Phrase, RegionRef, Span
from parfocal.errors import ConfigError, DataError, FrameError
from parfocal.images import image_frame, load_image
from parfocal.predict.answer import Answer
from parfocal.predict.protocol import BoxesLike, ObjectsLike

EDGE_SLACK = 1.0  # pixels that a box of the user may reach outside its picture

_REFERENCE = re.compile(r"(\[(?:region|object) \d+\])")


def read_question(
    question: str | GroundedText,
    num_boxes: int,
    separator: str = " ",
    num_objects: int = 0,
    name_all: bool = True,
    beside: bool = False,
) -> GroundedText:
    """Turn `[region k]` and `[object k]` into references, and add those that the words leave out.

    Args:
        question: of the user; a GroundedText stays as it is.
        num_boxes: how many boxes came with it.
        separator: goes before a reference that is added at the end.
        num_objects: how many object images came with it; they count from 1.
        name_all: add references to the boxes that the words do not name.
        beside: the model reads boxes beside the words too, so that they need not be named.

    Raises:
        DataError: if there are no words, an object is named that was not given, or a GroundedText
            does not name what the model sees only where it is named.
        FrameError: if a region is named that was not given.

    >>> read_question("What is [region 1]?", 2).spans[1:]
    (RegionRef(index=1), Text(text='? '), RegionRef(index=0))
    """
    if isinstance(question, GroundedText):
        _check_named(question, ObjectRef, range(1, num_objects + 1))
        _check_named(question, RegionRef, range(0 if beside else num_boxes))
        return question
    _check_text(question, "question")
    if not question.strip():
        raise DataError("the question is empty; ask something, such as 'What is in the picture?'.")
    pieces = _REFERENCE.split(question.strip())
    spans = [_reference(piece) if index % 2 else piece for index, piece in enumerate(pieces)]
    regions = {span.index for span in spans if isinstance(span, RegionRef)}
    objects = {span.image for span in spans if isinstance(span, ObjectRef)}
    if max(regions, default=-1) >= num_boxes:
        beyond = min(index for index in regions if index >= num_boxes)
        raise FrameError(
            f"the question names [region {beyond}] but {num_boxes} boxes were given; "
            "they count from 0."
        )
    if max(objects, default=0) > num_objects:
        raise DataError(
            f"the question names [object {max(objects)}] but {num_objects} object images were "
            "given; they count from 1."
        )
    unnamed = range(num_boxes if name_all else 0)
    missing: list[Span] = [RegionRef(index) for index in unnamed if index not in regions]
    missing += [ObjectRef(image) for image in range(1, num_objects + 1) if image not in objects]
    for span in missing:
        spans += [separator, span]
    return GroundedText.of(*spans)


def _check_named(
    question: GroundedText, kind: type[RegionRef] | type[ObjectRef], given: range
) -> None:
    """Refuse a question that leaves out one of the regions or object images given with it."""
    for number in given:
        if kind(number) not in question.spans:
            raise DataError(
                f"the question does not name {GroundedText.of(kind(number)).plain}, which was "
                "given with it; the model sees it only where it is named. Put "
                f"{kind.__name__}({number}) where it belongs, or leave it out."
            )


def _reference(mark: str) -> str | Span:
    """Read `[region 0]` or `[object 1]`; `[object 0]` names nothing and stays words."""
    kind, number = mark.strip("[]").split()
    if kind == "region":
        return RegionRef(int(number))
    return ObjectRef(int(number)) if int(number) else mark


def read_objects(image: PIL.Image.Image, objects: ObjectsLike) -> list[PIL.Image.Image]:
    """The object images: pictures as they are, boxes cut out of `image`.

    Args:
        image: the picture that is asked about.
        objects: boxes, xyxy pixels of `image`, and pictures.

    Raises:
        FrameError: if a box is empty or not inside the picture.
        ImageError: if a picture cannot be read.
    """
    if objects is None:
        return []
    if isinstance(objects, Boxes):
        objects = read_boxes(image, objects).to_json()
    found = []
    for entry in objects:
        if _is_box(entry):
            (box,) = read_boxes(image, [entry]).to_json()
            found.append(cut(image, box))
        else:
            found.append(load_image(entry))
    return found


def _is_box(entry: Any) -> bool:
    """Whether an entry is four numbers and not a file, bytes or a picture."""
    if isinstance(entry, np.ndarray):
        return entry.ndim == 1
    return isinstance(entry, Sequence) and not isinstance(entry, str | bytes)


def read_boxes(image: PIL.Image.Image, boxes: BoxesLike) -> Boxes:
    """The user's boxes in the picture's frame.

    Raises:
        FrameError: if they are in another frame or look like fractions, or one is empty or not
            inside the picture.
    """
    frame = image_frame(image)
    if boxes is None:
        return Boxes.empty(frame)
    if not isinstance(boxes, Boxes):
        boxes = Boxes(boxes, frame) if len(boxes) else Boxes.empty(frame)
    if boxes.frame != frame:
        raise FrameError(
            f"boxes are in frame {boxes.frame}, the picture is {frame}; give pixels of the picture "
            "itself, in the frame that parfocal.images.image_frame(picture) is."
        )
    guess = guess_convention(boxes.xyxy.tolist(), image.size)
    if guess is not None and guess[0] == "looks_like_unit":
        raise FrameError(
            f"boxes {boxes.xyxy.tolist()} look like {guess[1]}. Boxes are x1, y1, x2, y2 in pixels "
            f"of the picture ({image.width}x{image.height})."
        )
    inside = boxes.clip()
    moved = np.abs(inside.xyxy - boxes.xyxy).max(axis=1)
    outside = np.flatnonzero((inside.area <= 0) | (moved > EDGE_SLACK))
    if len(outside):
        row = boxes.xyxy[outside[0]].tolist()
        raise FrameError(
            f"box {int(outside[0])} {row} is empty or not inside the picture "
            f"({image.width}x{image.height}). Give x1, y1, x2, y2 in pixels of the picture."
        )
    return inside


def read_phrase(phrase: str) -> str:
    """The words to locate, without outer blanks; DataError if there are none."""
    _check_text(phrase, "phrase")
    if not phrase.strip():
        raise DataError("the phrase to locate is empty; name something, such as 'the red apple'.")
    return phrase.strip()


def _check_text(words: str, what: str) -> None:
    """Refuse what is no text, and halves of letters, which bytes in another encoding become."""
    if not isinstance(words, str):
        raise DataError(
            f"the {what} is {words!r}, must be text. Several at once go to ask_batch or "
            "locate_batch."
        )
    try:
        words.encode()
    except UnicodeEncodeError as err:
        raise DataError(
            f"the {what} {words!r} is not whole Unicode text; write it in the terminal's encoding."
        ) from err


def name_bare_boxes(answer: Answer, phrase: str) -> Answer:
    """Give bare boxes (and a bare "none") the words that were asked for."""
    spans: list[Span] = []
    for span in answer.text.spans:
        if isinstance(span, Phrase) and not span.text:
            span = Phrase(phrase, span.boxes)
        elif isinstance(span, Nothing) and not span.phrase:
            span = Nothing(phrase)
        spans.append(span)
    return replace(answer, text=GroundedText(tuple(spans)))


def cut_short(count: int) -> Problem:
    """Make the problem of an answer that has no end after `count` tokens."""
    return Problem(
        "truncated",
        f"the answer is cut off after {count} tokens; max_new_tokens lets it be longer "
        "(on the command line --max-new-tokens)",
    )


def one_answer(options: Mapping[str, Any], config: object) -> dict[str, Any]:
    """Return options of Transformers' `generate` with one answer a question, whatever is saved.

    Args:
        options: those that are None are left out.
        config: of the language model.

    Raises:
        ConfigError: if they ask for several, or for one without tokens or with more than
            the language model reads, or one is not known.
    """
    known = _known_options()
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "See Predictor.ask for them."
            raise ConfigError(f"generation has no option {name!r}. {hint}")
    chosen = {name: value for name, value in options.items() if value is not None}
    for name in ("max_new_tokens", "num_beams"):
        number = chosen.get(name, 1)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigError(f"{name} is {number!r}; give a whole number, 1 or more.")
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and chosen.get("max_new_tokens", 1) > most:
        raise ConfigError(
            f"max_new_tokens is {chosen['max_new_tokens']}; the language model reads {most} tokens "
            "at most, those of the question among them."
        )
    count = chosen.get("num_return_sequences", 1)
    if count != 1:
        raise ConfigError(
            f"num_return_sequences is {count}, but a question has one answer. Ask it several "
            "times, with do_sample=True and another seed each time."
        )
    return {**chosen, "num_return_sequences": 1}


@cache
def _known_options() -> frozenset[str]:
    """The settings of Transformers' `generate` and its arguments, but for those we give it."""
    from transformers import GenerationConfig, GenerationMixin

    arguments = set(inspect.signature(GenerationMixin.generate).parameters)
    arguments -= {"self", "kwargs", "inputs", "logits_processor", "custom_generate"}
    unnamed = {"past_key_values", "tokenizer", "assistant_tokenizer"}  # among its `kwargs`
    return frozenset({*vars(GenerationConfig()), *arguments, *unnamed, "seed"})


def no_video(model: str) -> ConfigError:
    """Make the error of a model that was given a video and reads single pictures."""
    return ConfigError(
        f"{model} reads one picture at a time and cannot watch a video. Ask it about a frame "
        "(parfocal.video.load_video gives a list of them), or ask a model that reads several, such "
        "as MG-LLaVA."
    )


def no_objects(model: str) -> ConfigError:
    """Make the error of a model that was given object images and reads none."""
    return ConfigError(
        f"{model} reads no object images, as models with regions.kind 'crop' such as "
        "TinyGroundingGPT do. Give boxes=[...] in place of objects=[...]."
    )


def no_proposals(model: str) -> ConfigError:
    """Make the error of a model that was asked for proposals and has no proposer."""
    return ConfigError(
        f"{model} proposes no boxes: it has no proposer. Ask a model that has one, such as mini, "
        "Groma or OWLv2, or find boxes with parfocal.detectors."
    )


def no_boxes(model: str, dialect: str, instead: str = "") -> ConfigError:
    """Make the error of a model that was given boxes and cannot be told of any.

    Args:
        model: its name.
        dialect: the name of its dialect, which writes no boxes.
        instead: what else there is to do.
    """
    return ConfigError(
        f"{model} cannot be told which region is meant: its dialect, {dialect!r}, writes no boxes, "
        f"and the model reads none beside the words. {instead or 'Say in words what is meant'}, or "
        "ask about a picture of the region alone."
    )


def best(boxes: Boxes, top: int) -> Boxes:
    """The first `top` boxes by score; in their order where they have none.

    Raises:
        ConfigError: if `top` is not a positive number.
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise ConfigError(f"top is {top!r}; give how many boxes there may be, 1 or more.")
    if boxes.scores is None:
        return boxes[:top]
    return boxes[np.argsort(-boxes.scores, kind="stable")[:top]]


def check_lengths(**columns: Sequence[Any]) -> None:
    """Refuse a batch whose columns differ in length, or that is empty."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"a batch needs as many of each, got {lengths}.")
    if not next(iter(lengths.values())):
        raise DataError("no pictures were given.")
