"""Videos as Samples: evenly spread frames of files that have many names or cannot be read."""

from __future__ import annotations

import pytest
from PIL import Image

from parfocal.data.readers import READERS
from parfocal.data.readers.clips import Clips, video_names
from parfocal.data.readers.llava_video import LlavaVideoReader
from parfocal.data.readers.video_chatgpt import VideoChatGptReader
from parfocal.errors import ConfigError, DataError
from tests.unit.clips import STEP, write_clip

EIGHT = [0, 1, 2, 3, 4, 5, 6, 8]  # of nine frames: k * 8 // 7


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """The videos of both fixtures, under one folder."""
    root = tmp_path_factory.mktemp("videos")
    for folder in ("videochatgpt_tune", "valley/000001_000050", "llava_image/00453", "train2017"):
        (root / folder).mkdir(parents=True)
    write_clip(root / "videochatgpt_tune/v_one.mp4", 9)
    write_clip(root / "v_two.mkv", 9, size=(64, 96))
    write_clip(root / "valley/000001_000050/two.mp4", 10, size=(64, 96))
    write_clip(root / "valley/three.avi", 3)
    (root / "v_three.avi").write_bytes((root / "valley/three.avi").read_bytes())
    (root / "valley/broken.mp4").write_bytes(b"no video" * 20)
    (root / "v_broken.webm").write_bytes(b"")
    Image.new("RGB", (30, 20)).save(root / "llava_image/00453/004539375.jpg")
    Image.new("RGB", (31, 20)).save(root / "train2017/000000000009.jpg")
    return root


def frames_of(sample) -> list[int]:
    return [ref.video_frame for ref in sample.images]


def test_video_chatgpt(datasets, videos, read_all):
    file = datasets / "video_chatgpt/VideoInstruct_Dataset.json"
    reader = VideoChatGptReader([file], images=videos, split="train")
    samples = {sample.meta["row"]: sample for sample in read_all(reader)}
    assert list(samples) == [0, 1, 2, 3, 6, 7, 9, 10]
    assert reader.skipped == {
        "rows without a question and its answer": 1,
        "videos that are not in the folder": 1,
        "videos that cannot be read": 1,
    }
    first = samples[0]
    assert first.id == "video_chatgpt:train:0:v_one"
    assert [(turn.role, turn.text.plain) for turn in first.turns] == [
        ("user", "What moves?"), ("assistant", "The red square.")
    ]  # fmt: skip
    assert {(ref.path, ref.width, ref.height) for ref in first.images} == {
        ("videochatgpt_tune/v_one.mp4", 96, 64)
    }
    assert frames_of(first) == EIGHT
    assert first.meta["image_key"] == "activitynet:v_one"
    assert {(ref.path, ref.width, ref.height) for ref in samples[2].images} == {
        ("v_two.mkv", 64, 96)
    }
    assert frames_of(samples[6]) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert samples[10].turns[1].text.plain == "None"


def test_llava_video(datasets, videos, read_all):
    reader = LlavaVideoReader([datasets / "llava_video/video_tiny.json"], images=videos)
    samples = {sample.meta["row"]: sample for sample in read_all(reader)}
    assert list(samples) == [0, 1, 2, 3, 6, 7, 8, 11]
    assert reader.skipped == {
        "rows with several videos, or pictures beside a video": 2,
        "videos that are not in the folder": 1,
        "videos that cannot be read": 1,
    }
    assert samples[0].turns[0].text.plain == "What moves?"
    assert frames_of(samples[0]) == EIGHT
    assert frames_of(samples[2]) == [0, 1, 2, 3, 5, 6, 7, 9]
    keys = [sample.meta.get("image_key") for sample in samples.values()]
    assert keys == [
        "activitynet:v_one", "activitynet:v_one", "valley:000001_000050/two", "valley:three",
        "llava_pretrain:004539375", "coco:9", None, "valley:three",
    ]  # fmt: skip
    assert samples[6].images[0].path == "llava_image/00453/004539375.jpg"
    assert samples[6].images[0].video_frame is None
    assert samples[7].images[0].path == "train2017/000000000009.jpg"
    assert samples[8].images == ()
    assert samples[1].meta["id"] == "v1"
    assert (samples[7].meta["row"], samples[7].meta["picture_row"]) == (7, 7)
    assert "picture_row" not in samples[8].meta


def test_frames_open_as_they_are_numbered(datasets, videos):
    file = datasets / "video_chatgpt/VideoInstruct_Dataset.json"
    sample = next(iter(VideoChatGptReader([file], images=videos, frames=4)))
    assert frames_of(sample) == [0, 2, 5, 8]
    shades = [image.getpixel((72, 32))[0] for image in sample.open_images(videos)]
    assert [round(shade / STEP) for shade in shades] == [0, 2, 5, 8]


def test_a_video_is_decoded_once(datasets, videos, monkeypatch):
    from parfocal.data.readers import clips

    looked = []
    shape = clips.video_shape
    monkeypatch.setattr(clips, "video_shape", lambda file: looked.append(file.name) or shape(file))
    list(VideoChatGptReader([datasets / "video_chatgpt/VideoInstruct_Dataset.json"], images=videos))
    assert looked == ["v_one.mp4", "v_two.mkv", "v_broken.webm", "v_three.avi"]
    monkeypatch.setattr(clips, "KEPT", 1)
    found = Clips(videos, 2)
    for name in ("v_two.mkv", "v_three.avi", "v_two.mkv"):
        assert len(found.place([name])) == 2
    assert looked[4:] == ["v_two.mkv", "v_three.avi", "v_two.mkv"]


def test_names_of_one_video():
    names = video_names("tune/v_x.mkv")
    assert names[0] == "tune/v_x.mkv"
    assert {"tune/v_x.mp4", "v_x.mp4", "v_x.mkv"} <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["video_chatgpt", "llava_video"])
def test_what_videos_need(name, datasets, tmp_path):
    (file,) = (datasets / name).iterdir()
    with pytest.raises(DataError, match="Give the folder of the videos"):
        list(READERS[name]([file]))
    with pytest.raises(ConfigError, match="frames is 0"):
        READERS[name]([file], images=tmp_path, frames=0)
    with pytest.raises(DataError, match="is not a folder"):
        READERS[name]([file], images=tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "no list of rows"), ("[3]", "row 0 is 3"), ('[{"q": "a", "a": "b"}]', "`?video_id")],
)
def test_files_of_another_kind_are_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list(VideoChatGptReader([tmp_path / "a.json"], images=tmp_path))
