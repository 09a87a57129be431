"""What every reader's test needs: its fixture, blank pictures, and a check of all Samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from parfocal.data.jsonl import read_jsonl, write_jsonl
from parfocal.data.readers import Reader
from parfocal.data.sample import Sample

FIXTURES = Path(__file__).parents[3] / "fixtures" / "datasets"
MakePictures = Callable[[Mapping[str, tuple[int, int]]], Path]
ReadAll = Callable[[Reader], list[Sample]]


@pytest.fixture
def datasets() -> Path:
    """Folder of the hand-made datasets, one folder each."""
    return FIXTURES


@pytest.fixture
def make_pictures(tmp_path: Path) -> MakePictures:
    """Write blank pictures, name -> (width, height), and return their folder."""

    def make(sizes: Mapping[str, tuple[int, int]]) -> Path:
        root = tmp_path / "pictures"
        for name, size_wh in sizes.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size_wh, "grey").save(root / name)
        return root

    return make


@pytest.fixture
def read_all(tmp_path: Path) -> ReadAll:
    """Read a dataset whole; its Samples must say where they are from and survive the disk."""

    def read(reader: Reader) -> list[Sample]:
        samples = list(reader)
        assert len(samples) >= 1
        assert len({sample.id for sample in samples}) == len(samples)
        for sample in samples:
            assert sample.source == reader.source
            assert sample.split == reader.split
            assert sample.licence == reader.licence
            assert not sample.images or sample.meta["image_key"]
        write_jsonl(samples, tmp_path / "read.jsonl")
        assert list(read_jsonl(tmp_path / "read.jsonl")) == samples
        assert list(reader) == samples  # reading again starts over
        return samples

    return read
