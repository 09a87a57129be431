"""The Groma dialect: boxes are region tokens, `<p>a dog</p><roi><r3></roi>`.

The text never holds coordinates. `<r3>` names region 3 of the same forward pass, so that
`View.regions` is all it takes to read a box. An empty `<roi></roi>` says "there is none".

Source: Groma (arXiv:2404.13013); official constants of groma/constants.py and prompts of
groma/data.
Deviates: region names follow the given order, the official code shuffles them; `<roi></roi>` for
absence is ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from parfocal.boxes import Boxes, Frame, Warp, iou
from parfocal.dialects.base import END_TOKENS, Parsed, Problem, View, finish, strip_end
from parfocal.dialects.grounded import (
    GroundedText,
    Nothing,
    ObjectRef,
    Phrase,
    RegionRef,
    Span,
    Text,
)
from parfocal.dialects.objects import OBJECT_MARK, object_mark
from parfocal.errors import DialectError

MIN_REGION_IOU = 0.5  # below this a box and a region are not the same thing

_INDEX = r"<r(?:0|[1-9][0-9]{0,8})>|<ground_box>|<refer_box>"
_MARK = rf"{_INDEX}|</?roi>|</?p>|</?img>|<image>|<region>|<sep>|<refer_feat>"
_WORDS = rf"(?:(?!{_MARK}).)*+"
_UNIT = re.compile(
    rf"(?:<p>(?P<phrase>{_WORDS})</p>(?P<gap>\s*+))?"
    rf"<roi>(?P<inside>(?:\s*(?:{_INDEX}))*+)(?P<close>\s*</roi>)?(?P<refer>\s*<refer_feat>)?"
    rf"|<p>(?P<alone>{_WORDS})(?P<end></p>|\Z)"
    rf"|(?P<bare>(?:{_INDEX})(?:\s*(?:{_INDEX}))*+)"
    rf"|(?P<stray>{_MARK})",
    re.DOTALL,
)
_RESERVED = re.compile("|".join([_MARK, OBJECT_MARK.pattern, *map(re.escape, END_TOKENS)]))
_REGION_TOKEN = re.compile(r"<r(0|[1-9][0-9]{0,8})>")


def region_token(index: int) -> str:
    """The token that names region `index`: `<r7>`."""
    return f"<r{index}>"


def parse_region_token(token: str) -> int | None:
    """The region index of a token such as `<r7>`, or None for any other token."""
    match = _REGION_TOKEN.fullmatch(token)
    return int(match[1]) if match else None


class RegionTokens:
    """Groma's dialect; see the module."""

    name = "region_tokens"
    special_tokens = (
        "<sep>",
        "<img>",
        "</img>",
        "<roi>",
        "</roi>",
        "<p>",
        "</p>",
        "<image>",
        "<region>",
        "<refer_box>",
        "<ground_box>",
        "<refer_feat>",
        "[grounding]",
    )
    writes_boxes = needs_coordinates = False

    def coordinate_frame(self, image: Frame) -> Warp:
        """The identity: the text holds no numbers."""
        return Warp.identity(image)

    def render(self, text: GroundedText, view: View) -> str:
        """Write region tokens; `<ground_box>` for every box while `view.regions` is None.

        Outer blanks of a phrase are not written.

        Raises:
            DialectError: if a box matches no region (IoU below 0.5), words hold markup, or a bare
                box would be read as the box of the phrase before it.
        """
        _check_order(text.spans)
        return "".join(_render_span(span, view) for span in text.spans)

    def parse(self, output: str, view: View, expects_boxes: bool = False) -> Parsed:
        """Read spans and problems; see `Dialect.parse`.

        Example:
            >>> from parfocal.boxes import Boxes, Frame
            >>> frame = Frame("image", 64, 48)
            >>> view = View(frame, regions=Boxes([[0, 0, 32, 24]], frame))
            >>> RegionTokens().parse("<p>a cat</p><roi><r0></roi>", view).text.phrases[0].text
            'a cat'
        """
        output = strip_end(output)
        spans: list[Span] = []
        problems: list[Problem] = []
        position = 0
        for match in _UNIT.finditer(output):
            spans.append(Text(output[position : match.start()]))
            spans.extend(_read_unit(match, view, problems))
            position = match.end()
        spans.append(Text(output[position:]))
        return finish(GroundedText(tuple(spans)), problems, expects_boxes)

    def locate(self, phrase: str) -> GroundedText:
        """First of the official REC questions."""
        return GroundedText.of("Locate ", Phrase(phrase), " in the image.")

    def locate_all(self, phrase: str) -> GroundedText:
        """First of the official multi-instance questions."""
        return GroundedText.of("Locate all ", Phrase(phrase), " in this image.")

    def describe(self) -> GroundedText:
        """First of the official grounded-caption questions."""
        return GroundedText.of("[grounding]Give me a concise description of the image.")

    def describe_region(self, index: int) -> GroundedText:
        """One of the official detailed region questions."""
        return GroundedText.of("Please describe ", RegionRef(index), " in details.")


def _render_span(span: Span, view: View) -> str:
    if isinstance(span, Text):
        return _words(span.text)
    if isinstance(span, RegionRef):
        if view.regions is not None and span.index >= len(view.regions):
            raise DialectError(
                f"region {span.index} is referred to, this picture has {len(view.regions)} regions "
                "(they count from 0). Pass the box that the text speaks of."
            )
        return f"<roi>{region_token(span.index)}</roi><refer_feat>"
    if isinstance(span, ObjectRef):
        return object_mark(span.image)
    if isinstance(span, Nothing):
        return _tagged(span.phrase) + "<roi></roi>"
    if len(span.boxes) == 0:
        if not span.text.strip():
            raise DialectError("a Phrase with neither words nor boxes cannot be written: drop it.")
        return _tagged(span.text)
    tokens = (
        ["<ground_box>"] * len(span.boxes)
        if view.regions is None
        else [region_token(index) for index in _match_regions(span.boxes, view.regions)]
    )
    return f"{_tagged(span.text)}<roi>{''.join(tokens)}</roi>"


