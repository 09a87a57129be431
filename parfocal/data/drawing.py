"""Annotated pictures: boxes, labels and the words they belong to, drawn with Pillow and NumPy.

`draw_boxes` paints boxes on a picture; `draw_answer` adds a strip below it in which every phrase
has the colour of its boxes. The same input gives the same pixels, and pixels away from lines and
labels keep their values.

Shapes: N boxes, xyxy in pixels of the picture that is drawn.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from parfocal.boxes import Boxes, Frame
from parfocal.data.paint import Floats, Pixels, fill, place_labels, rgb, stroke
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef, Span
from parfocal.errors import FrameError, ShapeError

# The first six are of the set by Okabe and Ito (2008, "Color universal design"), which people with
# the common kinds of colour blindness can tell apart; three more follow for long texts.
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#7E57C2",
    "#A3A500",
    "#A11D4B",
)
REGION_COLOUR = "#475569"  # the user's own regions: not a phrase, so not a palette colour
LEGIBLE_SIDE = 640  # pixels; pictures whose long side is shorter are enlarged by a whole factor
_PAD = 0.24  # blank before and after a coloured phrase, as a share of the letter size
PAPER, INK, MUTED = "#FCFCFD", "#171A21", "#5B6473"

Font = ImageFont.FreeTypeFont  # Pillow's bundled face; its wheels always have FreeType


@dataclass(frozen=True)
class _Pen:
    """Sizes in pixels that follow from the size of the picture."""

    line: float
    halo: float
    radius: float
    text: int

    @staticmethod
    def for_size(width: int, height: int) -> _Pen:
        side = max(width, height)
        line = max(2.0, side / 320)
        return _Pen(line, max(1.0, 0.4 * line), 2.4 * line, max(13, round(side / 54)))


@dataclass(frozen=True)
class _Piece:
    """Words of one look in the strip; `colour` ties them to boxes, `run` to their span."""

    text: str
    font: Font
    ink: str
    colour: str | None = None
    run: int = -1
    lead: float = 0.0  # blank pixels before and after the words
    tail: float = 0.0

    @property
    def width(self) -> float:
        return self.lead + self.font.getlength(self.text) + self.tail


def colour_slots(phrases: Sequence[Phrase]) -> list[int | None]:
    """Number phrases that have boxes: equal words share a number, bare boxes get their own.

    Args:
        phrases: in reading order.

    Returns:
        One slot per phrase, counted from 0 by first appearance; its colour is `slot_colour(slot)`.
        None for a phrase that has no boxes and shares its words with none that has.
    """
    keys = [_same_words(phrase.text) or index for index, phrase in enumerate(phrases)]
    slots: dict[str | int, int] = {}
    for key, phrase in zip(keys, phrases, strict=True):
        if len(phrase.boxes):
            slots.setdefault(key, len(slots))
    return [slots.get(key) for key in keys]


def _same_words(text: str) -> str:
    return " ".join(text.casefold().split())


def slot_colour(slot: int) -> str:
    """The "#RRGGBB" colour of a slot; after its last colour the palette starts again."""
    return PALETTE[slot % len(PALETTE)]


def ink_on(colour: str) -> str:
    """White or near-black, whichever reads better on `colour` (WCAG contrast ratio)."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (v / 255 for v in rgb(colour))
    )
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#FFFFFF" if 1.05 / (light + 0.05) >= 4.0 else INK


def span_caption(span: Span) -> str:
    """What a person reads for a span; bare boxes show their pixels, or how many they are."""
    if not isinstance(span, Phrase) or span.text.strip() or not len(span.boxes):
        return GroundedText((span,)).plain
    if len(span.boxes) > 1:
        return f"{len(span.boxes)} boxes"
    return "[" + ", ".join(f"{value:.0f}" for value in span.boxes.xyxy[0]) + "]"


