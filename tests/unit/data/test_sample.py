import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from parfocal.boxes import Boxes, Frame
from parfocal.data import ImageRef, Sample, Turn
from parfocal.dialects import GroundedText, Nothing, Phrase, RegionRef
from parfocal.errors import DataError, ImageError

DOG = ImageRef("dog.png", 64, 48)
FRAME = DOG.frame()
BOX = Boxes([[10, 20, 30, 40]], FRAME)


def say(*parts: Any, role: Any = "assistant") -> Turn:
    return Turn(role, GroundedText.of(*parts))


def full_sample() -> Sample:
    images = (
        DOG,
        ImageRef(None, 32, 32, parent=0, crop=(4.0, 8.0, 20.0, 24.0)),
        ImageRef("b.png", 8, 9),
    )
    second = Boxes([[0, 0, 8, 9]], images[2].frame(2))
    return Sample(
        id="s1",
        images=images,
        turns=(
            say("What is ", RegionRef(0), "?", role="user"),
            say(Phrase("a dog", BOX), " and ", Phrase("", second), Nothing("cat"), Phrase("sky")),
        ),
        regions=Boxes([[1, 2, 3, 4], [0, 0, 64, 48]], FRAME, labels=["a", "b"]),
        source="unit",
        split="train",
        licence="CC-BY-4.0",
        meta={"k": [1, None, {"x": "\u00e9"}]},
    )


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(full_sample(), id="every field"),
        pytest.param(Sample("t", (), (say("hi"),)), id="words only"),
        pytest.param(Sample("d", (DOG,), (), BOX), id="boxes only"),
        pytest.param(
            Sample("v", (*(ImageRef("a.mp4", 9, 9, video_frame=k) for k in (0, 7)),), ()),
            id="frames of a video",
        ),
    ],
)
def test_json_round_trip(sample: Sample) -> None:
    row = json.loads(json.dumps(sample.to_json()))
    assert Sample.from_json(row) == sample
    assert pickle.loads(pickle.dumps(sample)) == sample


