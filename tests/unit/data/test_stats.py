"""Statistics of a data file: every number worked out by hand, and the picture of them."""

from __future__ import annotations

import numpy as np
import pytest

from parfocal.boxes import Boxes
from parfocal.data.charts import draw_stats
from parfocal.data.jsonl import write_jsonl
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.data.stats import DataStats, Histogram, stats_of
from parfocal.dialects.grounded import GroundedText, Nothing, Phrase, RegionRef
from parfocal.errors import DataError

IMAGE = ImageRef("a.png", 200, 100)


@pytest.fixture
def samples() -> list[Sample]:
    frame = IMAGE.frame()
    dogs = Phrase("two dogs", Boxes([[0, 0, 20, 10], [0, 0, 200, 100]], frame))
    talk = (
        Turn("user", GroundedText.of("Where are the dogs? ", RegionRef(0))),
        Turn("assistant", GroundedText.of(dogs, " in the Gr\u00fcn, ", Nothing("cat"))),
    )
    regions = Boxes([[50, 50, 100, 90]], frame, labels=["bowl"])
    whole = Sample("1", (IMAGE,), talk, regions, "pets", "train", "MIT")
    return [whole, Sample("2", (), (Turn("user", GroundedText.of("\u72d7\u5728\u54ea\u91cc?")),))]


def test_every_count(samples):
    stats = DataStats()
    for sample in samples:
        stats.add(sample)
    assert stats.rows == 2
    assert stats.totals == {
        "pictures": 1, "turns": 3, "regions": 1, "phrases": 1, "none": 1, "references": 1,
        "boxes": 3,
    }  # fmt: skip
    assert stats.sources == {"pets / train / MIT": 1, "not stated": 1}
    assert stats.sizes == {"small": 1, "medium": 1, "large": 1}
    assert stats.labels == {"bowl": 1, "two dogs": 1}
    assert stats.words["dogs"] == 2
    assert stats.words["gr\u00fcn"] == 1
    assert stats.scripts["cjk"] == 4
    assert stats.scripts.total() == 4 + stats.scripts["latin"]
    # sqrt(area / 20000) of 2000, 200 and 20000 square pixels
    assert stats.box_side.mean == pytest.approx((0.1**0.5 + 0.1 + 1) / 3)
    assert stats.box_aspect.mean == pytest.approx((50 / 40 + 2 + 2) / 3)
    assert stats.picture_aspect.mean == 2
    assert (stats.boxes_per_row.counts[3], stats.boxes_per_row.counts[0]) == (1, 1)


def test_histograms_keep_what_lies_outside():
    histogram = Histogram(np.array([0.0, 1.0, 2.0]))
    histogram.add([-5, 0.5, 1.0, 2.0, 99])
    assert histogram.counts.tolist() == [2, 3]
    assert histogram.mean == pytest.approx(97.5 / 5)
    assert Histogram(np.array([0.0, 1.0])).mean is None


def test_files_are_counted_and_bad_rows_named(samples, tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(samples, path)
    counted = stats_of(path).to_json()
    assert counted["rows"] == 2
    assert counted["labels"] == {"distinct": 2, "n": 2, "top": {"bowl": 1, "two dogs": 1}}
    assert dict(stats_of(path).summary())["sizes"] == "small 1, medium 1, large 1"
    path.write_text('{"id": 1}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1"):
        stats_of(path)


def test_the_picture_shows_the_counts_and_takes_nothing_at_all(samples):
    stats = DataStats()
    empty = draw_stats(stats, "nothing")
    for sample in samples:
        stats.add(sample)
    full = draw_stats(stats, "pets" * 200)
    assert full.size == empty.size == (1904, 918)
    blue = (np.asarray(full) == (0, 114, 178)).all(-1)
    assert blue.sum() > 1000
    assert not (np.asarray(empty) == (0, 114, 178)).all(-1).any()
    assert full.tobytes() == draw_stats(stats, "pets" * 200).tobytes()
