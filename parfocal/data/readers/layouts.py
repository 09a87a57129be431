"""Where people keep the pictures of instruction sets, and what a picture is called across sets.

Instruction files name pictures by paths such as `coco/train2017/000000033471.jpg`, relative to one
folder that holds many sets. The same set stands under different folders in different people's
copies, and the same picture under different paths in different files: `image_key` is one name for
it, whatever the path.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from parfocal.data.readers.coco import coco_names

# Folders that a set's pictures are kept in; those of one set are tried for one another.
FOLDERS: Final[dict[str, tuple[str, ...]]] = {
    "coco": ("coco/train2017/", "coco/val2017/", "coco/train2014/", "coco/val2014/",
             "train2017/", "val2017/", "train2014/", "val2014/"),
    "vg": ("vg/VG_100K/", "vg/VG_100K_2/", "VG_100K/", "VG_100K_2/", "vg/images/", "vg/"),
    "gqa": ("gqa/images/", "gqa/"),
    "ocr_vqa": ("ocr_vqa/images/", "ocr_vqa/"),
    "textvqa": ("textvqa/train_images/", "textvqa/train_val_images/train_images/", "textvqa/"),
    "share_textvqa": ("share_textvqa/images/", "share_textvqa/"),
    "llava_pretrain": ("llava/llava_pretrain/images/", "LLaVA-Pretrain/images/",
                       "llava_pretrain/images/", "llava_image/"),
    "allava_laion": ("allava_laion/images/", "allava_laion/"),
    "allava_vflan": ("allava_vflan/images/", "allava_vflan/"),
    "sam": ("sam/images/", "sam/"),
    "web-celebrity": ("web-celebrity/images/", "web-celebrity/"),
    "web-landmark": ("web-landmark/images/", "web-landmark/"),
    "wikiart": ("wikiart/images/", "wikiart/"),
    "docvqa": ("docvqa/images/", "docvqa/"),
    "dvqa": ("dvqa/images/", "dvqa/"),
    "ai2d": ("ai2d/images/", "ai2d/"),
    "activitynet": ("videochatgpt_tune/",),
    "valley": ("valley/",),
}  # fmt: skip

# OCR-VQA's pictures come from their addresses with various endings; LLaVA names all of them .jpg.
_RENAMED = {"ocr_vqa": (".jpg", ".gif", ".png", ".jpeg")}
_COCO = re.compile(r"(?:COCO_\w+_)?([0-9]{12})")
# Video-LLaVA keeps the folders of mix665k in one more.
_AROUND = "llava_image_tune/"


def find_set(path: str, home: str) -> tuple[str, str]:
    """Say which set a path belongs to, and its name within the set.

    Args:
        path: as an instruction file names it.
        home: the set of paths in no folder that is known.

    >>> find_set("vg/VG_100K_2/2.jpg", "")
    ('vg', '2.jpg')
    """
    inner = path.removeprefix(_AROUND)
    for name, folders in FOLDERS.items():
        for folder in folders:
            if inner.startswith(folder):
                return name, inner.removeprefix(folder)
    return home, inner


def picture_names(path: str, home: str) -> list[str]:
    """Return the paths under which a picture may be stored, as stated first; see `find_set`.

    >>> picture_names("gqa/images/7.jpg", "")
    ['gqa/images/7.jpg', 'gqa/7.jpg']
    """
    name, rest = find_set(path, home)
    names = [path]
    number = _COCO.fullmatch(PurePosixPath(rest).stem) if name == "coco" else None
    if number:
        names = coco_names(int(number[1]), path)
    elif name in FOLDERS:
        names += [path.removeprefix(_AROUND)]
        names += [f"{folder}{rest}" for folder in FOLDERS[name]]
        names += [f"images/{rest}"] if rest == path else []
    endings = _RENAMED.get(name, ())
    names += [str(PurePosixPath(known).with_suffix(end)) for known in names for end in endings]
    return list(dict.fromkeys(names))


def image_key(path: str, home: str) -> str:
    """Return what a picture is called across sets; see `find_set`.

    >>> image_key("coco/train2017/000000033471.jpg", ""), image_key("gqa/images/7.jpg", "")
    ('coco:33471', 'vg:7')
    """
    name, rest = find_set(path, home)
    inside = str(PurePosixPath(rest).with_suffix(""))
    stem = PurePosixPath(rest).stem
    if name == "coco" and (number := _COCO.fullmatch(stem)):
        return f"coco:{int(number[1])}"
    if name in ("gqa", "vg"):  # GQA's own pictures, not of Visual Genome, have an n before them
        return f"vg:{int(stem)}" if stem.isdecimal() else f"{name}:{stem}"
    if name == "sam" and stem.startswith("sa_") and stem[3:].isdecimal():
        return f"sa1b:{int(stem[3:])}"
    if name == "llava_pretrain":
        return f"cc3m:{stem}" if stem.startswith("GCC_") else f"{name}:{stem}"
    if name in ("textvqa", "share_textvqa"):  # OpenImages' pictures, under their ids
        return f"openimages:{stem}"
    return f"{name}:{inside}"
