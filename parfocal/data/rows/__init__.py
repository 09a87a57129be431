"""Rows of files, read when they are asked for: what mixtures are mixed from."""

from __future__ import annotations

from parfocal.data.rows.base import IndexedRows, Joined, JsonRow, Likely, Raw, Rows, Scanned, Stamp
from parfocal.data.rows.hub import HubRows
from parfocal.data.rows.lines import LineRows
from parfocal.data.rows.parquet import ParquetRows
from parfocal.data.rows.tar import TarRows, TarStream

__all__ = [
    "HubRows",
    "IndexedRows",
    "Joined",
    "JsonRow",
    "Likely",
    "LineRows",
    "ParquetRows",
    "Raw",
    "Rows",
    "Scanned",
    "Stamp",
    "TarRows",
    "TarStream",
]