def test_the_row_has_the_documented_form() -> None:
    text = say("A ", Phrase("dog", BOX))
    assert Sample("1", (DOG,), (text,), source="x").to_json() == {
        "id": "1",
        "images": [{"path": "dog.png", "width": 64, "height": 48}],
        "regions": [],
        "turns": [
            {
                "role": "assistant",
                "spans": [
                    {"type": "text", "text": "A "},
                    {"type": "phrase", "text": "dog", "boxes": [[10, 20, 30, 40]]},
                ],
            }
        ],
        "source": "x",
        "split": "",
        "licence": "",
        "meta": {},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"id": ""}, "must not be empty", id="no id"),
        pytest.param({"id": 3}, "must be string", id="id is a number"),
        pytest.param({"turns": (say(RegionRef(2)),)}, "region 2 is not there", id="no such region"),
        pytest.param({"turns": (say(Phrase(" ")),)}, "neither", id="empty phrase"),
        pytest.param(
            {"turns": (say(Phrase("x", Boxes([[0, 0, 65, 9]], FRAME))),)},
            "leaves its picture",
            id="phrase box outside",
        ),
        pytest.param(
            {"turns": (say(Phrase("x", Boxes([[0, 0, 1, 1]], Frame("image7", 9, 9)))),)},
            "frames of its pictures",
            id="phrase in the frame of no picture",
        ),
        pytest.param(
            {"turns": (say(Phrase("x", Boxes([[0, 0, 1, 1]], Frame("image", 9, 9)))),)},
            "frames of its pictures",
            id="phrase in a frame of another size",
        ),
        pytest.param({"regions": Boxes([[5, 5, 5, 9]], FRAME)}, "no area", id="flat region"),
        pytest.param(
            {"regions": Boxes([[0, 0, 1, 1]], Frame("image2", 8, 9))},
            "regions has boxes",
            id="regions in another picture",
        ),
        pytest.param({"images": ()}, "regions has boxes", id="boxes without a picture"),
        pytest.param(
            {"images": (DOG, ImageRef("c.png", 9, 9, parent=0), ImageRef("b.png", 8, 9))},
            "parent and crop",
            id="parent without crop",
        ),
        pytest.param(
            {"images": (DOG, ImageRef("c", 9, 9, 1, (0, 0, 9, 9)), ImageRef("b.png", 8, 9))},
            "not itself a crop",
            id="crop of itself",
        ),
        pytest.param(
            {"images": (DOG, ImageRef("c", 9, 9, 0, (0, 0, 65, 9)), ImageRef("b.png", 8, 9))},
            "leaves its picture",
            id="crop outside its parent",
        ),
        pytest.param({"licence": None}, "must be string", id="licence is null"),
        pytest.param(
            {"images": (DOG, DOG, ImageRef(None, 8, 9, video_frame=1))},
            "video_frame needs the path",
            id="frame of no video",
        ),
        pytest.param(
            {
                "images": (
                    DOG,
                    ImageRef("c", 9, 9, 0, (0, 0, 9, 9), video_frame=1),
                    ImageRef("b.png", 8, 9),
                )
            },
            "video_frame needs the path",
            id="frame and crop at once",
        ),
    ],
)
def test_an_impossible_sample_cannot_be_built(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(full_sample(), **change)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        pytest.param(lambda: ImageRef("a", 0, 5), "width is 0", id="no width"),
        pytest.param(lambda: ImageRef("a", 5, 5.0), "height is 5.0", id="height is a fraction"),
        pytest.param(lambda: ImageRef("", 5, 5), "path is empty", id="empty path"),
        pytest.param(lambda: ImageRef("a", 5, 5, 0, (1, 2, 3)), "four numbers", id="crop of three"),
        pytest.param(
            lambda: ImageRef("a", 5, 5, video_frame=-1), "video_frame is -1", id="frame before 0"
        ),
        pytest.param(
            lambda: ImageRef("a", 5, 5, video_frame=True), "video_frame is True", id="no number"
        ),
        pytest.param(
            lambda: ImageRef(None, 5, 5, pixels=PIL.Image.new("RGB", (4, 5))),
            "4x5, declared as 5x5",
            id="pixels of another size",
        ),
        pytest.param(lambda: Turn("system", GroundedText()), "'system'", id="unknown role"),
        pytest.param(lambda: Turn("user", "hi"), "must be GroundedText", id="plain string"),
    ],
)
def test_parts_check_themselves(build: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"imges": []}, "did you mean 'images'", id="misspelt key"),
        pytest.param({"regions": [[9, 0, 1, 9]]}, r"regions\[0\]: box .* x2 < x1", id="swapped"),
        pytest.param({"turns": [{"role": "user"}]}, "'spans' is missing", id="missing key"),
        pytest.param({"regions": [[0, 0, 1e999, 9]]}, "not in", id="infinite"),
    ],
)
def test_a_bad_row_is_named_by_place(change: dict[str, Any], message: str) -> None:
    row = Sample("1", (DOG,), (say("x"),)).to_json() | change
    with pytest.raises(DataError, match=rf"^rows.jsonl:7: .*{message}"):
        Sample.from_json(row, "rows.jsonl:7")


def test_optional_fields_may_be_left_out() -> None:
    row = {"id": "1", "images": [{"path": "dog.png", "width": 64, "height": 48}], "turns": []}
    assert Sample.from_json(row) == Sample("1", (DOG,), ())


def test_boxes_may_leave_by_float_noise_only() -> None:
    Sample("1", (DOG,), (), Boxes([[0, 0, 64.0005, 48]], FRAME))
    with pytest.raises(DataError, match="leaves"):
        Sample("1", (DOG,), (), Boxes([[0, 0, 64.01, 48]], FRAME))


