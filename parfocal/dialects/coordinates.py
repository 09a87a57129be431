"""The TinyGroundingGPT dialect: boxes are numbers, `a dog [0.120, 0.300, 0.450, 0.800]`.

Numbers are x1, y1, x2, y2 as a fraction of the picture padded to a square. Three decimals are
always written; fewer, more, and drifted spacing are read. The text does not mark where a phrase
starts, so reading takes the words back to the first article or number word (failing that, to the
first word) after the box or punctuation mark before it.

Source: TinyGroundingGPT A.1 and section 4.2; its codec is that of GroundingGPT, lego/mm_utils.py
postprocess_output.
Deviates: spacing drift is read (the official reader leaves such boxes in the padded frame), "none"
for absence is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.dialects.base import Parsed, Problem, View, finish, is_none, strip_end
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef, Span, Text
from parfocal.errors import DialectError

DECIMALS = 3
HALF_STEP = 0.5 * 10**-DECIMALS
OVERSHOOT = 0.1  # values further outside 0..1 are not a slip of the model but garbage

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
# A bracket of numbers with a comma, semicolon or decimal point, so that "[3]" stays a citation.
_BRACKET = re.compile(r"\[(?P<body>[0-9.+\-\s]*[.,;][0-9.,;+\-\s]*)(?P<close>\]|\Z)")
_OFFICIAL = re.compile(r"\[[0-9.]+, [0-9.]+, [0-9.]+, [0-9.]+\]")
_CLAUSE_END = re.compile(r"[,;:!?\n]|\.(?=\s|$)")
_LEAD = re.compile(r"\s*(?:(?:and|or)\s+)?")
_ARTICLE = re.compile(
    r"\b(?:a|an|the|his|her|its|their|my|your|our|each|every|another|some|several|both|one|two|three|four|five|six|seven"
    r"|eight|nine|ten|[0-9]+)\b",
    re.IGNORECASE,
)


def padded_unit_square(image: Frame) -> Warp:
    """Image pixels -> fractions of the picture centred on a square, where the numbers live."""
    padded = Warp.pad_to_square(image)
    return padded.then(Warp.to_unit(padded.target))


class Coordinates:
    """TinyGroundingGPT's dialect; see the module. `View.coordinates` must be given."""

    name = "coordinates"
    special_tokens: tuple[str, ...] = ()

    def render(self, text: GroundedText, view: View) -> str:
        """Write boxes as numbers; a RegionRef is written as the region's box.

        Raises:
            DialectError: if the view has no coordinates, a box leaves the frame of the numbers,
                words hold something that would be read as a box, or a region is referred to that
                the view does not have.
        """
        return "".join(_render_span(span, view) for span in text.spans)

    def parse(self, output: str, view: View, expects_boxes: bool = False) -> Parsed:
        """Read spans and problems; see `Dialect.parse`.

        Raises:
            DialectError: if the view has no coordinates (never because of the output).

        Example:
            >>> from parfocal.boxes import Frame
            >>> frame = Frame("image", 640, 480)
            >>> view = View(frame, coordinates=padded_unit_square(frame))
            >>> parsed = Coordinates().parse("a cat [0.250, 0.325, 0.500, 0.625]", view)
            >>> parsed.text.boxes(frame).to_json()
            [[160.0, 128.0, 320.0, 320.0]]
        """
        _warp(view)
        output = strip_end(output)
        if is_none(output):
            return Parsed(GroundedText.of(Nothing()))
        problems: list[Problem] = []
        spans = tuple(_read_spans(output, view, problems))
        return finish(GroundedText(spans), problems, expects_boxes)

    def locate(self, phrase: str) -> GroundedText:
        """The question of all reported REC numbers (section 4.2)."""
        return GroundedText.of("Output the coordinate of ", Phrase(phrase))

    def locate_all(self, phrase: str) -> GroundedText:
        """The REC question for several instances; the paper has none of its own."""
        return GroundedText.of("Output the coordinates of all ", Phrase(phrase))

    def describe(self) -> GroundedText:
        """GroundingGPT's question for a grounded caption."""
        return GroundedText.of(
            "Describe the image and provide the coordinates for the objects mentioned."
        )

    def describe_region(self, index: int) -> GroundedText:
        """The region is given by its coordinates."""
        return GroundedText.of("Describe the object at ", RegionRef(index), ".")


def _warp(view: View) -> Warp:
    if view.coordinates is None:
        raise DialectError(
            "the coordinates dialect needs View.coordinates, the Warp from image pixels to the "
            "frame of the numbers: View(image, coordinates=padded_unit_square(image))."
        )
    return view.coordinates


def _render_span(span: Span, view: View) -> str:
    if isinstance(span, Text):
        return _words(span.text)
    if isinstance(span, Nothing):
        return "none"
    if isinstance(span, RegionRef):
        known = 0 if view.regions is None else len(view.regions)
        if view.regions is None or span.index >= known:
            raise DialectError(
                f"region {span.index} is referred to, the view has {known} regions. The "
                "coordinates dialect writes a region as its box: pass View.regions."
            )
        return _render_boxes(view.regions[span.index], view)
    words, numbers = _words(span.text), _render_boxes(span.boxes, view)
    return f"{words} {numbers}" if words and numbers else words + numbers


def _words(text: str) -> str:
    match = next(filter(_has_digit, _BRACKET.finditer(text)), None)
    if match:
        raise DialectError(
            f"words hold {match[0]!r}, which would be read as a box. "
            "Give boxes as Phrase spans, in image pixels."
        )
    return text


