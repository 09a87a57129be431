"""What a dialect is, what it may know of the picture, and what parsing gives back.

A dialect writes GroundedText as the string that one family of models reads, and reads the family's
strings back. Reading never raises on model output and never invents a box: what could not be read
is a `Problem` beside the spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects.grounded import GroundedText

# What the tokenizers of the known families end a text with; the last two are DeepSeek's and use
# a full-width bar and a low line block.
END_TOKENS = (
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)


@dataclass(frozen=True)
class View:
    """One picture as one forward pass sees it.

    Attributes:
        image: the frame of the picture that the user gave; all parsed boxes live here.
        coordinates: image pixels -> the frame in which numbers in the text live; None for the
            frame that `Dialect.coordinate_frame` names, where the picture alone decides it.
        regions: region k of this forward pass, image pixels; None while regions are not known.
        others: the frames of the pictures after the first, for families that point into several.
        user_regions: what the user pointed at, image pixels; the first of the regions, known before
            these are.
    """

    image: Frame
    coordinates: Warp | None = None
    regions: Boxes | None = None
    others: tuple[Frame, ...] = ()
    user_regions: Boxes | None = None


@dataclass(frozen=True)
class Problem:
    """Something in a model's output that is not as the dialect wants it.

    Attributes:
        kind: a word of the shared vocabulary: no_box, wrong_arity, truncated_box, truncated_json,
            out_of_range, inverted, degenerate, in_padding, repetition, wrong_frame, format_drift,
            token_spacing, unlabelled_box, empty_label, unknown_region_index; and of a predictor,
            which knows how an output ended, truncated.
        detail: the offending piece of output and what was done about it.
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Parsed:
    """What a model's output says, and what was wrong with it."""

    text: GroundedText
    problems: tuple[Problem, ...] = ()


class Dialect(Protocol):
    """The text form that one family of models reads and writes."""

    @property
    def name(self) -> str:
        """The key in `DIALECTS`."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens to add to a tokenizer, in this order, before any region index tokens."""

    @property
    def writes_boxes(self) -> bool:
        """True if the text itself says where a region is, in numbers; False if it at most names it.

        What is only named must enter the model beside the text.
        """

    @property
    def needs_coordinates(self) -> bool:
        """True if settings of the preprocessor decide the frame, so that the View must have it."""

    def coordinate_frame(self, image: Frame) -> Warp:
        """Image pixels -> the frame in which the family's numbers live, for `View.coordinates`.

        Where the frame depends on settings of the preprocessor, this is the published checkpoint's;
        a family without numbers in its text gives the identity.
        """

    def render(self, text: GroundedText, view: View) -> str:
        """Write `text`; DialectError if the dialect cannot say it."""

    def parse(self, output: str, view: View, expects_boxes: bool = False) -> Parsed:
        """Read a model's output.

        Args:
            output: the decoded tokens, special tokens included.
            view: the picture of the forward pass that wrote the output.
            expects_boxes: True if the question asked for boxes; then an answer with neither boxes
                nor an explicit "none" has the problem `no_box`.
        """

    def locate(self, phrase: str) -> GroundedText:
        """The family's question for the one thing that `phrase` names."""

    def locate_all(self, phrase: str) -> GroundedText:
        """The family's question for every instance of `phrase`."""

    def describe(self) -> GroundedText:
        """The family's question for a caption, grounded where the family can."""

    def describe_region(self, index: int) -> GroundedText:
        """The family's question for what is in the user's region `index`."""


def strip_end(output: str) -> str:
    """Drop end-of-text tokens, and the blanks around them, from the end of a model's output.

    Example:
        >>> strip_end("a dog </s></s>")
        'a dog'
    """
    while (bare := output.rstrip()).endswith(END_TOKENS):
        token = next(token for token in END_TOKENS if bare.endswith(token))
        output = bare.removesuffix(token).rstrip()
    return output


def finish(text: GroundedText, problems: list[Problem], expects_boxes: bool) -> Parsed:
    """Close a parse: name missing boxes where they were asked for and nothing explains them."""
    has_boxes = any(len(phrase.boxes) for phrase in text.phrases)
    if expects_boxes and not has_boxes and not text.is_nothing and not problems:
        problems = [Problem("no_box", f"a box was asked for, the output has none: {text.plain!r}")]
    return Parsed(text, tuple(problems))


def is_none(output: str) -> bool:
    """True if the whole output is the word "none"."""
    return output.strip().removesuffix(".").casefold() == "none"
