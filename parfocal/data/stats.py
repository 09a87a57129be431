"""What is in a data file: counts, sizes and shapes of boxes, words, writing systems.

One pass, a few megabytes whatever the file's size: distributions are histograms with fixed bins.

Shapes: N boxes, xyxy in pixels of their picture.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parfocal.boxes import Boxes
from parfocal.data.files import read_samples
from parfocal.data.sample import Sample
from parfocal.dialects.grounded import Nothing, ObjectRef, Phrase, RegionRef

COCO_EDGES = (32.0**2, 96.0**2)  # Source: pycocotools, areaRng; square pixels
MAX_WORDS = 200_000  # distinct words that are counted; beyond that only their number goes on
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


@dataclass
class Histogram:
    """Counts between edges; what is outside falls into the first or last bin.

    Attributes:
        edges: ascending, one more than bins.
        counts: int64, one a bin.
        total: of the values.
        n: how many values.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64] = field(init=False)
    total: float = 0.0
    n: int = 0

    def __post_init__(self) -> None:
        """Start empty."""
        self.counts = np.zeros(len(self.edges) - 1, dtype=np.int64)

    def add(self, values: Sequence[float] | NDArray[np.float64]) -> None:
        """Count values."""
        found = np.asarray(values, dtype=np.float64)
        if len(found):
            inside = np.clip(found, self.edges[0], np.nextafter(self.edges[-1], 0))
            self.counts += np.histogram(inside, self.edges)[0]
            self.total += float(found.sum())
            self.n += len(found)

    @property
    def mean(self) -> float | None:
        """Mean of the values, None if there are none."""
        return self.total / self.n if self.n else None

    def to_json(self) -> dict[str, Any]:
        """Edges, counts, n and mean."""
        return {
            "edges": [round(float(edge), 6) for edge in self.edges],
            "counts": self.counts.tolist(), "n": self.n, "mean": self.mean,
        }  # fmt: skip


def _log_edges(low: float, high: float, bins: int) -> NDArray[np.float64]:
    return np.geomspace(low, high, bins + 1)


