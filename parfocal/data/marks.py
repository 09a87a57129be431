"""What ties words to boxes on a page: a key that both carry, a number, a colour; and words as HTML.

Every place of a page that shows a phrase or a region shows it with its `Mark`, so that what has one
key can light up together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from parfocal.boxes import Boxes
from parfocal.data.drawing import REGION_COLOUR, colour_slots, ink_on, slot_colour, span_caption
from parfocal.dialects.grounded import GroundedText, Phrase

MAX_SCORES = 3  # that words show; their boxes show all
_SHORT = 24  # letters; shorter words are kept on one line

Turns = Sequence[tuple[str, GroundedText]]


@dataclass(frozen=True)
class Mark:
    """A phrase or a region on a page.

    Attributes:
        key: the class that its words and boxes carry: "k0", "r0".
        number: what stands on both: "1", "R0".
        colour: of both, "#RRGGBB".
        words: what a person reads beside the number.
        named: whether `words` say what is in the box, and not only which box it is.
        said: what a screen reader reads.
    """

    key: str
    number: str
    colour: str
    words: str
    named: bool
    said: str

    @property
    def style(self) -> str:
        """CSS of the colour, and of an ink that is legible on it."""
        return f"--c:{self.colour};--t:{ink_on(self.colour)}"


def phrase_marks(turns: Turns) -> list[Mark | None]:
    """A mark per phrase of all turns, None for phrases without boxes."""
    phrases = _phrases(turns)
    found: list[Mark | None] = []
    for phrase, slot in zip(phrases, colour_slots(phrases), strict=True):
        words, named = span_caption(phrase), bool(phrase.text.strip())
        found.append(
            None
            if slot is None
            else Mark(f"k{slot}", str(slot + 1), slot_colour(slot), words, named, words)
        )
    return found


def region_marks(regions: Boxes | None, turns: Turns) -> list[Mark]:
    """A mark per region.

    A label gives its region a colour: that of the phrase of the same words, if `turns` have one.
    """
    if regions is None:
        return []
    labels = list(regions.labels or [""] * len(regions))
    spoken = _phrases(turns)
    named = [Phrase(label, box) for label, box in zip(labels, regions, strict=True)]
    slots = colour_slots([*spoken, *named])[len(spoken) :]
    return [
        Mark(f"r{k}", f"R{k}", slot_colour(slot), label, True, f"region {k} {label}")
        if label.strip() and slot is not None
        else Mark(f"r{k}", f"R{k}", REGION_COLOUR, f"region {k}", False, f"region {k}")
        for k, (label, slot) in enumerate(zip(labels, slots, strict=True))
    ]


def _phrases(turns: Turns) -> list[Phrase]:
    return [phrase for _, text in turns for phrase in text.phrases]


def chip(mark: Mark, words: str, boxes: Boxes | None) -> str:
    """Words that light up their boxes.

    Args:
        mark: what they are tied to.
        words: any text; escaped here.
        boxes: whose number and scores are told; None for neither.
    """
    scores = "" if boxes is None else score_text(boxes)
    count = "" if boxes is None or len(boxes) == 1 else f", {len(boxes)} boxes"
    short = " pf-short" if len(words) <= _SHORT else ""
    small = ""
    if boxes is not None and boxes.scores is not None and len(boxes):
        more = f" +{len(boxes) - MAX_SCORES}" if len(boxes) > MAX_SCORES else ""
        shown = " ".join(f"{score:.2f}" for score in boxes.scores[:MAX_SCORES])
        small = f'<span class="pf-score">{shown}{more}</span>'
    return (
        f'<span class="pf-phrase{short} pf-key {mark.key}" data-key="{mark.key}" tabindex="0" '
        f'role="button" aria-pressed="false" aria-label="{escape(mark.said)}{count}{scores}" '
        f'style="{mark.style}"><span class="pf-num">{mark.number}</span>&#8288;'
        f"<bdi>{escape(words)}</bdi>{small}</span>"
    )


def score_text(boxes: Boxes) -> str:
    """Return ", score 0.91", or nothing for boxes without scores."""
    if boxes.scores is None or not len(boxes):
        return ""
    return ", score " + ", ".join(f"{score:.2f}" for score in boxes.scores)