def draw_boxes(
    image: Image.Image,
    boxes: Boxes,
    *,
    colours: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> Image.Image:
    """Draw boxes with rounded, haloed lines and labels that keep clear of each other and the edge.

    Pictures with a long side below 640 pixels are enlarged by a whole factor first, so that lines
    and words stay legible. `image` itself is not changed.

    Args:
        image: any mode; drawn as RGB.
        boxes: N boxes in pixels of `image`.
        colours: N "#RRGGBB" colours; by default boxes with equal labels share a colour.
        labels: N texts, "" for no label; by default the labels and scores of `boxes`.

    Returns:
        A new RGB picture.

    Raises:
        FrameError: if the frame of `boxes` has another size than `image`.
        ShapeError: if there is not one colour and one label per box.

    Example:
        >>> from PIL import Image
        >>> from parfocal.boxes import Boxes, Frame
        >>> picture = Image.new("RGB", (800, 600), "white")
        >>> dog = Boxes([[80, 60, 300, 400]], Frame("image", 800, 600), labels=["a dog"])
        >>> draw_boxes(picture, dog).size
        (800, 600)
    """
    check_picture(image.size, boxes)
    labels = _default_labels(boxes) if labels is None else list(labels)
    if colours is None:
        names = [_same_words(name) for name in boxes.labels or [""] * len(boxes)]
        slots = {name: slot for slot, name in enumerate(dict.fromkeys(names))}
        colours = [slot_colour(slots[name]) for name in names]
    for name, values in (("colours", colours), ("labels", labels)):
        if len(values) != len(boxes):
            raise ShapeError(
                f"{name} has {len(values)} entries for {len(boxes)} boxes. "
                "Pass one per box, in order."
            )
    side = max(image.size)
    factor = -(-LEGIBLE_SIDE // side) if side < LEGIBLE_SIDE else 1
    size = (image.width * factor, image.height * factor)
    picture = image.convert("RGB")
    if factor > 1:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    pen = _Pen.for_size(*size)
    pixels = np.array(picture)
    xyxy = _drawable(np.asarray(boxes.xyxy, dtype=np.float64) * factor, size, pen)
    areas = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
    for row in np.argsort(
        -areas, kind="stable"
    ):  # small boxes last, so that large ones do not cross them
        stroke(pixels, xyxy[row], pen.radius, pen.line + 2 * pen.halo, "#FFFFFF", 0.9)
        stroke(pixels, xyxy[row], pen.radius, pen.line, colours[row], 1.0)
    return _draw_labels(pixels, xyxy, labels, colours, pen)


def draw_answer(
    image: Image.Image,
    grounded: GroundedText,
    *,
    question: GroundedText | str = "",
    regions: Boxes | None = None,
) -> Image.Image:
    """Draw a text below its picture, phrases in the colour of their boxes.

    Args:
        image: the picture that the boxes of `grounded` refer to.
        grounded: the text; boxes in pixels of `image`.
        question: written above the text in a quieter tone; "" for none.
        regions: the user's own boxes, in pixels of `image`, drawn in grey.

    Returns:
        A new RGB picture, higher than `image` by the strip of text.

    Raises:
        FrameError: if boxes lie in a frame of another size than `image`.
    """
    slots = colour_slots(grounded.phrases)
    groups = [Boxes.empty(Frame("image", *image.size)) if regions is None else regions]
    labels = [f"region {k}" for k in range(len(groups[0]))]
    colours = [REGION_COLOUR] * len(labels)
    for phrase, slot in zip(grounded.phrases, slots, strict=True):
        groups.append(phrase.boxes)
        labels += _default_labels(phrase.boxes.replace(labels=[phrase.text] * len(phrase.boxes)))
        colours += [] if slot is None else [slot_colour(slot)] * len(phrase.boxes)
    for boxes in groups:
        if len(boxes):
            check_picture(image.size, boxes)
    xyxy = np.concatenate([boxes.xyxy for boxes in groups])
    drawn = Boxes(xyxy, Frame("image", *image.size))
    picture = draw_boxes(image, drawn, colours=colours, labels=labels)
    return _with_strip(picture, grounded, slots, question)


def check_picture(size_wh: tuple[int, int], boxes: Boxes) -> None:
    """Raise FrameError unless `boxes` are in pixels of a picture of this size."""
    if (boxes.frame.width, boxes.frame.height) != size_wh:
        raise FrameError(
            f"boxes are in frame {boxes.frame}, the picture is {size_wh[0]}x{size_wh[1]}. Map them "
            "to the picture with a Warp first, or pass the picture that they belong to."
        )


def _default_labels(boxes: Boxes) -> list[str]:
    names = list(boxes.labels) if boxes.labels is not None else [""] * len(boxes)
    if boxes.scores is None:
        return names
    return [f"{n} {s:.2f}".strip() for n, s in zip(names, boxes.scores, strict=True)]


def _drawable(xyxy: Floats, size_wh: tuple[int, int], pen: _Pen) -> Floats:
    """Pull lines that lie on or beyond the border just inside it, where they can be seen."""
    inset = min(pen.line / 2 + pen.halo, min(size_wh) / 2)
    high = np.asarray([*size_wh, *size_wh], dtype=np.float64) - inset
    return np.clip(xyxy, inset, high)


def _draw_labels(
    pixels: Pixels, xyxy: Floats, labels: Sequence[str], colours: Sequence[str], pen: _Pen
) -> Image.Image:
    font = font_of(pen.text)
    height, width = pixels.shape[:2]
    texts = [shorten(" ".join(label.split()), font, max(0.45 * width, 90)) for label in labels]
    pad_x, pad_y = 0.45 * pen.text, 0.26 * pen.text
    sizes = np.zeros((len(texts), 2))
    for row, text in enumerate(texts):
        if text:
            sizes[row] = np.ceil([font.getlength(text) + 2 * pad_x, pen.text + 2 * pad_y])
    outline = (pen.line / 2) * np.asarray([-1, -1, 1, 1])
    corners = place_labels(sizes, xyxy + outline, (width, height))
    shown = [row for row in range(len(texts)) if not np.isnan(corners[row, 0])]
    for row in shown:
        chip = np.concatenate([corners[row], corners[row] + sizes[row]])
        fill(pixels, chip, 0.3 * pen.text, colours[row])
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for row in shown:
        x, y = corners[row] + (pad_x, sizes[row, 1] / 2)
        draw.text((x, y), texts[row], fill=ink_on(colours[row]), font=font, anchor="lm")
    return picture


def _with_strip(
    picture: Image.Image,
    grounded: GroundedText,
    slots: Sequence[int | None],
    question: GroundedText | str,
) -> Image.Image:
    """Put `picture` on paper with the question and the text below it."""
    size = max(15, min(round(max(picture.size) / 40), picture.width // 22))
    margin, height = round(1.3 * size), round(1.75 * size)
    width = max(picture.width, 22 * size)
    asked = question if isinstance(question, GroundedText) else GroundedText.of(question)
    quiet = [replace(p, ink=MUTED, colour=None) for p in _pieces(asked, [], size)]
    rows = list(_wrap(quiet, width - 2 * margin)) if asked.plain.strip() else []
    gap = round(0.4 * size) if rows else 0
    num_quiet = len(rows)
    rows += _wrap(_pieces(grounded, slots, size), width - 2 * margin)
    strip = 2 * margin - round(0.4 * size) + gap + height * len(rows)
    paper = Image.new("RGB", (width, picture.height + strip), PAPER)
    paper.paste(picture, ((width - picture.width) // 2, 0))
    pixels = np.array(paper)
    tops = [
        picture.height + margin - round(0.2 * size) + height * k + (gap if k >= num_quiet else 0)
        for k in range(len(rows))
    ]
    for row, top in zip(rows, tops, strict=True):
        _tint_runs(pixels, row, margin, top, size)
    paper = Image.fromarray(pixels)
    draw = ImageDraw.Draw(paper)
    for row, top in zip(rows, tops, strict=True):
        x = float(margin)
        for piece in row:
            draw.text(
                (x + piece.lead, top + 1.15 * size), piece.text, piece.ink, piece.font, anchor="ls"
            )
            x += piece.width
    return paper


def _tint_runs(pixels: Pixels, row: Sequence[_Piece], left: float, top: float, size: int) -> None:
    """Paint a tinted ground and a line of the phrase's colour behind each of its runs in a row."""
    ends: dict[int, tuple[float, float, str]] = {}
    x = left
    for piece in row:
        if piece.colour is not None and piece.text.strip():
            ends[piece.run] = (ends.get(piece.run, (x,))[0], x + piece.width, piece.colour)
        x += piece.width
    for start, end, colour in ends.values():
        ground = np.asarray([start, top + 0.1 * size, end, top + 1.55 * size])
        fill(pixels, ground, 0.28 * size, colour, 0.16)
        line = np.asarray([start, top + 1.42 * size, end, top + 1.55 * size])
        fill(pixels, line, 0.06 * size, colour)


def _pieces(grounded: GroundedText, slots: Sequence[int | None], size: int) -> list[_Piece]:
    """Words and blanks of a text, each with its look; [] for `slots` means no colours."""
    font, small = font_of(size), font_of(round(0.72 * size))
    slot = iter(slots)
    pieces: list[_Piece] = []
    for run, span in enumerate(grounded.spans):
        colour = None
        if isinstance(span, RegionRef):
            colour = REGION_COLOUR
        elif isinstance(span, Phrase):
            number = next(slot, None)
            colour = None if number is None else slot_colour(number)
        ink = MUTED if isinstance(span, Nothing) else INK
        words = re.findall(r"\n|[^\S\n]+|\S+", span_caption(span))
        pieces += [_Piece(word, font, ink, colour, run) for word in words]
        if isinstance(span, Phrase) and len(span.boxes) and span.boxes.scores is not None:
            scores = " " + " ".join(f"{score:.2f}" for score in span.boxes.scores[:3])
            pieces.append(_Piece(scores, small, MUTED, colour, run))
        if colour is not None:
            first = len(pieces) - sum(piece.run == run for piece in pieces)
            pieces[first] = replace(pieces[first], lead=_PAD * size)
            pieces[-1] = replace(pieces[-1], tail=_PAD * size)
    return pieces


def _wrap(pieces: Sequence[_Piece], width: float) -> Iterator[list[_Piece]]:
    """Break pieces into rows at blanks and newlines; words wider than a row break anywhere."""
    row: list[_Piece] = []
    used = 0.0
    for word in _words(pieces, width):
        wide = sum(piece.width for piece in word)
        if word[0].text == "\n" or (used + wide > width and not word[0].text.isspace()):
            yield row
            row, used = [], 0.0
        if word[0].text == "\n" or (not row and word[0].text.isspace()):
            continue
        row += word
        used += wide
    yield row


def _words(pieces: Sequence[_Piece], width: float) -> Iterator[list[_Piece]]:
    """Group pieces that no blank separates, such as a phrase and the full stop after it."""
    word: list[_Piece] = []
    for piece in pieces:
        if word and (piece.text.isspace() or word[-1].text.isspace()):
            yield word
            word = []
        if piece.width > width:
            if word:
                yield word
                word = []
            yield from ([replace(piece, text=letter, lead=0.0, tail=0.0)] for letter in piece.text)
        else:
            word.append(piece)
    if word:
        yield word


def font_of(size: int) -> Font:
    """Pillow's bundled face at a letter size in pixels."""
    font = ImageFont.load_default(size)
    assert isinstance(font, Font)
    return font


def shorten(text: str, font: Font, width: float) -> str:
    """Cut a text so that it is at most `width` pixels wide, with dots at its end."""
    if font.getlength(text) <= width:
        return text
    fits = bisect_left(range(len(text)), width, key=lambda n: font.getlength(text[:n] + "..."))
    return text[: max(fits - 1, 0)].rstrip() + "..."
