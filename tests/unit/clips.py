"""Small videos for tests, written with PyAV; importing this skips a test where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="videos need PyAV, the extra 'video'")

STEP = 20  # of brightness from frame to frame


def write_clip(
    path: Path,
    frames: int = 9,
    size: tuple[int, int] = (96, 64),
    codec: str = "mpeg4",
    options: Mapping[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Write frames that get brighter by `STEP`, with a red block in the top left corner."""
    width, height = size
    with av.open(str(path), "w", format=container, options=dict(options or {})) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 4
        file.start_encoding()
        for index in range(frames):
            pixels = np.full((height, width, 3), STEP * index % 240, np.uint8)
            pixels[:16, :16] = (255, 0, 0)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        if frames:
            file.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write one second of silence."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        stream.layout = "mono"
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate, silence.pts = 16000, 0
        file.mux(stream.encode(silence))
        file.mux(stream.encode())
    return path