def _render_boxes(boxes: Boxes, view: View) -> str:
    if len(boxes) == 0:
        return ""
    unit = _warp(view).apply(boxes).unit
    if np.any(unit < -HALF_STEP) or np.any(unit > 1 + HALF_STEP):
        raise DialectError(
            f"boxes {boxes.to_json()} leave the frame {_warp(view).target} that numbers "
            "are written in. Clip them to the picture first: boxes.clip()."
        )
    rows = np.abs(np.clip(unit, 0.0, 1.0))  # abs: no "-0.000"
    return "".join("[" + ", ".join(f"{v:.{DECIMALS}f}" for v in row) + "]" for row in rows)


def _read_spans(output: str, view: View, problems: list[Problem]) -> Iterator[Span]:
    """Words, and phrases with the boxes after them; adjacent brackets belong to one phrase."""
    position = 0
    pending: list[re.Match[str]] = []
    for match in _BRACKET.finditer(output):
        if not _has_digit(match):
            continue
        if pending and output[pending[-1].end() : match.start()].strip():
            yield from _read_phrase(output[position : pending[0].start()], pending, view, problems)
            position, pending = pending[-1].end(), []
        pending.append(match)
    if pending:
        yield from _read_phrase(output[position : pending[0].start()], pending, view, problems)
        position = pending[-1].end()
    yield Text(output[position:])


def _has_digit(bracket: re.Match[str]) -> bool:
    return re.search(r"[0-9]", bracket["body"]) is not None


def _read_phrase(
    words: str, brackets: list[re.Match[str]], view: View, problems: list[Problem]
) -> Iterator[Span]:
    found: list[Boxes] = []
    kept: list[str] = []  # brackets that are no boxes stay readable
    for bracket in brackets:
        boxes = _read_bracket(bracket, view, problems)
        if boxes is None:
            kept.append(bracket[0])
        else:
            found.extend(boxes)
    boxes_all = Boxes.concat(found) if found else Boxes.empty(view.image)
    if kept and not found:
        yield Text(words + "".join(kept))
        return
    start = _phrase_start(words)
    yield Text(words[:start])
    if words[start:] or found:
        yield Phrase(words[start:].rstrip(), boxes_all)
    yield Text("".join(kept))


def _phrase_start(words: str) -> int:
    """Where the phrase at the end of `words` starts; len(words) if there is none."""
    clause = max((match.end() for match in _CLAUSE_END.finditer(words)), default=0)
    if not words[clause:].strip():
        return len(words)
    start = _ARTICLE.search(words, clause)
    if start:
        return start.start()
    lead = _LEAD.match(words, clause)
    return lead.end() if lead else clause


def _read_bracket(
    bracket: re.Match[str], view: View, problems: list[Problem]
) -> list[Boxes] | None:
    """Boxes of one bracket, image pixels; [] if none is left, None if it holds no box."""
    whole = bracket[0]
    rows = [re.split(r"\s*,\s*|\s+", part.strip()) for part in bracket["body"].split(";")]
    well_formed = all(
        len(row) == 4 and all(re.fullmatch(_NUMBER, value) for value in row) for row in rows
    )
    if not bracket["close"]:
        problems.append(Problem("truncated_box", f"{whole!r} ends before its bracket"))
        if not well_formed or len(rows[-1][-1].partition(".")[2]) < DECIMALS:
            return []  # the last number may have lost digits
    elif not well_formed:
        problems.append(Problem("wrong_arity", f"{whole!r} is not four numbers"))
        return None
    elif not _OFFICIAL.fullmatch(whole):
        problems.append(Problem("format_drift", f"{whole!r} is not spaced as [x1, y1, x2, y2]"))
    boxes = (_decode([float(value) for value in row], whole, view, problems) for row in rows)
    return [box for box in boxes if box is not None]


def _decode(values: list[float], whole: str, view: View, problems: list[Problem]) -> Boxes | None:
    """One box in image pixels from four fractions, or None if nothing of it is left."""
    unit = np.array(values, dtype=np.float64)
    if np.any(unit < -OVERSHOOT) or np.any(unit > 1 + OVERSHOOT):
        problems.append(Problem("out_of_range", f"{whole!r} is far outside 0..1, it is left out"))
        return None
    if np.any(unit < 0) or np.any(unit > 1):
        problems.append(Problem("out_of_range", f"{whole!r} is outside 0..1, it is clipped"))
        unit = np.clip(unit, 0.0, 1.0)
    low, high = np.minimum(unit[:2], unit[2:]), np.maximum(unit[:2], unit[2:])
    if np.any(unit[:2] > unit[2:]):
        problems.append(Problem("inverted", f"{whole!r} has x2 < x1 or y2 < y1, they are swapped"))
    return _to_image(low, high, whole, view, problems)


def _to_image(
    low: np.ndarray, high: np.ndarray, whole: str, view: View, problems: list[Problem]
) -> Boxes | None:
    """Undo the padding and clip; `low` and `high` are float64[2] corners, fractions."""
    warp = _warp(view)
    full = Boxes([[0.0, 0.0, view.image.width, view.image.height]], view.image)
    picture = warp.apply(full).unit[0]
    flat = bool(np.any(low == high))
    # Half a step of slack: a thin box at the picture's edge may be rounded into the padding.
    outside = np.any(high < picture[:2] - HALF_STEP) or np.any(low > picture[2:] + HALF_STEP)
    unit = np.concatenate([low, high])[None]
    boxes = warp.inverse().apply(Boxes.from_unit(unit, warp.target)).clip()
    if outside or (not flat and boxes.area[0] == 0):
        problems.append(Problem("in_padding", f"{whole!r} lies in the padding around the picture"))
        return None
    if flat:
        problems.append(Problem("degenerate", f"{whole!r} has no area"))
    return boxes
