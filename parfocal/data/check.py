"""Find everything that is wrong in a data file, each thing by file and line.

It never stops at the first. Beside broken rows it looks for boxes in another convention: x, y,
width, height; fractions of the picture; thousandths of the picture. Such boxes can pass for pixels
one at a time, so all boxes of a row that are in one picture are read together, and the suspicion is
reported beside any rule they break.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.jsonl import describe_line_error, parse_line, read_lines
from parfocal.data.parquet import read_rows
from parfocal.data.sample import Sample
from parfocal.data.schema import (
    EDGE_SLACK,
    Finding,
    placed_boxes,
    rule_findings,
    structure_findings,
)
from parfocal.errors import DataError, ImageError
from parfocal.images import load_image
from parfocal.video import VideoShape, video_shape

UNIT_MIN_SIDE = 32  # pixels; in a smaller picture a box of one pixel can be real
THOUSAND_MIN_EXCESS = 1.02  # a box that ends closer to the edge is a slip, not another convention


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong.

    Attributes:
        file: the data file.
        line: its line (Parquet: its row), from 1.
        kind: a short name to count by.
        detail: where in the row, the value, and what is allowed.
        sample_id: the row's id, or None where it has none.
    """

    file: str
    line: int
    kind: str
    detail: str
    sample_id: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.detail}"


@dataclass(frozen=True)
class CheckReport:
    """What `check_file` found.

    Attributes:
        rows: how many rows the file has, good and bad.
        issues: every problem, in the order of the file.
    """

    rows: int
    issues: list[Issue]

    @property
    def ok(self) -> bool:
        """True if nothing was found."""
        return not self.issues

    @property
    def bad_rows(self) -> int:
        """How many rows have at least one issue."""
        return len({(issue.file, issue.line) for issue in self.issues})

    @property
    def counts(self) -> dict[str, int]:
        """Issues a kind, most frequent first."""
        return dict(Counter(issue.kind for issue in self.issues).most_common())

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "schema": "parfocal.check/1",
            "rows": self.rows,
            "bad_rows": self.bad_rows,
            "counts": self.counts,
            "issues": [asdict(issue) for issue in self.issues],
        }


def check_file(
    path: str | Path, images_root: str | Path | None = None, open_images: bool = True
) -> CheckReport:
    """Check every row of a JSON Lines or Parquet file (or folder of Parquet shards).

    Args:
        path: the data file.
        images_root: the folder that image paths are relative to; the data file's own folder if
            None.
        open_images: whether to decode the pictures; without it, missing and mismatched ones are not
            found.

    Raises:
        DataError: only if the file itself cannot be read, or images_root is no folder.
    """
    source = Path(path)
    if images_root and not Path(images_root).is_dir():
        raise DataError(f"{images_root} is not a folder. Give the folder of the pictures.")
    default_root = source if source.is_dir() else source.parent
    pictures = _Pictures(Path(images_root) if images_root else default_root)
    first_line: dict[str, str] = {}
    issues: list[Issue] = []
    rows = 0
    for file, line, row, findings in _read(source):
        rows += 1
        sample_id = row.get("id") if isinstance(row, dict) else None
        name = sample_id if isinstance(sample_id, str) else None
        found = findings or list(_row_findings(row, pictures if open_images else None))
        if not findings and name is not None:
            found.extend(_duplicate_findings(name, f"{file}:{line}", first_line))
        issues.extend(Issue(file, line, finding.kind, str(finding), name) for finding in found)
    return CheckReport(rows, issues)


def _read(path: Path) -> Iterator[tuple[str, int, Any, list[Finding]]]:
    """(file, line, row or None, what kept the row from being read) of every row."""
    if path.is_dir() or path.suffix.lower() == ".parquet":
        for where, row in read_rows(path):
            file, _, number = where.rpartition(":")
            yield file, int(number), row, []
        return
    for line, content in read_lines(path):
        try:
            yield str(path), line, parse_line(content), []
        except ValueError as err:
            kind, detail = describe_line_error(err)
            yield str(path), line, None, [Finding(kind, "", detail)]


def _row_findings(row: Any, pictures: _Pictures | None) -> Iterator[Finding]:
    findings = list(structure_findings(row))
    if not findings:
        findings = [*rule_findings(row), *_convention_findings(row)]
        findings.extend(pictures.findings(row["images"]) if pictures else [])
        if not findings:
            findings = _last_findings(row)
    yield from findings