def test_pictures_open_from_files_memory_and_parents(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (64, 48), "red")
    picture.paste("blue", (4, 8, 20, 24))
    picture.save(tmp_path / "dog.png")
    sample = full_sample()
    assert sample.open_image(0, tmp_path).tobytes() == picture.tobytes()
    crop = sample.open_image(1, tmp_path)
    assert crop.size == (32, 32)
    assert crop.getcolors() == [(32 * 32, (0, 0, 255))]
    assert ImageRef(None, 64, 48, pixels=picture).open() is picture


def test_all_pictures_open_at_once_and_a_parent_is_read_once(tmp_path: Path, monkeypatch) -> None:
    picture = PIL.Image.effect_noise((64, 48), 90).convert("RGB")
    picture.save(tmp_path / "dog.png")
    PIL.Image.new("RGB", (8, 9), "red").save(tmp_path / "b.png")
    sample = full_sample()
    alone = [sample.open_image(index, tmp_path).tobytes() for index in range(3)]
    read: list[str | None] = []
    monkeypatch.setattr(ImageRef, "open", _counted(ImageRef.open, read))
    assert [image.tobytes() for image in sample.open_images(tmp_path)] == alone
    assert [path for path in read if path] == ["dog.png", "b.png"]


def _counted(method: Any, read: list[str | None]) -> Any:
    def open_it(self: ImageRef, root: Path | None = None) -> PIL.Image.Image:
        read.append(None if self.pixels is not None else self.path)
        return method(self, root)

    return open_it


def test_frames_of_a_video_open_by_number_and_it_is_decoded_once(
    tmp_path: Path, monkeypatch
) -> None:
    clips = pytest.importorskip("tests.unit.clips")
    from parfocal.data import sample as module

    clips.write_clip(tmp_path / "a.mp4", 9)
    clips.write_clip(tmp_path / "b.mp4", 3, size=(64, 48))
    refs = [ImageRef("a.mp4", 96, 64, video_frame=number) for number in (8, 0, 3, 3)]
    images = (
        *refs, ImageRef("b.mp4", 64, 48, video_frame=1),
        ImageRef(None, 8, 8, parent=0, crop=(70.0, 20.0, 78.0, 28.0)),
    )  # fmt: skip
    sample = Sample("v", images, ())
    opened: list[str] = []
    load = module.load_frames

    def counted(source: Path, numbers: Any) -> list[PIL.Image.Image]:
        opened.append(source.name)
        return load(source, numbers)

    monkeypatch.setattr(module, "load_frames", counted)
    found = sample.open_images(tmp_path)
    assert opened == ["a.mp4", "b.mp4"]
    shades = [image.getpixel((image.width * 3 // 4, image.height // 2))[0] for image in found]
    assert [round(shade / clips.STEP) for shade in shades] == [8, 0, 3, 3, 1, 8]
    alone = [sample.open_image(index, tmp_path).tobytes() for index in range(len(images))]
    assert alone == [image.tobytes() for image in found]
    with pytest.raises(ImageError, match=r"has 9 frames, there is no frame 9"):
        ImageRef("a.mp4", 96, 64, video_frame=9).open(tmp_path)
    with pytest.raises(DataError, match=r"a\.mp4 is 96x64, declared as 64x96"):
        ImageRef("a.mp4", 64, 96, video_frame=0).open(tmp_path)
    with pytest.raises(DataError, match=r"a\.mp4 is 96x64, declared as 64x96"):
        Sample("v", (ImageRef("a.mp4", 64, 96, video_frame=0),), ()).open_images(tmp_path)


def test_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (48, 64)).save(tmp_path / "dog.png")
    with pytest.raises(DataError, match="48x64, declared as 64x48"):
        DOG.open(tmp_path)
    with pytest.raises(ImageError):
        ImageRef("no.png", 1, 1).open(tmp_path)
    with pytest.raises(DataError, match="open_image"):
        ImageRef(None, 1, 1).open(tmp_path)


def test_a_picture_in_memory_only_cannot_be_written() -> None:
    image = ImageRef(None, 4, 4, pixels=PIL.Image.new("RGB", (4, 4)))
    with pytest.raises(DataError, match="in memory only"):
        Sample("1", (image,), ()).to_json()
