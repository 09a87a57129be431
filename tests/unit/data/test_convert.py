"""Converting: options by words, one file that appears when it is complete, an account of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from parfocal.data.convert import build_reader, convert, describe_readers, reader_options
from parfocal.data.files import read_samples
from parfocal.data.readers import READERS, Reader
from parfocal.data.readers.coco import CocoReader
from parfocal.errors import ConfigError

FILE = Path(__file__).parents[2] / "fixtures" / "datasets" / "coco" / "instances_train2017.json"


@dataclass
class Picky(Reader):
    """Has an option of every type."""

    source: ClassVar[str] = "picky"
    licence: ClassVar[str] = "MIT"
    files: ClassVar[tuple[str, ...]] = ("a.json",)

    mode: Literal["soft", "hard"] = "soft"
    share: float = 1.0
    most: int | None = None
    ids: Path | None = None
    name: str = ""

    def samples(self):
        yield from ()


@pytest.fixture
def picky(monkeypatch):
    monkeypatch.setitem(READERS, "picky", Picky)
    return lambda *options: build_reader("picky", [FILE], options=options)


def test_options_are_typed(picky):
    reader = picky("mode=hard", "share=0.5", "most=3", "ids=a/b.txt", "name=a=b")
    assert (reader.mode, reader.share, reader.most) == ("hard", 0.5, 3)
    assert (reader.ids, reader.name) == (Path("a/b.txt"), "a=b")
    assert list(reader_options(Picky)) == ["mode", "share", "most", "ids", "name"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("mode=loud", "not one of soft, hard"),
        ("share=much", "not of type float"),
        ("most=1.5", "not of type int"),
        ("colour=red", "no option 'colour'; it has mode, share"),
        ("mode", "name=value"),
    ],
)
def test_wrong_options_are_explained(picky, option, message):
    with pytest.raises(ConfigError, match=message):
        picky(option)


def test_unknown_readers_list_the_known_ones():
    with pytest.raises(ConfigError, match="coco"):
        build_reader("cocoa", [FILE])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_is_written_is_what_was_read(tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    reader = build_reader("coco", [FILE], split="train", options=["crowds=true"])
    report = convert(reader, out)
    assert list(read_samples(out)) == list(CocoReader([FILE], split="train", crowds=True))
    assert (report.rows, report.boxes, report.turns) == (10, 10, 0)
    assert report.skipped == {"boxes without area inside their picture": 2}
    assert convert(reader, out, limit=2).rows == 2


def test_other_endings_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match=r"\.jsonl or \.parquet"):
        convert(build_reader("coco", [FILE]), tmp_path / "out.csv")


def test_every_reader_says_what_it_reads():
    cards = {card.name: card for card in describe_readers()}
    assert set(cards) == set(READERS)
    assert cards["coco"].files == ("instances_*.json",)
    assert cards["coco"].options == {"crowds": "False"}
    for name, card in cards.items():
        assert card.what, name
        assert card.licence, name
        assert READERS[name].source == name
