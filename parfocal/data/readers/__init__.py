"""Readers: one file a dataset, each a source of Samples. `READERS` is the whole list."""

from __future__ import annotations

from parfocal.data.readers.scenes import SceneReader

READERS = {"scenes": SceneReader}
