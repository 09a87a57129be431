"""A page that shows what a data file says: every sample's boxes on its picture, beside its turns.

It is also the doctor for wrong box conventions. Where the boxes of a picture only make sense as x,
y, width, height, as fractions or as thousandths, both readings are drawn side by side, so that a
person can see which is right. Rows that break a rule are drawn as far as they can be, and rows
that cannot be read are listed with what is wrong with them; none is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.data.check import Issue, check_file, guess_convention
from parfocal.data.jsonl import parse_line, read_lines
from parfocal.data.marks import Turns
from parfocal.data.outputs import atomic_file
from parfocal.data.page import PageItem, Panel, render_page
from parfocal.data.parquet import read_rows
from parfocal.data.sample import ImageRef, Sample
from parfocal.data.schema import placed_boxes, structure_findings
from parfocal.dialects.base import Problem
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError, DataError, ParfocalError

DEFAULT_LIMIT = 200  # rows; a page of so many pictures is about 30 MB
MAX_PROBLEMS = 6  # that a row shows
Reading = Callable[[list[list[float]], Frame], Boxes]


@dataclass(frozen=True)
class PreviewReport:
    """What `preview_file` drew.

    Attributes:
        rows: rows in the file.
        shown: rows on the page.
        flagged: rows in the file with at least one issue, and rows on the page whose picture cannot
            be read (pictures of rows that are not shown are not opened).
    """

    rows: int
    shown: int
    flagged: int


def preview_file(
    path: str | Path,
    out: str | Path,
    images_root: str | Path | None = None,
    limit: int = DEFAULT_LIMIT,
) -> PreviewReport:
    """Draw the samples of a data file on one self-contained HTML page.

    Args:
        path: JSON Lines, Parquet, or a folder of Parquet shards.
        out: the page to write, .html; replaced only once it is complete.
        images_root: the folder that image paths are relative to; the data file's own if None.
        limit: how many rows to draw from the start of the file. As many later rows are added if
            something is wrong with them.

    Raises:
        DataError: if the file cannot be read at all, or the page cannot be written.
        ConfigError: if the name of the page ends otherwise.
    """
    if limit < 1:
        raise DataError(f"limit is {limit}, must be 1 or more: the number of rows to draw.")
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{out} must end in .html: it is the page to write.")
    source = Path(path)
    with atomic_file(out) as file_out:
        report, page = _page(source, images_root, limit)
        file_out.write(page.encode(errors="replace"))  # rows may hold halves of letters
    return report


def _page(source: Path, images_root: str | Path | None, limit: int) -> tuple[PreviewReport, str]:
    root = Path(images_root) if images_root else source if source.is_dir() else source.parent
    report = check_file(source, root, open_images=False)
    issues: dict[tuple[str, int], list[Issue]] = defaultdict(list)
    for issue in report.issues:
        issues[issue.file, issue.line].append(issue)
    items: list[PageItem] = []
    num_late = num_unseen = 0
    for number, (file, line, row) in enumerate(_rows(source)):
        found = issues.get((file, line), [])
        if number >= limit:
            if not found or num_late >= limit:
                continue
            num_late += 1
        items.append(_row_item(row, f"{Path(file).name}:{line}", found, root))
        num_unseen += bool(items[-1].problems) and not found
    part = "" if len(items) == report.rows else f" ({len(items):,} of {report.rows:,} rows)"
    page = render_page(items, source.name + part)
    return PreviewReport(report.rows, len(items), report.bad_rows + num_unseen), page


def sample_item(sample: Sample, root: str | Path | None = None) -> PageItem:
    """How one good Sample is shown; the second and later pictures stand beside the first.

    Args:
        sample: any Sample.
        root: the images folder.

    Raises:
        ImageError: if a picture cannot be read.
        DataError: if a picture has another size than the sample says.
    """
    pictures = sample.open_images(root)
    turns = [(turn.role, turn.text) for turn in sample.turns]
    panels = [
        Panel(picture, f"image {k}" if len(pictures) > 1 else "", frame.name)
        for k, (picture, frame) in enumerate(zip(pictures, sample.frames, strict=True))
    ]
    caption = "  |  ".join(filter(None, (sample.source, sample.split, sample.licence)))
    return PageItem(None, turns, sample.regions, sample.id, caption, panels=panels)


def _rows(source: Path) -> Iterator[tuple[str, int, Any]]:
    """(file, line from 1, row or None if the line is not JSON), numbered as `check_file` does."""
    if source.is_dir() or source.suffix.lower() == ".parquet":
        for where, row in read_rows(source):
            file, _, number = where.rpartition(":")
            yield file, int(number), row
        return
    for line, content in read_lines(source):
        try:
            yield str(source), line, parse_line(content)
        except ValueError:
            yield str(source), line, None


def _row_item(row: Any, where: str, issues: Sequence[Issue], root: Path) -> PageItem:
    problems = _most_telling(issues)
    if row is None or any(structure_findings(row)):
        return PageItem(None, title=where, problems=problems)
    try:
        item = _item(row, where, problems, root)
    except ParfocalError as err:
        refused = Problem("unreadable", str(err))
        return PageItem(None, title=_title(row, where), problems=[*problems, refused])
    caption = "  |  ".join(filter(None, (where, item.caption)))
    return replace(item, title=_title(row, where), caption=caption)


def _most_telling(issues: Sequence[Issue]) -> list[Problem]:
    """At most `MAX_PROBLEMS`, suspicions about the convention first as they explain the rest."""
    ranked = sorted(issues, key=lambda issue: issue.kind not in _READINGS)
    problems = [Problem(issue.kind, issue.detail) for issue in ranked[:MAX_PROBLEMS]]
    if len(ranked) > MAX_PROBLEMS:
        rest = f"{len(ranked) - MAX_PROBLEMS}; `parfocal data check FILE` lists them"
        problems.append(Problem("more", rest))
    return problems


def _item(row: Mapping[str, Any], where: str, problems: list[Problem], root: Path) -> PageItem:
    if not problems:
        try:
            return sample_item(Sample.from_json(row, where), root)
        except ParfocalError as err:
            problems.append(Problem("no_picture", str(err)))
    return _doubtful_item(row, problems, root)


def _title(row: Any, where: str) -> str:
    return row["id"] if isinstance(row["id"], str) and row["id"] else where


def _doubtful_item(row: Mapping[str, Any], problems: list[Problem], root: Path) -> PageItem:
    """A row of sound structure that breaks rules, drawn as it is written and as it may be meant."""
    frames = [
        Frame(f"image{k}" if k else "image", image["width"], image["height"])
        for k, image in enumerate(row["images"])
    ]
    turns, regions = _read(row, frames, {})
    guesses = dict(_guesses(row, frames))
    meant = {k: _READINGS[kind][1] for k, kind in guesses.items()}
    panels: list[Panel] = []
    for k, frame in enumerate(frames):
        picture = _open(row["images"][k], root, problems)
        if picture is None:
            continue
        name = f"image {k}, " if len(frames) > 1 else ""
        title = f"{name}as written" if k in guesses else name.rstrip(", ")
        panels.append(Panel(picture, title, frame.name, turns, regions))
        if k in guesses:
            title = f"{name}read as {_READINGS[guesses[k]][0]}"
            panels.append(Panel(picture, title, frame.name, *_read(row, frames, meant)))
    notes = [_ADVICE] if guesses and panels else []
    caption = "  |  ".join(filter(None, (row.get(k, "") for k in ("source", "split", "licence"))))
    return PageItem(None, turns, regions, "", caption, notes, problems, panels=panels)


_ADVICE = (
    "Which of the two pictures is right? If the second, convert the boxes of the file to x1, y1, "
    "x2, y2 in pixels before training on it."
)


def _guesses(row: Mapping[str, Any], frames: Sequence[Frame]) -> Iterator[tuple[int, str]]:
    """(picture, kind of suspicion) for each picture whose boxes look like another convention."""
    together: dict[int, list[list[float]]] = defaultdict(list)
    for at, index, boxes in placed_boxes(row):
        if index < len(frames) and not at.endswith(".crop"):
            together[index].extend(boxes)
    for index, rows in together.items():
        guess = guess_convention(rows, (frames[index].width, frames[index].height))
        if guess is not None:
            yield index, guess[0]


def _read(
    row: Mapping[str, Any], frames: Sequence[Frame], readings: Mapping[int, Reading]
) -> tuple[Turns, Boxes | None]:
    """Turns and regions of a row, the boxes of picture k as `readings[k]` or as written."""

    def boxes(rows: list[list[float]], index: int) -> list[list[float]]:
        if not rows or index >= len(frames):
            return []
        return readings.get(index, _as_written)(rows, frames[index]).to_json()

    turns: list[tuple[str, GroundedText]] = []
    for turn in row["turns"]:
        spans = [
            {**span, "boxes": boxes(span["boxes"], span.get("image", 0))}
            if span["type"] == "phrase"
            else span
            for span in turn["spans"]
        ]
        turns.append((turn["role"], GroundedText.from_json(spans, frames)))
    regions = boxes(row.get("regions", []), 0)
    labels = row.get("region_labels")
    named = labels if labels is not None and len(labels) == len(regions) else None
    return turns, Boxes(regions, frames[0], labels=named) if regions else None


def _as_written(rows: list[list[float]], frame: Frame) -> Boxes:
    """The rectangle between the two corners, whichever way round they are."""
    corners = np.asarray(rows, dtype=np.float64)
    low = np.minimum(corners[:, :2], corners[:, 2:])
    high = np.maximum(corners[:, :2], corners[:, 2:])
    return Boxes(np.hstack([low, high]), frame)


_READINGS: dict[str, tuple[str, Reading]] = {
    "looks_like_xywh": ("x, y, width, height", Boxes.from_xywh),
    "looks_like_unit": ("fractions of the picture, 0 to 1", Boxes.from_unit),
    "looks_like_thousand": ("thousandths of the picture, 0 to 1000", Boxes.from_bins),
}


def _open(image: Mapping[str, Any], root: Path, problems: list[Problem]) -> Image.Image | None:
    """The picture of a doubtful row, or None and one more problem."""
    try:
        frame = image.get("video_frame")
        size_wh = (image["width"], image["height"])
        return ImageRef(image["path"], *size_wh, video_frame=frame).open(root)
    except ParfocalError as err:
        if Problem("no_picture", str(err)) not in problems:
            problems.append(Problem("no_picture", str(err)))
        return None
