"""Paths of instruction sets: where else a picture may be, and its name across sets."""

from __future__ import annotations

import pytest

from parfocal.data.readers.layouts import find_set, image_key, picture_names


@pytest.mark.parametrize(
    ("path", "home", "key"),
    [
        ("coco/train2017/000000033471.jpg", "", "coco:33471"),
        ("coco/train2014/COCO_train2014_000000033471.jpg", "", "coco:33471"),
        ("000000033471.jpg", "coco", "coco:33471"),
        ("llava_image_tune/coco/train2017/000000033471.jpg", "", "coco:33471"),
        ("vg/VG_100K/2317429.jpg", "", "vg:2317429"),
        ("vg/VG_100K_2/7.jpg", "", "vg:7"),
        ("gqa/images/2317429.jpg", "", "vg:2317429"),
        ("gqa/images/n161313.jpg", "", "gqa:n161313"),
        ("textvqa/train_images/0054c91397f2fe05.jpg", "", "openimages:0054c91397f2fe05"),
        ("share_textvqa/images/0054c91397f2fe05.jpg", "", "openimages:0054c91397f2fe05"),
        ("sam/images/sa_545504.jpg", "", "sa1b:545504"),
        ("ocr_vqa/images/0312868766.jpg", "", "ocr_vqa:0312868766"),
        ("00453/004539375.jpg", "llava_pretrain", "llava_pretrain:004539375"),
        ("llava/llava_pretrain/images/00453/004539375.jpg", "", "llava_pretrain:004539375"),
        ("llava_image/00453/004539375.jpg", "", "llava_pretrain:004539375"),
        ("GCC_train_002109690.jpg", "llava_pretrain", "cc3m:GCC_train_002109690"),
        ("allava_vflan/images/images_191task_1k/a/1.png", "", "allava_vflan:images_191task_1k/a/1"),
        ("videochatgpt_tune/v_x.mp4", "", "activitynet:v_x"),
        ("else/1.png", "mine", "mine:else/1"),
    ],
)
def test_one_name_for_one_picture(path, home, key):
    assert image_key(path, home) == key


@pytest.mark.parametrize(
    ("path", "home", "also"),
    [
        ("coco/train2017/000000033471.jpg", "", "train2014/COCO_train2014_000000033471.jpg"),
        ("000000033471.jpg", "coco", "coco/train2017/000000033471.jpg"),
        ("vg/VG_100K/7.jpg", "", "vg/VG_100K_2/7.jpg"),
        ("ocr_vqa/images/1.jpg", "", "ocr_vqa/images/1.gif"),
        ("00453/1.jpg", "llava_pretrain", "images/00453/1.jpg"),
        ("00453/1.jpg", "llava_pretrain", "LLaVA-Pretrain/images/00453/1.jpg"),
        ("llava_image_tune/gqa/images/7.jpg", "", "gqa/images/7.jpg"),
    ],
)
def test_other_places_of_a_picture(path, home, also):
    names = picture_names(path, home)
    assert names[0] == path
    assert also in names
    assert len(set(names)) == len(names)


def test_a_picture_is_not_looked_for_in_the_folder_of_another_set():
    assert "images/7.jpg" not in picture_names("gqa/images/7.jpg", "")
    assert "7.jpg" not in picture_names("gqa/images/7.jpg", "")
    assert picture_names("else/7.jpg", "mine") == ["else/7.jpg"]
    assert find_set("gqa/images/a/7.jpg", "") == ("gqa", "a/7.jpg")
