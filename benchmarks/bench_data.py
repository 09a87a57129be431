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
from collections.abc import Sequence
from pathlib import Path

import pyarrow
from pyarrow import parquet

from parfocal.data.readers import READERS
from parfocal.data.readers.coco import CocoReader
from parfocal.data.readers.pictures import Pictures, Placed

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


# reader -> its files in tests/fixtures/datasets
SOURCES: dict[str, list[str]] = {
    "ai2d": ["ai2d"],
    "allava_caption": ["allava_caption/ALLaVA-Caption-LAION-4V.json"],
    "allava_instruct": ["allava_instruct/ALLaVA-Instruct-VFLAN-4V.json"],
    "coco": ["coco/instances_train2017.json"],
    "docvqa": ["docvqa/val_v1.0.json"],
    "dvqa": ["dvqa/val_easy_qa.json"],
    "flickr30k": ["flickr30k"],
    "groma_detection": ["groma_detection/class_agnostic_coco_train2017.json"],
    "groma_flickr": ["groma/flickr_entities_train.json"],
    "groma_grit": ["groma/grit_filtered_10m.json"],
    "groma_instruct": ["groma/groma_instruct.json"],
    "groma_rec": ["groma/refcoco_val.json"],
    "groma_region_caption": ["groma/vg_train_multi.json"],
    "llava_instruct": ["llava_instruct/llava_instruct_150k.json"],
    "llava_mix665k": ["llava_mix665k/llava_v1_5_mix665k.json"],
    "llava_pretrain": ["llava_pretrain/blip_laion_cc_sbu_558k.json"],
    "lvis": ["lvis/lvis_v1_val.json"],
    "objects365": ["objects365/zhiyuan_objv2_val.json"],
    "openimages": [
        "openimages/validation-annotations-bbox.csv",
        "openimages/class-descriptions-boxable.csv",
    ],
    "refcoco": ["refer/refcoco/refs(unc).p", "refer/refcoco/instances.json"],
    "refcoco_jsonl": ["refcoco_jsonl/REC_refcocog_umd_val.jsonl"],
    "refcoco_mdetr": ["mdetr/finetune_refcoco+_val.json"],
    "sa1b": ["sa1b"],
    "sharegpt4v": ["sharegpt4v/sharegpt4v_instruct_gpt4-vision_cap100k.json"],
    "sharegpt4v_pretrain": ["sharegpt4v_pretrain/share-captioner_coco_lcs_sam_1246k_1107.json"],
    "v3det": ["v3det/v3det_2023_v1_val.json"],
    "vg_objects": ["vg/image_data.json", "vg/objects.json"],
    "vg_qas": ["vg/image_data.json", "vg/question_answers.json"],
    "vg_regions": ["vg/image_data.json", "vg/region_descriptions.json"],
    "vg_relationships": ["vg/image_data.json", "vg/relationships.json"],
}
FIXTURES = ROOT / "tests" / "fixtures" / "datasets"


class AnyPicture(Pictures):
    """Pictures that are all there, as large as stated or 640 x 480: only parsing is timed."""

    def place(
        self, names: Sequence[str], size_wh: tuple[int, int] | None = None, index: int = 0
    ) -> Placed | str:
        """Believe whatever is asked."""
        return Pictures(None).place(names, size_wh or (640, 480), index)


def reader_speeds(seconds: float) -> dict[str, float]:
    """Return rows a second of every reader that reads no video: those time the decoder."""
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "coyo_0_snappy.parquet"
        lines = (FIXTURES / "grit/coyo_2_snappy.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        parquet.write_table(pyarrow.Table.from_pylist(rows), shard)
        sources = {name: [FIXTURES / file for file in files] for name, files in SOURCES.items()}
        sources["grit"] = [shard]
        for name, files in sorted(sources.items()):
            reader = READERS[name](files, images=folder)
            reader.pictures = AnyPicture(None)
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                count += sum(1 for _ in reader)
            speeds[name] = count / (time.perf_counter() - started)
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
