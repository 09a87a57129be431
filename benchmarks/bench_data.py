"""Rows a second of every reader, and peak memory on a COCO-style file of a million annotations.

    python benchmarks/bench_data.py [--rows 1000000] [--out benchmarks/results/data.md]

Each reader runs on its hand-made dataset of tests/fixtures/datasets, read again and again, so
figures are of parsing alone. The large file is generated, read in a process of its own, and its
peak memory is the kernel's (ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ANNOTATIONS_PER_PICTURE = 8
LIMIT_GIB = 1.0


def write_coco(path: Path, annotations: int) -> None:
    """Write a COCO-style file with pictures, boxes and polygons of eight corners."""
    rng = random.Random(0)
    pictures = max(1, annotations // ANNOTATIONS_PER_PICTURE)
    with path.open("w") as file:
        file.write('{"info": {}, "images": [')
        for index in range(pictures):
            row = {
                "id": index, "file_name": f"{index:012d}.jpg", "width": 640, "height": 480,
                "license": 1, "coco_url": f"http://images/{index:012d}.jpg",
            }  # fmt: skip
            file.write((", " if index else "") + json.dumps(row))
        file.write('], "annotations": [')
        for index in range(annotations):
            x, y = round(rng.uniform(0, 500), 2), round(rng.uniform(0, 400), 2)
            row = {
                "id": index, "image_id": rng.randrange(pictures), "category_id": rng.randint(1, 80),
                "bbox": [x, y, 100.5, 60.25], "area": 3000.5, "iscrowd": 0,
                "segmentation": [[round(rng.uniform(0, 640), 2) for _ in range(16)]],
            }  # fmt: skip
            file.write((", " if index else "") + json.dumps(row))
        names = [{"id": index, "name": f"kind {index}"} for index in range(1, 81)]
        file.write('], "categories": ' + json.dumps(names) + "}")


def read_large(path: Path) -> dict[str, float]:
    """Read a COCO-style file in this process and return seconds, rows, boxes and peak memory."""
    from parfocal.data.readers.coco import CocoReader

    before = _peak_gib()
    started = time.perf_counter()
    rows = boxes = 0
    for sample in CocoReader([path]):
        rows += 1
        boxes += len(sample.regions)
    seconds = time.perf_counter() - started
    return {
        "rows": rows, "boxes": boxes, "seconds": seconds, "peak_gib": _peak_gib(),
        "start_gib": before,
    }  # fmt: skip


def _peak_gib() -> float:
    scale = 2**30 if platform.system() == "Darwin" else 2**20  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def reader_speeds(seconds: float) -> dict[str, float]:
    """Return rows a second of every reader that has a hand-made dataset."""
    sys.path.insert(0, str(ROOT / "tests" / "unit" / "data" / "readers"))
    from fixture_readers import fixture_readers

    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, reader in sorted(fixture_readers(Path(folder)).items()):
            started, rows = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                rows += sum(1 for _ in reader)
            speeds[name] = rows / (time.perf_counter() - started)
    return speeds


def main() -> None:
    """Measure and print a table; write it too if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="annotations of the large file")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each reader")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read:
        sys.stdout.write(json.dumps(read_large(chosen.read)))
        return
    lines = ["| reader | rows / s, hand-made dataset |", "|---|---:|"]
    lines += [f"| {name} | {speed:,.0f} |" for name, speed in reader_speeds(chosen.seconds).items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_coco(path, chosen.rows)
        size = path.stat().st_size / 2**20
        command = [sys.executable, __file__, "--read", str(path)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    lines += [
        "",
        f"COCO-style file, {chosen.rows:,} annotations on {found['rows']:,.0f} pictures, "
        f"{size:,.0f} MiB: {found['seconds']:.0f} s, "
        f"{found['boxes'] / found['seconds']:,.0f} annotations / s, peak memory "
        f"{found['peak_gib']:.2f} GiB ({found['start_gib']:.2f} before reading).",
    ]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")
    if found["peak_gib"] >= LIMIT_GIB:
        raise SystemExit("more memory than the limit")


if __name__ == "__main__":
    main()
