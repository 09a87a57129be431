"""Data: the Sample, its files on disk, the check of them, and readers of other datasets."""

from __future__ import annotations

from parfocal.data.jsonl import read_jsonl, write_jsonl
from parfocal.data.sample import ImageRef, Sample, Turn

__all__ = ["ImageRef", "Sample", "Turn", "read_jsonl", "write_jsonl"]