def _last_findings(row: Mapping[str, Any]) -> list[Finding]:
    """Whatever reading the row as a Sample still refuses."""
    try:
        Sample.from_json(row)
    except DataError as err:
        return [Finding("invalid", "", str(err))]
    return []


def _duplicate_findings(name: str, where: str, first: dict[str, str]) -> Iterator[Finding]:
    if name in first:
        yield Finding("duplicate_id", "id", f"{name!r} is also the id of {first[name]}")
    first.setdefault(name, where)


def _convention_findings(row: Mapping[str, Any]) -> Iterator[Finding]:
    """Suspicions that all boxes of one picture are in another convention than xyxy pixels."""
    together: dict[int, list[list[float]]] = {}
    for at, image_index, boxes in placed_boxes(row):
        if image_index < len(row["images"]) and not at.endswith(".crop"):
            together.setdefault(image_index, []).extend(boxes)
    for image_index, rows in together.items():
        image = row["images"][image_index]
        guess = guess_convention(rows, (image["width"], image["height"]))
        if guess is not None:
            kind, advice = guess
            detail = f"the {len(rows)} boxes in it only make sense as {advice}"
            yield Finding(kind, f"images[{image_index}]", detail)


def guess_convention(
    boxes: Sequence[Sequence[float]], size_wh: tuple[float, float]
) -> tuple[str, str] | None:
    """Whether boxes that should be xyxy pixels of one picture look like another convention.

    Args:
        boxes: float[N, 4], as they stand in the file.
        size_wh: width and height of the picture, pixels.

    Returns:
        (kind, what to do), kind one of looks_like_unit, looks_like_xywh, looks_like_thousand; None
        if nothing speaks for another convention.

    Example:
        >>> guess_convention([[0.1, 0.2, 0.5, 0.9]], (640, 480))[0]
        'looks_like_unit'
    """
    values = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if len(values) == 0 or values.min() < -EDGE_SLACK:
        return None
    low, high = values[:, :2], values[:, 2:]
    size = np.asarray(size_wh, dtype=np.float64)
    if values.max() <= 1 and values.max() > 0 and size.min() >= UNIT_MIN_SIDE:
        return "looks_like_unit", "fractions of the picture: convert with Boxes.from_unit"
    inside = bool(np.all(low + high <= size + EDGE_SLACK))
    if np.any(high < low) and np.all(high > 0) and inside:
        return "looks_like_xywh", "x, y, width, height: convert with Boxes.from_xywh"
    ordered = bool(np.all(low <= high))
    if ordered and np.any(high > size * THOUSAND_MIN_EXCESS) and values.max() <= 1000:
        return "looks_like_thousand", "thousandths of the picture: convert with Boxes.from_bins"
    return None


class _Pictures:
    """Decodes each picture and video once and remembers its size or what is wrong with it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[tuple[str, bool], VideoShape | Finding] = {}

    def findings(self, images: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
        """Missing, unreadable and mismatched pictures of a row."""
        for index, image in enumerate(images):
            at, path = f"images[{index}]", image["path"]
            if path is None:
                if "parent" not in image:
                    detail = "there is no path, and no parent to cut the picture from"
                    yield Finding("missing_image", at, detail)
                continue
            number = image.get("video_frame", 0)
            found = self._look(path, "video_frame" in image)
            declared = (image["width"], image["height"])
            if isinstance(found, Finding):
                yield Finding(found.kind, at, found.detail)
            elif (found.width, found.height) != declared:
                sizes = f"{found.width}x{found.height}, the row says {declared[0]}x{declared[1]}"
                detail = f"{path!r} is {sizes} (size after EXIF orientation wanted)"
                yield Finding("wrong_size", at, detail)
            elif number >= found.frames:
                detail = f"{path!r} has {found.frames} frames, there is no frame {number} (from 0)"
                yield Finding("missing_image", at, detail)

    def _look(self, path: str, is_video: bool) -> VideoShape | Finding:
        key = (path, is_video)
        if key not in self._known:
            file = self._root / path
            try:
                self._known[key] = _shape(file, is_video) if file.is_file() else _missing(file)
            except (ImageError, OSError, ValueError) as err:  # a path that no file can have
                self._known[key] = Finding("unreadable_image", "", str(err))
        return self._known[key]


def _shape(file: Path, is_video: bool) -> VideoShape:
    """The size of a picture, as of a video of one frame, or of a video."""
    return video_shape(file) if is_video else VideoShape(1, *load_image(file).size)


def _missing(file: Path) -> Finding:
    detail = f"{str(file)!r} does not exist; say with images_root (--images) where pictures are"
    return Finding("missing_image", "", detail)
