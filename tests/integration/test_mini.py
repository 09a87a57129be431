"""The bundled model at work: what the README promises, on the bundled held-out pictures."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

import parfocal
from parfocal.boxes import Boxes, Warp, iou
from parfocal.cli import app
from parfocal.eval.scenes import load_scenes
from parfocal.images import image_frame, load_image

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def mini():
    """The bundled model, loaded once."""
    return parfocal.load("mini", device="cpu")


@pytest.fixture(scope="module")
def scenes():
    """The first eight held-out scenes and their pictures."""
    found = load_scenes(limit=8)
    return found.scenes, found.open(found.scenes)


def _same(one, other):
    assert one.text.plain == other.text.plain
    assert one.boxes.xyxy == pytest.approx(other.boxes.xyxy, abs=1e-4)
    assert one.proposals.xyxy == pytest.approx(other.proposals.xyxy, abs=1e-4)


def test_batch_of_questions_equals_singles_in_any_order(mini, scenes):
    rows, pictures = scenes
    images = [pictures[scene.id] for scene in rows]
    questions = [f"Where is {scene.expressions[0].text}?" for scene in rows]
    questions[1], questions[4] = "What do you see?", f"How many {rows[4].counts[0].text} are there?"
    together = mini.ask_batch(images, questions)
    for answer, image, question in zip(together, images, questions, strict=True):
        _same(answer, mini.ask(image, question))
    for answer, other in zip(
        mini.ask_batch(images[::-1], questions[::-1]), together[::-1], strict=True
    ):
        _same(answer, other)


def test_batch_of_captions_and_regions_equals_singles(mini, scenes):
    rows, pictures = scenes
    images = [pictures[scene.id] for scene in rows[:4]]
    for answer, image in zip(mini.describe_batch(images), images, strict=True):
        _same(answer, mini.describe(image))
    boxes = [scene.boxes for scene in rows[:4]]
    for answers, image, own in zip(
        mini.describe_regions_batch(images, boxes), images, boxes, strict=True
    ):
        for answer, alone in zip(answers, mini.describe(image, own), strict=True):
            _same(answer, alone)


def test_it_points_on_held_out_scenes(mini, scenes):
    rows, pictures = scenes
    asked = [(scene, item) for scene in rows for item in scene.expressions if item.kind == "unique"]
    answers = mini.locate_batch(
        [pictures[scene.id] for scene, _ in asked], [item.text for _, item in asked]
    )
    hits = [
        len(answer.boxes) == 1 and iou(answer.boxes, scene.boxes[[item.target]])[0, 0] >= 0.5
        for (scene, item), answer in zip(asked, answers, strict=True)
    ]
    assert sum(hits) >= len(hits) - 1, f"{sum(hits)} of {len(hits)}"


def test_photo_sized_jpeg_with_exif_rotation_comes_back_in_rotated_pixels(tmp_path):
    found = load_scenes(limit=24).scenes
    named = [(row, e) for row in found for e in row.expressions if e.relation == "name"]
    scene, item = next((row, e) for row, e in named if row.height > row.width)
    picture = load_scenes(limit=24).open([scene])[scene.id]
    scale = 4000 / scene.height
    upright = picture.resize((round(scale * scene.width), 4000))
    canvas = Image.new("RGB", (3000, 4000), (127, 127, 127))  # what the user sees is 3000 x 4000
    canvas.paste(upright, (100, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: the file itself is 4000 x 3000
    path = tmp_path / "photo.jpg"
    canvas.transpose(Image.Transpose.ROTATE_90).save(path, quality=92, exif=exif)
    with Image.open(path) as stored:
        assert stored.size == (4000, 3000)
    assert load_image(path).size == (3000, 4000)
    placed = Warp(image_frame(picture), image_frame(canvas), (scale, scale), (100.0, 0.0))
    result = CliRunner().invoke(app, ["ask", str(path), f"Where is {item.text}?", "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["image"] == {"width": 3000, "height": 4000}
    found = Boxes([answer["results"][0]["boxes"][0]["xyxy"]], image_frame(canvas))
    truth = placed.apply(scene.boxes[[item.target]])
    assert iou(found, truth)[0, 0] >= 0.5


def test_eval_scenes_writes_predictions_and_report(tmp_path):
    result = CliRunner().invoke(
        app, ["eval", "scenes", "--limit", "4", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    for key in (
        "rec_acc_50", "rec_acc_75", "rec_unique_50", "rec_twins_50", "rec_twins_random_50",
        "name_exact", "proposal_recall_50", "proposal_recall_75", "proposals_per_image",
        "caption_precision", "caption_recall", "caption_f1", "absent_rejection",
        "false_rejection", "count_exact",
    ):  # fmt: skip
        assert {key, f"{key}_n", f"{key}_low", f"{key}_high"} <= set(report), key
    assert (tmp_path / "out" / "predictions.jsonl").stat().st_size > 0


def test_demo_writes_pictures_and_a_page(tmp_path):
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert list(tmp_path.glob("*.png"))
    assert "<html" in (tmp_path / "index.html").read_text(encoding="utf-8")
