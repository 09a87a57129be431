from __future__ import annotations

import json

import pytest
from PIL import Image

from parfocal.boxes import Frame
from parfocal.data import preview
from parfocal.data.jsonl import write_jsonl
from parfocal.data.parquet import write_parquet
from parfocal.data.preview import preview_file, sample_item
from parfocal.data.sample import Sample
from parfocal.errors import ParfocalError

WIDTH, HEIGHT = 100, 80
PIXELS = [[60.0, 10.0, 90.0, 50.0], [5.0, 40.0, 45.0, 75.0]]
DOCTOR = {
    "xywh": lambda x1, y1, x2, y2: [x1, y1, x2 - x1, y2 - y1],
    "unit": lambda x1, y1, x2, y2: [x1 / WIDTH, y1 / HEIGHT, x2 / WIDTH, y2 / HEIGHT],
    "thousand": lambda x1, y1, x2, y2: [
        10.0 * x1,
        1000 * y1 / HEIGHT,
        10.0 * x2,
        1000 * y2 / HEIGHT,
    ],
}


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT), "#88aa66").save(tmp_path / "a.png")
    return tmp_path


def row(sample_id="s1", rows=PIXELS, **more):
    phrase = {"type": "phrase", "text": "two things", "boxes": [list(r) for r in rows]}
    image = {"path": "a.png", "width": WIDTH, "height": HEIGHT}
    turns = [{"role": "assistant", "spans": [{"type": "text", "text": "See "}, phrase]}]
    return {"id": sample_id, "images": [image], "turns": turns} | more


def run(folder, *rows, **options):
    file = folder / "data.jsonl"
    lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = preview_file(file, folder / "out.html", **options)
    return report, (folder / "out.html").read_text(encoding="utf-8")


def test_good_rows_are_drawn(folder):
    report, html = run(folder, row(), row("s2", regions=[PIXELS[0]], source="made up"))
    assert (report.rows, report.shown, report.flagged) == (2, 2, 0)
    assert html.count("<img") == 2
    assert html.count('class="pf-box') == 5
    assert "made up" in html
    assert "data.jsonl:2" in html
    assert "pf-flagged" not in html.partition("<main")[2]


@pytest.mark.parametrize("kind", DOCTOR)
def test_both_readings_of_doubtful_boxes_are_drawn(folder, kind):
    report, html = run(folder, row(rows=[DOCTOR[kind](*r) for r in PIXELS]))
    assert report.flagged == 1
    assert f"looks like {kind}" in html
    written, _, meant = html.partition("<figcaption>as written")[2].partition("read as ")
    assert html.count("<img") == 2
    right = ("left:60.000%;top:12.500%;width:30.000%", "left:5.000%;top:50.000%;width:40.000%")
    assert all(place in meant for place in right)
    assert not any(place in written for place in right)


def test_regions_are_read_in_the_same_way(folder):
    rows = [DOCTOR["unit"](*r) for r in PIXELS]
    _, html = run(folder, row(rows=rows, regions=rows[:1], region_labels=["a <thing>"]))
    meant = html.partition("read as ")[2]
    assert meant.count("left:60.000%;top:12.500%") == 2
    assert "a &lt;thing&gt;" in html


def test_every_label_of_a_row_can_be_read(folder):
    labels = ["the left one", "<b>bold</b> & 'quoted'"]
    _, html = run(folder, row(regions=PIXELS, region_labels=labels))
    listed = html.partition('<ul class="pf-regions"')[2].partition("</ul>")[0]
    for k, words in enumerate(("the left one", "&lt;b&gt;bold&lt;/b&gt; &amp; &#x27;quoted&#x27;")):
        entry = listed.split("<li")[1 + k]
        assert f'data-key="r{k}"' in entry and f"<bdi>{words}</bdi>" in entry
        assert html.count(f'data-key="r{k}"') == 3, "the entry, its box and the box's tag"


def test_half_a_letter_does_not_stop_the_page(folder):
    report, html = run(folder, row(regions=[PIXELS[0]], region_labels=["a \ud83d dog"]))
    assert report.shown == 1
    assert "a ? dog" in html


