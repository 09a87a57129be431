"""Write a held-out set of scenes: pictures, objects, and what to ask about them.

What to ask: expressions with twins, absent things, counts, regions to name.

The split `heldout` has its own scene seeds (so its own layouts) and its own background seeds;
training never paints it. Run `python -m parfocal.data.scenes.heldout FOLDER` to write the bundled
set again, byte for byte on the same Pillow.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.data.scenes.catalogue import KINDS, Kind, kind_by_name
from parfocal.data.scenes.compose import Scene, SceneStyle, make_scene
from parfocal.data.scenes.expressions import Expression, referring_expressions
from parfocal.data.scenes.sprites import SpriteBank, load_sprites
from parfocal.data.scenes.turns import colour_relatives

SPLIT = "heldout"
SIDE = 256
NUM_SCENES = 640
QUALITY = 84
EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time, so that the archive's bytes do not change


def write_heldout(folder: Path, bank: SpriteBank, count: int = NUM_SCENES) -> int:
    """Write `scenes.zip` and `scenes.jsonl`; returns the number of bytes.

    Scenes with fewer than two annotated objects, or with an object too hidden to be annotated, are
    passed over: nothing in the set is ambiguous.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    index = 0
    with zipfile.ZipFile(folder / "scenes.zip", "w", zipfile.ZIP_STORED) as archive:
        while len(rows) < count:
            scene = make_scene(bank, SPLIT, index, SceneStyle(side=SIDE))
            index += 1
            if len(scene.objects) < 2 or scene.hidden:
                continue
            row = annotate(scene, bank)
            stream = io.BytesIO()
            Image.fromarray(scene.pixels).save(stream, "WEBP", quality=QUALITY, method=6)
            archive.writestr(zipfile.ZipInfo(row["file"], EPOCH), stream.getvalue())
            rows.append(row)
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    (folder / "scenes.jsonl").write_text(text, encoding="utf-8")
    return sum((folder / name).stat().st_size for name in ("scenes.zip", "scenes.jsonl"))


def annotate(scene: Scene, bank: SpriteBank) -> dict[str, Any]:
    """Return the annotation of a scene: what is there, and what to ask about it."""
    rng = np.random.default_rng((99, scene.index))
    height, width = scene.pixels.shape[:2]
    names = [bank.kinds[item.kind].name for item in scene.objects]
    boxes = Boxes([item.xyxy for item in scene.objects], Frame("image", width, height))
    objects = [
        {"name": name, "xyxy": list(item.xyxy), "visible": round(item.visible, 3)}
        for name, item in zip(names, scene.objects, strict=True)
    ]
    regions = rng.choice(len(names), size=min(2, len(names)), replace=False)
    identity = f"{SPLIT}-{scene.index:05d}"
    return {
        "id": identity,
        "width": width,
        "height": height,
        "file": f"{identity}.webp",
        "objects": objects,
        "expressions": _expressions(names, boxes, rng),
        "absent": _absent(names, bank.kinds, rng),
        "counts": _counts(names, bank.kinds, rng),
        "regions": sorted(int(region) for region in regions),
    }


def _expressions(names: list[str], boxes: Boxes, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Choose up to two expressions with twins and one or two without, all comparisons alike."""
    found = referring_expressions(names, boxes)
    twins, unique = [item for item in found if item.twin], [item for item in found if not item.twin]
    chosen: list[Expression] = []
    for pool, amount in ((twins, 2), (unique, 1 if twins else 2)):
        left = list(pool)
        for _ in range(min(amount, len(left))):
            relations = sorted({item.relation for item in left})
            relation = relations[int(rng.integers(len(relations)))]
            options = [item for item in left if item.relation == relation]
            item = options[int(rng.integers(len(options)))]
            chosen.append(item)
            left = [other for other in left if other.text != item.text]
    return [
        {
            "text": f"the {item.text}",
            "kind": "twin" if item.twin else "unique",
            "relation": item.relation,
            "target": item.target,
        }
        for item in chosen
    ]


def _absent(
    names: list[str], kinds: Sequence[Kind], rng: np.random.Generator
) -> list[dict[str, str]]:
    """Choose one thing that is not there; half the time, where possible, a colour twin of one."""
    others = _not_among(names, kinds)
    relatives = sorted({other for name in names for other in colour_relatives(name)} & set(others))
    if relatives and rng.random() < 0.5:
        return [
            {"text": f"the {relatives[int(rng.integers(len(relatives)))]}", "kind": "colour twin"}
        ]
    return [{"text": f"the {others[int(rng.integers(len(others)))]}", "kind": "other kind"}]


def _not_among(names: list[str], kinds: Sequence[Kind]) -> list[str]:
    """Names of kinds that a scene does not show; of all kinds, where it shows all of these."""
    found = [kind.name for kind in kinds if kind.name not in names]
    return found or [kind.name for kind in KINDS if kind.name not in names]


def _counts(
    names: list[str], kinds: Sequence[Kind], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Choose one name to count, rather a repeated one; one scene in ten counts something absent."""
    if rng.random() < 0.1:
        others = _not_among(names, kinds)
        name = others[int(rng.integers(len(others)))]
    else:
        many = sorted({name for name in names if names.count(name) > 1})
        pool = many if many and rng.random() < 0.7 else sorted(set(names))
        name = pool[int(rng.integers(len(pool)))]
    return [{"text": kind_by_name(name).plural, "name": name, "n": names.count(name)}]


def main() -> None:
    """Write the set into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write the held-out scenes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=NUM_SCENES)
    arguments = parser.parse_args()
    write_heldout(arguments.folder, load_sprites(), arguments.count)


if __name__ == "__main__":
    main()
