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

from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.drawing import check_picture, span_caption
from parfocal.data.marks import Mark, Turns, chip, phrase_marks, region_marks
from parfocal.data.overlay import overlay, place
from parfocal.dialects.base import Problem
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef, Text

SHOWN_SIDE = 1400  # pixels; longer pictures are embedded smaller, their boxes stay exact
LOSSLESS_SIDE = 320  # pixels; up to this size PNG costs little and keeps every pixel
# CSS pixels that a picture is shown at, at least, on screens that are not small: among others and
# alone. See `web/page.css` and `web/site.css`.
_AMONG_WH, _ALONE_WH = (400.0, 440.0), (600.0, 640.0)
_LARGEST_SCALE, _SMALLEST_WIDTH = 3.0, 300.0
_ROLES = {"user": "Question", "assistant": "Answer"}


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
        regions: the user's boxes, that RegionRef counts; a list shows their labels, if they have
            any.
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
    room = _AMONG_WH if len(items) > 1 else _ALONE_WH
    rendered = [_item(item, f' id="item-{k}"', room) for k, item in enumerate(items, start=1)]
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
    html, keys = _item(item, "", _ALONE_WH)
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
    lit = "{--pf-fade:1;--pf-fill:16%;--pf-tint:38%;--pf-words:block;--pf-lift:3;"
    lit += "--pf-room:var(--r)}"
    return ",\n".join(selectors) + lit


def _filter(num_items: int, num_flagged: int) -> str:
    choices = (("all", f"All {num_items:,}"), ("flagged", f"Flagged {num_flagged:,}"))
    labels = (
        f'<label><input type="radio" name="show" value="{value}"{checked}>{text}</label>'
        for (value, text), checked in zip(choices, (" checked", ""), strict=True)
    )
    return f'<form class="pf-choice" aria-label="Show">{"".join(labels)}</form>\n'


def _item(item: PageItem, attributes: str, room_wh: tuple[float, float]) -> tuple[str, set[str]]:
    """HTML of an item and the keys it uses."""
    panels = ([Panel(item.image)] if item.image is not None else []) + list(item.panels)
    marks, regions = phrase_marks(item.turns), region_marks(item.regions, item.turns)
    room_wh = room_wh if len(panels) < 2 else _AMONG_WH
    figures = "".join(_figure(panel, item, regions, room_wh) for panel in panels)
    figures = f'<div class="pf-figures">{figures}</div>' if figures else ""
    told = iter(marks)
    turns = "".join(_turn(role, text, told, regions) for role, text in item.turns)
    kinds = ["pf-item", "pf-many" if len(panels) > 1 else "pf-one"] + ["pf-flagged"] * bool(
        item.problems
    )
    html = (
        f'<article class="{" ".join(kinds)}"{attributes}><div class="pf-card">{figures}'
        f'<div class="pf-body">{_head(item)}{turns}{_region_list(item.regions, regions)}'
        f"{_notes(item)}{_foot(item)}</div></div></article>"
    )
    return html, {mark.key for mark in [*marks, *regions] if mark is not None}


def _figure(
    panel: Panel, item: PageItem, regions: Sequence[Mark], room_wh: tuple[float, float]
) -> str:
    turns = item.turns if panel.turns is None else panel.turns
    drawn: list[tuple[Mark, Boxes]] = []
    region_boxes = item.regions if panel.regions is None else panel.regions
    if region_boxes is not None:
        drawn += zip(regions, region_boxes, strict=True)
    phrases = [phrase for _, text in turns for phrase in text.phrases]
    for phrase, mark in zip(phrases, phrase_marks(turns), strict=True):
        if mark is not None:
            drawn += ((mark, box) for box in phrase.boxes)
    drawn = [(m, b) for m, b in drawn if panel.frame is None or b.frame.name == panel.frame]
    for _, box in drawn:
        check_picture(panel.image.size, box)
    width, height = panel.image.size
    said = f"Picture, {width} by {height} pixels, {len(drawn)} boxes"
    shown = min(
        room_wh[0], room_wh[1] * width / height, max(_LARGEST_SCALE * width, _SMALLEST_WIDTH)
    )
    boxes = overlay(drawn, (width, height), (shown, shown * height / width))
    title = f"<figcaption>{escape(panel.title)}</figcaption>" if panel.title else ""
    return (
        f'<figure class="pf-figure">{title}<div class="pf-stage" style="--w:{width};--h:{height}">'
        f'<img loading="lazy" alt="{said}" src="{_data_uri(panel.image)}">'
        f"{_proposals(item.proposals, panel.image)}{boxes}</div></figure>"
    )


def _proposals(proposals: Boxes | None, image: Image.Image) -> str:
    if proposals is None:
        return ""
    check_picture(image.size, proposals)
    return "".join(
        f'<div class="pf-proposal" style="{place(row, image.size)}"></div>'
        for row in proposals.xyxy
    )


def _turn(
    role: str, text: GroundedText, marks: Iterator[Mark | None], regions: Sequence[Mark]
) -> str:
    spans = []
    for span in text.spans:
        words = span_caption(span)
        if isinstance(span, Text):
            spans.append(escape(words))
        elif isinstance(span, Nothing):
            spans.append(f'<span class="pf-none">{escape(words)}</span>')
        elif isinstance(span, Phrase):
            mark = next(marks)
            open_phrase = f'<span class="pf-open">{escape(words)}</span>'
            spans.append(open_phrase if mark is None else chip(mark, words, span.boxes))
        elif isinstance(span, RegionRef) and span.index < len(regions):
            spans.append(chip(regions[span.index], f"region {span.index}", None))
        else:
            spans.append(escape(words))
    kind = "pf-turn pf-user" if role == "user" else "pf-turn"
    return (
        f'<div class="{kind}"><span class="pf-role">{escape(_ROLES.get(role, role))}</span>'
        f'<p class="pf-text" dir="auto">{"".join(spans)}</p></div>'
    )


def _region_list(regions: Boxes | None, marks: Sequence[Mark]) -> str:
    """The labels of regions, each tied to its box; nothing where no region has one."""
    if regions is None or not any(mark.named for mark in marks):
        return ""
    entries = "".join(
        f'<li dir="auto">{chip(mark, mark.words, box)}</li>'
        for mark, box in zip(marks, regions, strict=True)
    )
    count = "1 region" if len(marks) == 1 else f"{len(marks):,} regions"
    return (
        f'<div class="pf-turn"><span class="pf-role">{count}</span>'
        f'<ul class="pf-regions" tabindex="-1">{entries}</ul></div>'
    )


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