@dataclass
class DataStats:
    """Everything `parfocal data stats` says about a file.

    Attributes:
        rows: Samples.
        totals: pictures, turns, regions, phrases, boxes, answers of "there is none", and references
            to regions and objects.
        sources: rows by source, split and licence, joined by " / ".
        sizes: boxes by COCO's small, medium and large.
        box_side: square root of a box's area over that of its picture.
        box_aspect: width over height of boxes.
        picture_aspect: width over height of pictures.
        boxes_per_row: boxes of a row.
        words_per_turn: words of a turn.
        labels: of regions and phrases.
        words: of turns.
        scripts: letters by writing system: a file does not say its languages.
    """

    rows: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    box_side: Histogram = field(default_factory=lambda: Histogram(np.linspace(0, 1, 21)))
    box_aspect: Histogram = field(default_factory=lambda: Histogram(_log_edges(1 / 8, 8, 24)))
    picture_aspect: Histogram = field(default_factory=lambda: Histogram(_log_edges(1 / 4, 4, 16)))
    boxes_per_row: Histogram = field(
        default_factory=lambda: Histogram(np.arange(-0.5, 31.5, dtype=np.float64))
    )
    words_per_turn: Histogram = field(
        default_factory=lambda: Histogram(np.arange(-0.5, 61.5, 2, dtype=np.float64))
    )
    labels: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)

    def add(self, sample: Sample) -> None:
        """Count one Sample."""
        self.rows += 1
        parts = (sample.source, sample.split, sample.licence)
        self.sources[" / ".join(filter(None, parts)) or "not stated"] += 1
        self.totals.update(pictures=len(sample.images), turns=len(sample.turns))
        self.totals["regions"] += len(sample.regions)
        self.picture_aspect.add([image.width / image.height for image in sample.images])
        placed = [sample.regions] if len(sample.regions) else []
        _count(self.labels, sample.regions.labels or ())
        for turn in sample.turns:
            placed += [phrase.boxes for phrase in turn.text.phrases if len(phrase.boxes)]
            self._add_spans(turn.text.spans)
            self._add_words(turn.text.plain)
        self.boxes_per_row.add([float(sum(map(len, placed)))])
        for boxes in placed:
            self._add_boxes(boxes)

    def _add_spans(self, spans: Iterable[object]) -> None:
        for span in spans:
            if isinstance(span, Phrase):
                self.totals["phrases"] += 1
                _count(self.labels, [span.text] if span.text else [])
            elif isinstance(span, Nothing):
                self.totals["none"] += 1
            elif isinstance(span, RegionRef | ObjectRef):
                self.totals["references"] += 1

    def _add_words(self, text: str) -> None:
        words = [word.lower() for word in _WORD.findall(text)]
        self.words_per_turn.add([float(len(words))])
        _count(self.words, words)
        self.scripts.update(filter(None, map(_script, text)))

    def _add_boxes(self, boxes: Boxes) -> None:
        self.totals["boxes"] += len(boxes)
        area, frame = boxes.area, boxes.frame
        small, large = COCO_EDGES
        self.sizes.update(
            small=int((area < small).sum()),
            medium=int(((area >= small) & (area < large)).sum()),
            large=int((area >= large).sum()),
        )
        self.box_side.add(np.sqrt(area / (frame.width * frame.height)))
        tall = boxes.cxcywh[:, 3]
        self.box_aspect.add(boxes.cxcywh[tall > 0, 2] / tall[tall > 0])

    def to_json(self, top: int = 20) -> dict[str, Any]:
        """Return all of it; of labels and words the `top` most frequent and how many there are."""
        counted: dict[str, Any] = {"rows": self.rows}
        for name in ("totals", "sources", "sizes", "scripts"):
            counted[name] = dict(getattr(self, name).most_common())
        for name in ("labels", "words"):
            found: Counter[str] = getattr(self, name)
            counted[name] = {
                "distinct": len(found), "n": found.total(), "top": dict(found.most_common(top))
            }  # fmt: skip
        for name in ("box_side", "box_aspect", "picture_aspect", "boxes_per_row", "words_per_turn"):
            counted[name] = getattr(self, name).to_json()
        return counted

    def summary(self, top: int = 8) -> list[tuple[str, str]]:
        """Return what a terminal shows: a name and a line of figures each."""
        lines = [("rows", f"{self.rows:,}")]
        for name in ("sources", "totals", "sizes", "labels", "words", "scripts"):
            found: Counter[str] = getattr(self, name)
            if found:
                shown = ", ".join(f"{key} {count:,}" for key, count in found.most_common(top))
                more = f" ... {len(found):,} different" if len(found) > top else ""
                lines.append((name, shown + more))
        for name in ("box_side", "box_aspect", "picture_aspect", "boxes_per_row", "words_per_turn"):
            mean = getattr(self, name).mean
            if mean is not None:
                lines.append((name, f"mean {mean:.3g}"))
        return lines


def stats_of(file: str | Path) -> DataStats:
    """Count what a JSONL or Parquet file holds.

    Raises:
        DataError: at the first bad row; `parfocal data check` lists them all.
    """
    stats = DataStats()
    for sample in read_samples(file):
        stats.add(sample)
    return stats


def _count(counter: Counter[str], keys: Iterable[str]) -> None:
    """Count keys; new ones only while there is room."""
    for key in keys:
        if key in counter or len(counter) < MAX_WORDS:
            counter[key] += 1


def _script(letter: str) -> str | None:
    """The writing system of a letter by its Unicode name: "latin", "cjk", "cyrillic", ..."""
    if letter.isascii():
        return "latin" if letter.isalpha() else None
    if not letter.isalpha():
        return None
    return unicodedata.name(letter, "unknown").split()[0].lower()
