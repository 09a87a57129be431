"""What the demo leaves as data; its pictures and its page are looked at in the tests of the CLI."""

from __future__ import annotations

from PIL import Image

from parfocal.boxes import Boxes
from parfocal.data.jsonl import read_jsonl
from parfocal.dialects.grounded import GroundedText, Phrase
from parfocal.images import image_frame
from parfocal.predict.answer import Answer
from parfocal.predict.demo import DemoPicture, Shown, Step, write_samples


def test_samples_hold_no_box_that_a_data_file_may_not_have(tmp_path):
    image = Image.new("RGB", (64, 48))
    frame = image_frame(image)
    text = GroundedText.of(
        Phrase("a cat", Boxes([[5, 5, 5, 20], [50, 30, 70, 40]], frame)),
        " on ",
        Phrase("a line", Boxes([[5, 5, 9, 5]], frame)),
        Phrase("nowhere"),
    )
    picture, step = DemoPicture("one", image, ()), Step("describe", "all of it", "What is there?")
    answer = Answer(step.words, text, image, Boxes.empty(frame))
    write_samples([Shown(picture, step, answer, tmp_path / "one.png")], tmp_path / "data.jsonl")
    (sample,) = read_jsonl(tmp_path / "data.jsonl")
    said = sample.turns[1].text
    assert said.plain == text.plain
    assert [phrase.boxes.to_json() for phrase in said.phrases] == [[[50, 30, 64, 40]], []]
