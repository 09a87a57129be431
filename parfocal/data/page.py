"""Grounded text as interactive HTML: point at a phrase and its boxes light up, and the other way.

`render_page` writes a whole page, `render_fragment` a piece for a notebook, an `iframe` or a shadow
root. Both are self-contained: style and pictures are inside, nothing is fetched. Highlighting is
plain CSS; only pinning needs a script, which sits in two event attributes, so that it also works
where `script` elements do not run. A fragment has no ids and may stand on a page many times.

Boxes are xyxy pixels of the picture they are drawn on, and are placed in percent of it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

import numpy as np
from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.drawing import (
    REGION_COLOUR,
    check_picture,
    colour_slots,
    ink_on,
    slot_colour,
    span_caption,
)
from parfocal.data.paint import place_labels
from parfocal.dialects.base import Problem
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef, Text

SHOWN_SIDE = 1400  # pixels; longer pictures are embedded smaller, their boxes stay exact
LOSSLESS_SIDE = 320  # pixels; up to this size PNG costs little and keeps every pixel
_TAG_CANVAS = 640.0  # width at which number tags are laid out, near what most screens show
_TAG_WH = (22.0, 21.0)
_MAX_SCORES = 3  # that a phrase prints; its boxes show all
_SHORT = 24  # letters; shorter phrases are kept on one line
_ROLES = {"user": "Question", "assistant": "Answer"}

Turns = Sequence[tuple[str, GroundedText]]


@dataclass(frozen=True)
class Panel:
    """One picture of an item, with the boxes that lie in it.

    Attributes:
        image: the picture.
        title: shown above it.
        frame: draw only boxes in the frame of this name; None to draw all.
        turns: whose boxes to draw; those of the item if None.
        regions: drawn dashed; those of the item if None.
    """

    image: Image.Image
    title: str = ""
    frame: str | None = None
    turns: Turns | None = None
    regions: Boxes | None = None


@dataclass(frozen=True)
class PageItem:
    """A picture and what is said about it.

    Attributes:
        image: the picture, or None if there is none (or only panels).
        turns: (role, text) in order; roles "user" and "assistant" read "Question" and "Answer".
        regions: the user's boxes, that RegionRef counts.
        title: a short name, such as the sample's id.
        caption: small print: the source, the model, the time it took.
        notes: sentences that explain what is shown.
        problems: shown as warnings; an item that has some can be filtered for.
        proposals: boxes that a model suggested; hidden until asked for.
        panels: further pictures, beside `image`.
    """

    image: Image.Image | None
    turns: Turns = ()
    regions: Boxes | None = None
    title: str = ""
    caption: str = ""
    notes: Sequence[str] = ()
    problems: Sequence[Problem] = ()
    proposals: Boxes | None = None
    panels: Sequence[Panel] = ()


@dataclass(frozen=True)
class _Mark:
    """What ties words to boxes: the class both carry, what stands on both, and their colour."""

    key: str
    number: str
    colour: str
    words: str

    @property
    def style(self) -> str:
        return f"--c:{self.colour};--t:{ink_on(self.colour)}"


def render_page(items: Sequence[PageItem], title: str) -> str:
    """A complete HTML document.

    Args:
        items: in order; hundreds stay fast, as only those in sight are laid out.
        title: of the page.

    Raises:
        FrameError: if boxes do not lie in the picture of their item.

    Example:
        >>> page = render_page([PageItem(None, [("user", GroundedText.of("Hello?"))])], "A page")
        >>> page.startswith("<!DOCTYPE html>")
        True
    """
    rendered = [_item(item, f' id="item-{k}"') for k, item in enumerate(items, start=1)]
    keys = sorted({key for _, found in rendered for key in found})
    flagged = sum(bool(item.problems) for item in items)
    return Template(_asset("page.html")).substitute(
        title=escape(title),
        css="\n".join((_asset("page.css"), _asset("site.css"), _hover_rules(keys))),
        handlers=_handlers(),
        count="1 item" if len(items) == 1 else f"{len(items):,} items",
        filter=_filter(len(items), flagged) if 0 < flagged < len(items) else "",
        items="\n".join(html for html, _ in rendered),
    )


def render_fragment(item: PageItem) -> str:
    """One `div` with its own style, to put into any page; see the module.

    Raises:
        FrameError: if boxes do not lie in the picture of the item.
    """
    html, keys = _item(item, "")
    style = _asset("page.css") + _hover_rules(sorted(keys))
    return f'<div class="pf" {_handlers()}><style>{style}</style>{html}</div>'


@cache
def _asset(name: str) -> str:
    return files("parfocal.data").joinpath("web", name).read_text("utf-8")


def _handlers() -> str:
    code = escape(" ".join(_asset("pin.js").split()))
    return f'onclick="{code}" onkeydown="{code}"'


def _hover_rules(keys: Sequence[str]) -> str:
    """Light up all of one key while any of it is pinned, hovered over or focused."""
    if not keys:
        return ""
    selectors = (
        f'.pf-item[data-pin="{key}"] .{key},'
        f".pf-item:not([data-pin]):has(.{key}:hover,.{key}:focus-visible) .{key}"
        for key in keys
    )
    lit = "{--pf-fade:1;--pf-fill:16%;--pf-tint:38%;--pf-words:inline;--pf-lift:3}"
    return ",\n".join(selectors) + lit


def _filter(num_items: int, num_flagged: int) -> str:
    choices = (("all", f"All {num_items:,}"), ("flagged", f"Flagged {num_flagged:,}"))
    labels = (
        f'<label><input type="radio" name="show" value="{value}"{checked}>{text}</label>'
        for (value, text), checked in zip(choices, (" checked", ""), strict=True)
    )
    return f'<form class="pf-choice" aria-label="Show">{"".join(labels)}</form>\n'


def _item(item: PageItem, attributes: str) -> tuple[str, set[str]]:
    """HTML of an item and the keys it uses."""
    panels = ([Panel(item.image)] if item.image is not None else []) + list(item.panels)
    marks = _marks(item.turns)
    regions = _region_marks(item.regions)
    figures = "".join(_figure(panel, item, regions) for panel in panels)
    figures = f'<div class="pf-figures">{figures}</div>' if figures else ""
    told = iter(marks)
    turns = "".join(_turn(role, text, told, regions) for role, text in item.turns)
    kinds = ["pf-item", "pf-many" if len(panels) > 1 else "pf-one"] + ["pf-flagged"] * bool(
        item.problems
    )
    html = (
        f'<article class="{" ".join(kinds)}"{attributes}><div class="pf-card">{figures}'
        f'<div class="pf-body">{_head(item)}{turns}{_notes(item)}{_foot(item)}</div></div>'
        "</article>"
    )
    return html, {mark.key for mark in [*marks, *regions] if mark is not None}


def _marks(turns: Turns) -> list[_Mark | None]:
    """A mark per phrase of all turns, None for phrases without boxes."""
    phrases = [phrase for _, text in turns for phrase in text.phrases]
    return [
        None
        if slot is None
        else _Mark(f"k{slot}", str(slot + 1), slot_colour(slot), span_caption(phrase))
        for phrase, slot in zip(phrases, colour_slots(phrases), strict=True)
    ]


def _region_marks(regions: Boxes | None) -> list[_Mark]:
    if regions is None:
        return []
    names = regions.labels or [""] * len(regions)
    return [
        _Mark(f"r{k}", f"R{k}", REGION_COLOUR, f"region {k} {name}".strip())
        for k, name in enumerate(names)
    ]


def _figure(panel: Panel, item: PageItem, regions: Sequence[_Mark]) -> str:
    turns = item.turns if panel.turns is None else panel.turns
    drawn: list[tuple[_Mark, Boxes]] = []
    region_boxes = item.regions if panel.regions is None else panel.regions
    if region_boxes is not None:
        drawn += zip(regions, region_boxes, strict=True)
    phrases = [phrase for _, text in turns for phrase in text.phrases]
    for phrase, mark in zip(phrases, _marks(turns), strict=True):
        if mark is not None:
            drawn += ((mark, box) for box in phrase.boxes)
    drawn = [(m, b) for m, b in drawn if panel.frame is None or b.frame.name == panel.frame]
    for _, box in drawn:
        check_picture(panel.image.size, box)
    width, height = panel.image.size
    said = f"Picture, {width} by {height} pixels, {len(drawn)} boxes"
    title = f"<figcaption>{escape(panel.title)}</figcaption>" if panel.title else ""
    return (
        f'<figure class="pf-figure">{title}<div class="pf-stage" style="--w:{width};--h:{height}">'
        f'<img loading="lazy" alt="{said}" src="{_data_uri(panel.image)}">'
        f"{_proposals(item.proposals, panel.image)}{_boxes(drawn, (width, height))}</div></figure>"
    )


def _boxes(drawn: Sequence[tuple[_Mark, Boxes]], size_wh: tuple[int, int]) -> str:
    """Boxes, large ones first so that small ones stay in reach, then their tags."""
    if not drawn:
        return ""
    xyxy = np.concatenate([box.xyxy for _, box in drawn])
    scale = _TAG_CANVAS / size_wh[0]
    sizes = np.tile(np.asarray(_TAG_WH), (len(drawn), 1))
    corners = place_labels(sizes, xyxy * scale, (_TAG_CANVAS, size_wh[1] * scale))
    html = []
    for row in np.argsort(-np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1), kind="stable"):
        mark, box = drawn[row]
        kind = " pf-region" if mark.key.startswith("r") else ""
        where = ", ".join(f"{value:.0f}" for value in xyxy[row])
        said = escape(f"{mark.words}{_score_text(box)}, pixels {where}")
        html.append(
            f'<div class="pf-box pf-key {mark.key}{kind}" data-key="{mark.key}" tabindex="-1" '
            f'role="button" aria-pressed="false" aria-label="{said}" title="{said}" '
            f'style="{_place(xyxy[row], size_wh)};{mark.style}"></div>'
        )
    for (mark, box), corner in zip(drawn, corners / scale, strict=True):
        if not np.isnan(corner[0]):
            html.append(_tag(mark, box, corner, size_wh))
    return "".join(html)


def _tag(mark: _Mark, box: Boxes, corner: np.ndarray, size_wh: tuple[int, int]) -> str:
    """The number on a box; it shows the words while lit, growing towards the middle."""
    left, top = 100 * corner[0] / size_wh[0], 100 * corner[1] / size_wh[1]
    far = 100 - left - 100 * _TAG_WH[0] / _TAG_CANVAS
    side = f"left:{left:.3f}%" if left <= 50 else f"right:{max(far, 0):.3f}%"
    score = "" if box.scores is None else f"<small>{box.scores[0]:.2f}</small>"
    return (
        f'<div class="pf-tag pf-key {mark.key}" data-key="{mark.key}" aria-hidden="true" '
        f'style="{side};top:{top:.3f}%;{mark.style}">{mark.number}'
        f'<span class="pf-words">{escape(mark.words)}{score}</span></div>'
    )


def _proposals(proposals: Boxes | None, image: Image.Image) -> str:
    if proposals is None:
        return ""
    check_picture(image.size, proposals)
    return "".join(
        f'<div class="pf-proposal" style="{_place(row, image.size)}"></div>'
        for row in proposals.xyxy
    )


def _place(xyxy: np.ndarray, size_wh: tuple[int, int]) -> str:
    """CSS place of a box cut at the edges of its picture."""
    x1, y1, x2, y2 = np.clip(xyxy / np.asarray([*size_wh, *size_wh]), 0, 1) * 100
    return f"left:{x1:.3f}%;top:{y1:.3f}%;width:{x2 - x1:.3f}%;height:{y2 - y1:.3f}%"


def _turn(
    role: str, text: GroundedText, marks: Iterator[_Mark | None], regions: Sequence[_Mark]
) -> str:
    spans = []
    for span in text.spans:
        words = escape(span_caption(span))
        if isinstance(span, Text):
            spans.append(words)
        elif isinstance(span, Nothing):
            spans.append(f'<span class="pf-none">{words}</span>')
        elif isinstance(span, Phrase):
            mark = next(marks)
            open_phrase = f'<span class="pf-open">{words}</span>'
            spans.append(open_phrase if mark is None else _chip(mark, words, span.boxes))
        elif isinstance(span, RegionRef) and span.index < len(regions):
            spans.append(_chip(regions[span.index], f"region {span.index}", None))
        else:
            spans.append(words)
    kind = "pf-turn pf-user" if role == "user" else "pf-turn"
    return (
        f'<div class="{kind}"><span class="pf-role">{escape(_ROLES.get(role, role))}</span>'
        f'<p class="pf-text" dir="auto">{"".join(spans)}</p></div>'
    )


def _chip(mark: _Mark, words: str, boxes: Boxes | None) -> str:
    scores = "" if boxes is None else _score_text(boxes)
    count = "" if boxes is None or len(boxes) == 1 else f", {len(boxes)} boxes"
    said = f"{escape(mark.words)}{count}{scores}"
    short = " pf-short" if len(words) <= _SHORT else ""
    small = ""
    if boxes is not None and boxes.scores is not None and len(boxes):
        more = f" +{len(boxes) - _MAX_SCORES}" if len(boxes) > _MAX_SCORES else ""
        shown = " ".join(f"{score:.2f}" for score in boxes.scores[:_MAX_SCORES])
        small = f'<span class="pf-score">{shown}{more}</span>'
    return (
        f'<span class="pf-phrase{short} pf-key {mark.key}" data-key="{mark.key}" tabindex="0" '
        f'role="button" aria-pressed="false" aria-label="{said}" style="{mark.style}">'
        f'<span class="pf-num">{mark.number}</span>&#8288;{words}{small}</span>'
    )


def _score_text(boxes: Boxes) -> str:
    if boxes.scores is None or not len(boxes):
        return ""
    return ", score " + ", ".join(f"{score:.2f}" for score in boxes.scores)


def _head(item: PageItem) -> str:
    if not item.title:
        return ""
    return f'<div class="pf-head"><span class="pf-name">{escape(item.title)}</span></div>'


def _notes(item: PageItem) -> str:
    notes = "".join(f'<p class="pf-note">{escape(note)}</p>' for note in item.notes)
    rows = "".join(
        f"<li><b>{escape(problem.kind.replace('_', ' '))}</b>{escape(problem.detail)}</li>"
        for problem in item.problems
    )
    return notes + (f'<ul class="pf-problems">{rows}</ul>' if rows else "")


def _foot(item: PageItem) -> str:
    parts = [f"<span>{escape(item.caption)}</span>"] if item.caption else []
    if item.proposals is not None and len(item.proposals):
        show = f"show {len(item.proposals)} proposals"
        parts.append(f'<label><input type="checkbox" class="pf-show">{show}</label>')
    return f'<div class="pf-foot">{"".join(parts)}</div>' if parts else ""


def _data_uri(image: Image.Image) -> str:
    picture = image.convert("RGB")
    side = max(picture.size)
    if side > SHOWN_SIDE:
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    if side <= LOSSLESS_SIDE:
        picture.save(data, "PNG")
    else:
        picture.save(data, "JPEG", quality=88, subsampling=0)
    kind = "png" if side <= LOSSLESS_SIDE else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
