"""GRIT: float offsets, fractions of the picture's real size, one phrase in several rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parfocal.data.readers.grit import GritReader
from parfocal.errors import ConfigError, DataError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def shards(datasets, tmp_path) -> Path:
    """The folder of shards, from the rows of the fixture."""
    root = tmp_path / "shards"
    root.mkdir()
    for path in (datasets / "grit").glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        write_shard(root / f"{path.stem}.parquet", rows)
    return root


def write_shard(path: Path, rows: list[dict]) -> Path:
    numbers = pyarrow.list_(pyarrow.list_(pyarrow.float64()))
    kinds = {"noun_chunks": numbers, "ref_exps": numbers}
    columns = {name: pyarrow.array([r[name] for r in rows], kinds.get(name)) for name in rows[0]}
    parquet.write_table(pyarrow.table(columns), path, compression="snappy")
    return path


def one_row(**changes) -> dict:
    row = {"key": "000000000", "id": 1, "url": "", "caption": "a dog", "width": 100, "height": 50}
    return {**row, "noun_chunks": [], "ref_exps": [], **changes}


def phrases(sample):
    return [(phrase.text, phrase.boxes.to_json()) for phrase in sample.turns[0].text.phrases]


def test_every_row_with_its_boxes(shards, read_all):
    reader = GritReader([shards], split="train")
    samples = {sample.meta["image_key"]: sample for sample in read_all(reader)}
    # fractions times width and height, worked by hand
    expected = {
        "coyo:11": [("A red square", [[10, 15, 40, 45]]), ("a blue block", [[60, 7.5, 90, 54]])],
        "coyo:12": [
            ("a dog", [[20, 30, 100, 90]]),
            ("a man", [[80, 15, 180, 142.5], [10, 75, 60, 135]]),
        ],
        "coyo:13": [("a dog in a field of flowers", [[25, 25, 50, 75]])],
        "coyo:14": [("red", [[0, 0, 25, 25]]), ("dog house", [[50, 50, 100, 100]])],
        "coyo:15": [("ab cd", [[0, 0, 50, 50]])],
        "coyo:21": [("Caf\xe9", [[0, 30, 50, 60]])],  # clipped
        "coyo:23": [("short", [[50, 30, 75, 45]])],
        "coyo:24": [("a cup", [[10, 10, 30, 20]])],  # the line has no width
        "coyo:25": [("dog", [[0, 0, 100, 60]])],  # offsets count characters, not bytes
    }
    assert list(samples) == list(expected)  # shard 2 before shard 10
    for key, truth in expected.items():
        found = phrases(samples[key])
        assert [text for text, _ in found] == [text for text, _ in truth], key
        for (_, boxes), (_, rows) in zip(found, truth, strict=True):
            assert len(boxes) == len(rows), key
            for box, row in zip(boxes, rows, strict=True):
                assert box == pytest.approx(row, abs=1e-6), key
    assert samples["coyo:24"].turns[0].text.plain == "a thin line and a cup"
    assert samples["coyo:11"].meta["url"] == "https://example.invalid/11.jpg"
    man = samples["coyo:12"].turns[0].text.phrases[1]
    assert man.boxes.scores.tolist() == pytest.approx([0.88, 0.71])
    assert reader.skipped == {
        "rows without a caption": 1,
        "rows without a size": 1,
        "phrases that overlap a longer one": 3,
        "boxes of phrases outside their caption": 2,
        "boxes without area inside their picture": 1,
    }


def test_noun_chunks_on_request(shards):
    samples = {s.meta["image_key"]: s for s in GritReader([shards], phrases="noun_chunks")}
    assert [text for text, _ in phrases(samples["coyo:13"])] == ["a dog", "a field"]
    assert phrases(samples["coyo:25"]) == []
    with pytest.raises(ConfigError, match="ref_exps or noun_chunks"):
        GritReader([shards], phrases="words")


def test_fractions_are_of_the_size_the_picture_has_now(shards, make_pictures):
    pictures = make_pictures({
        "11.jpg": (50, 30),  # half of what the dataset states
        "coyo_2_snappy/12.jpg": (67, 50),  # a third, rounded
        "13.jpg": (100, 60),  # another shape: boxes would be wrong
        "00000/000000004.jpg": (100, 100),  # keys of the published rows name nothing
        "24.jpg": (160, 80),
    })  # fmt: skip
    reader = GritReader([shards], images=pictures)
    samples = {sample.meta["image_key"]: sample for sample in reader}
    assert list(samples) == ["coyo:11", "coyo:12", "coyo:24"]
    assert phrases(samples["coyo:11"])[0] == ("A red square", [[5, 7.5, 20, 22.5]])
    dog = phrases(samples["coyo:12"])[0][1][0]
    assert dog == pytest.approx([6.7, 10, 33.5, 30], abs=1e-6)
    assert phrases(samples["coyo:24"]) == [("a cup", [[20, 20, 60, 40]])]
    assert reader.skipped["pictures of another shape than the dataset states"] == 1
    assert reader.skipped["pictures that are not in the folder"] == 5


def test_files_of_img2dataset_name_their_pictures(tmp_path, make_pictures):
    rows = [one_row(key="000370002", id=5), one_row(key="000380000", id=6)]
    path = write_shard(tmp_path / "00037.parquet", rows)
    names = {"00037/000370002.jpg": (100, 50), "00037/000380000.jpg": (100, 50)}
    reader = GritReader([path], images=make_pictures(names))
    assert [sample.images[0].path for sample in reader] == ["00037/000370002.jpg"]
    assert reader.skipped == {"pictures that are not in the folder": 1}


def test_a_single_shard(shards):
    samples = list(GritReader([shards / "coyo_10_snappy.parquet"]))
    assert [sample.id for sample in samples] == [f"grit:{n}" for n in (21, 23, 24, 25)]


def test_numbers_that_are_none(tmp_path):
    nan = float("nan")
    row = one_row(ref_exps=[[0, 5, nan, 0, 1, 1, 0.9], [0, 5, 0, 0, 0.5, 0.5, nan]])
    reader = GritReader([write_shard(tmp_path / "a.parquet", [row])])
    (sample,) = reader
    (phrase,) = sample.turns[0].text.phrases
    assert phrase.boxes.to_json() == [[0, 0, 50, 25]]
    assert phrase.boxes.scores is None
    assert reader.skipped == {"boxes without area inside their picture": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (one_row(ref_exps=[[0, 5, 0, 0, 1]]), r"a\.parquet:1: a phrase is"),
        (one_row(ref_exps=[[0.5, 5, 0, 0, 1, 1, 0.9]]), "whole numbers"),
        (one_row(ref_exps=[[float("nan"), 5, 0, 0, 1, 1, 0.9]]), "whole numbers"),
        (one_row(ref_exps=[None]), "a phrase is None"),
        (one_row(id=None), "no `id`"),
    ],
)
def test_rows_of_another_form_are_refused(tmp_path, row, message):
    path = write_shard(tmp_path / "a.parquet", [row])
    with pytest.raises(DataError, match=message):
        list(GritReader([path]))


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no \*\.parquet"):
        GritReader([tmp_path])
    (tmp_path / "a.parquet").write_text("no table")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(GritReader([tmp_path]))
    parquet.write_table(pyarrow.table({"key": ["1"], "text": ["a dog"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"lacks the columns id, url.*it has key, text"):
        list(GritReader([tmp_path]))