def test_swapped_corners_are_drawn_as_the_rectangle_between_them(folder):
    # Neither order of the numbers explains both boxes, so there is no second reading.
    _, html = run(folder, row(rows=[[90, 50, 60, 10], PIXELS[1]]))
    assert html.count("<img") == 1
    assert "left:60.000%;top:12.500%;width:30.000%;height:50.000%" in html
    assert "swapped corners" in html


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        pytest.param('{"id": "broken",', "bad json", id="not JSON"),
        pytest.param({"id": "x", "images": [], "turn": []}, "did you mean", id="misspelt"),
        pytest.param(row(rows=[[1, 2, 3]]), "must have 4", id="three numbers"),
        pytest.param("[1, 2]", "must be object", id="not an object"),
        pytest.param("null", "must be object", id="nothing"),
    ],
)
def test_rows_that_cannot_be_read_are_listed(folder, bad, said):
    report, html = run(folder, row(), bad, row("s3"))
    assert (report.rows, report.shown, report.flagged) == (3, 3, 1)
    assert said in html
    assert "data.jsonl:2" in html


def test_a_missing_picture_leaves_the_words(folder):
    gone = row()
    gone["images"][0]["path"] = "gone.png"
    report, html = run(folder, gone, row("s2"))
    assert (report.shown, report.flagged) == (2, 1)
    assert html.count("<img") == 1
    assert "no picture" in html
    assert html.count("two things</") + html.count("two things<span") >= 2


def test_a_picture_of_another_size_is_not_drawn_on(folder):
    Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "a.png")
    report, html = run(folder, row())
    assert report.flagged == 1
    assert "80x100, declared as 100x80" in html


def test_scores_that_do_not_fit_are_listed(folder):
    odd = row()
    odd["turns"][0]["spans"][1]["scores"] = [0.5]
    report, html = run(folder, odd)
    assert (report.shown, report.flagged) == (1, 1)
    assert "pf-problems" in html


def test_second_pictures_and_crops_stand_beside_the_first(folder):
    sample = row()
    sample["images"].append(
        {"path": None, "width": 40, "height": 40, "parent": 0, "crop": [60, 10, 80, 30]}
    )
    sample["turns"][0]["spans"].append(
        {"type": "phrase", "text": "a detail", "boxes": [[10, 10, 20, 20]], "image": 1}
    )
    item = sample_item(Sample.from_json(sample), folder)
    assert [panel.image.size for panel in item.panels] == [(WIDTH, HEIGHT), (40, 40)]
    report, html = run(folder, sample)
    assert report.flagged == 0
    second = html.partition("<figcaption>image 1")[2]
    assert second.count('class="pf-box') == 1
    assert "left:25.000%;top:25.000%" in second


def test_limit_keeps_later_rows_that_have_problems(folder):
    rows = [row(f"s{k}") for k in range(6)] + ['{"late":', "{}", "{}", "{}"]
    report, html = run(folder, *rows, limit=2)
    assert (report.rows, report.shown, report.flagged) == (10, 4, 4)
    assert "4 of 10 rows" in html
    assert "data.jsonl:7" in html
    assert "s5" not in html


def test_the_most_telling_problems_come_first(folder):
    rows = [[60 + k, 10, 20, 12] for k in range(12)]
    _, html = run(folder, row(rows=rows))
    listed = html.partition('<ul class="pf-problems">')[2]
    assert listed.startswith("<li><b>looks like xywh")
    assert listed.count("<li>") == preview.MAX_PROBLEMS + 1
    assert "data check" in listed


def test_images_root_and_parquet(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    samples = [Sample.from_json(row())]
    write_jsonl(samples, other / "data.jsonl")
    write_parquet(samples, other / "data.parquet")
    for name in ("data.jsonl", "data.parquet"):
        report = preview_file(other / name, other / "out.html", images_root=folder)
        assert (report.shown, report.flagged) == (1, 0)


@pytest.mark.parametrize(
    ("file", "out", "options", "said"),
    [
        ("gone.jsonl", "out.html", {}, "cannot be opened"),
        ("data.jsonl", "no/such/out.html", {}, "cannot be written"),
        ("data.jsonl", "out.html", {"limit": 0}, "limit is 0"),
        ("data.jsonl", "out.html", {"images_root": "gone"}, "gone is not a folder"),
        ("data.jsonl", "data.jsonl", {}, "data.jsonl must end in .html"),
        ("gone.parquet", "out.html", {}, "gone.parquet does not exist"),
    ],
)
def test_errors_say_what_to_do(folder, file, out, options, said):
    (folder / "data.jsonl").write_text(json.dumps(row()), encoding="utf-8")
    with pytest.raises(ParfocalError, match=said):
        preview_file(folder / file, folder / out, **options)
    assert json.loads((folder / "data.jsonl").read_text()) == row()
    assert not list(folder.glob("**/*.part"))


def test_frames_are_named_as_samples_name_them(folder):
    sample = Sample.from_json(row())
    assert sample_item(sample, folder).panels[0].frame == Frame("image", WIDTH, HEIGHT).name