def _words(text: str) -> str:
    match = _RESERVED.search(text)
    if match:
        raise DialectError(
            f"words hold {match[0]!r}, which is markup of the region_tokens dialect: {text!r}. "
            "Give phrases, boxes and regions as spans, or take the markup out."
        )
    return text


def _tagged(phrase: str) -> str:
    phrase = _words(phrase.strip())
    return f"<p>{phrase}</p>" if phrase else ""


def _match_regions(boxes: Boxes, regions: Boxes) -> list[int]:
    """The best region of every box, each region once, in the order of the boxes."""
    matched: dict[int, None] = {}
    overlaps = iou(boxes, regions)  # [N, M]
    for row, box in zip(overlaps, boxes.to_json(), strict=True):
        best = int(row.argmax()) if len(row) else -1
        if best < 0 or row[best] < MIN_REGION_IOU:
            found = (
                f"the best of {len(row)} has IoU {row[best]:.2f}" if len(row) else "there are none"
            )
            raise DialectError(
                f"no region matches the box {box} (IoU at least {MIN_REGION_IOU} wanted, {found}). "
                "Add the box to the regions of this forward pass."
            )
        matched[best] = None
    return list(matched)


def _check_order(spans: Sequence[Span]) -> None:
    """Refuse a phrase without boxes right before bare boxes: they would be read as its boxes."""
    waiting = ""
    for span in spans:
        if isinstance(span, Text) and not span.text.strip():
            continue
        words = span.text if isinstance(span, Phrase) else getattr(span, "phrase", "")
        bare = isinstance(span, Phrase | Nothing) and not words.strip()
        if bare and waiting:
            raise DialectError(
                f"phrase {waiting!r} has no boxes and bare boxes follow: write one Phrase with "
                "both, or put words between them."
            )
        waiting = span.text if isinstance(span, Phrase) and not len(span.boxes) else ""


def _read_unit(match: re.Match[str], view: View, problems: list[Problem]) -> Iterator[Span]:
    """Spans of one piece of markup."""
    whole = match[0]
    if match["stray"]:
        problems.append(Problem("format_drift", f"{whole!r} stands alone and is left out"))
    elif match["bare"]:
        problems.append(Problem("format_drift", f"{whole!r} stands outside <roi>...</roi>"))
        yield from _phrase("", _boxes(match["bare"], view, problems))
    elif match["alone"] is not None:
        if match["alone"] != match["alone"].strip():
            _note_spacing(whole, problems)
        if not match["end"]:
            problems.append(Problem("truncated_box", f"{whole!r} ends inside the phrase"))
        yield from _phrase(match["alone"].strip(), None)
    else:
        yield from _read_roi(match, view, problems)


def _read_roi(match: re.Match[str], view: View, problems: list[Problem]) -> Iterator[Span]:
    phrase, inside, gap = match["phrase"] or "", match["inside"], match["gap"] or ""
    if match["refer"] and inside:
        yield from _phrase(phrase.strip(), None)
        yield Text(gap)
        yield from _read_references(inside, match[0], view, problems)
        return
    if phrase != phrase.strip() or re.search(r"\s", gap + inside + (match["close"] or "")):
        _note_spacing(match[0], problems)
    if match["refer"]:
        problems.append(Problem("format_drift", f"{match['refer']!r} without a region"))
    if not match["close"]:
        at_end = not match.string[match.end() :].strip()
        kind = "truncated_box" if at_end else "format_drift"
        problems.append(Problem(kind, f"{match[0]!r} lacks its </roi>"))
    elif not inside:
        yield Nothing(phrase.strip())
        return
    yield from _phrase(phrase.strip(), _boxes(inside, view, problems))


def _read_references(
    inside: str, whole: str, view: View, problems: list[Problem]
) -> Iterator[RegionRef]:
    tokens = re.findall(_INDEX, inside)
    if len(tokens) > 1:
        problems.append(Problem("format_drift", f"{whole!r} refers to several regions at once"))
    for token in tokens:
        index = parse_region_token(token)
        if index is None or (view.regions is not None and index >= len(view.regions)):
            problems.append(_unknown(token, view))
        else:
            yield RegionRef(index)


def _boxes(inside: str, view: View, problems: list[Problem]) -> Boxes | None:
    """Boxes of a run of index tokens, each once, in order; None if there is none."""
    indices: list[int] = []
    tokens = Counter(re.findall(_INDEX, inside))  # in order of first appearance
    for token, count in tokens.items():
        index = parse_region_token(token)
        if index is None or view.regions is None or index >= len(view.regions):
            problems.append(_unknown(token, view))
        else:
            indices.append(index)
        if count > 1:
            problems.append(Problem("repetition", f"{token!r} is named {count} times, taken once"))
    return view.regions[indices] if view.regions is not None and indices else None


def _unknown(token: str, view: View) -> Problem:
    known = "regions are not known" if view.regions is None else f"{len(view.regions)} regions"
    return Problem("unknown_region_index", f"{token!r} names no region ({known}), it is left out")


def _phrase(text: str, boxes: Boxes | None) -> Iterator[Phrase]:
    if boxes is not None:
        yield Phrase(text, boxes)
    elif text:
        yield Phrase(text)


def _note_spacing(whole: str, problems: list[Problem]) -> None:
    if not any(problem.kind == "token_spacing" for problem in problems):
        detail = f"{whole!r} has blanks around its tokens; decode without spaces between them"
        problems.append(Problem("token_spacing", detail))
