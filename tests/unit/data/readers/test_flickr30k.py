"""Flickr30k Entities: 1-based inclusive boxes, chains, tags, captions about other pictures."""

from __future__ import annotations

import shutil

import pytest

from parfocal.data.readers.flickr30k import Flickr30kReader, parse_sentence, read_annotation
from parfocal.dialects.grounded import GroundedText, Phrase
from parfocal.errors import DataError


@pytest.fixture
def root(datasets):
    return datasets / "flickr30k"


def phrases(sample):
    (turn,) = sample.turns
    assert turn.role == "assistant"
    return [(phrase.text, phrase.boxes.to_json()) for phrase in turn.text.phrases]


# xmin - 1, ymin - 1, xmax, ymax of the files, worked by hand
SQUARE = [[10, 20, 40, 40], [0, 0, 100, 60]]
BLOCK = [[60, 5, 90, 55], [0, 0, 100, 60]]
BOY = [[9, 9, 20, 20]]


def test_every_caption_with_its_boxes(root, read_all):
    reader = Flickr30kReader([root])
    samples = {sample.id.removeprefix("flickr30k:"): sample for sample in read_all(reader)}
    expected = {
        "1:1": [("A red square", SQUARE), ("a blue block", BLOCK)],
        "1:2": [("The square", SQUARE), ("it", BLOCK)],
        "1:4": [("one", SQUARE)],  # the ground is the scene, the ball is not in the picture
        "1:5": [("A square", SQUARE), ("the square", SQUARE)],
        "36979:1": [("Un gar\xe7on", BOY), ("une \xe9charpe rouge", BOY)],  # one box, two chains
        "36979:2": [("Two men", [[100, 50, 500, 375]])],  # clipped; an inverted box is dropped
        "36979:3": [("A dot", [[0, 0, 1, 1]])],  # a single pixel
        "36979:4": [("the boy", BOY), ("a dot", [[0, 0, 1, 1]])],
        "1000092795:1": [],
        "1000092795:2": [],
        "1000092795:3": [],
        "1000092795:4": [],
        "1000092795:5": [],
    }
    assert list(samples) == list(expected)
    for name, truth in expected.items():
        found = phrases(samples[name])
        assert [text for text, _ in found] == [text for text, _ in truth], name
        for (_, boxes), (_, rows) in zip(found, truth, strict=True):
            assert len(boxes) == len(rows), name
            for box, row in zip(boxes, rows, strict=True):
                assert box == pytest.approx(row, abs=1e-6), name
    assert reader.skipped == {
        "captions that are not about their picture": 2,
        "boxes without area inside their picture": 2,
    }


def test_captions_keep_their_words_and_lose_their_tags(root):
    texts = {sample.id: sample.turns[0].text for sample in Flickr30kReader([root])}
    plain = {name: text.plain for name, text in texts.items()}
    assert plain["flickr30k:1:1"] == "A red square sits beside a blue block ."
    assert plain["flickr30k:1:2"] == "The square is left of it in the dream ."
    assert plain["flickr30k:36979:4"] == "It is the boy a dot a [ sign ] ."
    assert not any("/EN#" in text for text in plain.values())
    one = texts["flickr30k:1:4"]
    assert one == GroundedText.of(
        "The grey ground holds ", Phrase("one", one.phrases[0].boxes), " and no ball ."
    )


def test_meta_names_picture_chains_and_types(root):
    samples = {sample.id: sample for sample in Flickr30kReader([root])}
    assert samples["flickr30k:36979:1"].meta == {
        "image_key": "flickr:36979",
        "chains": [404, 405],
        "types": [["people"], ["clothing"]],
    }
    # A rope and the scene have no boxes.
    assert samples["flickr30k:36979:2"].meta["chains"] == [401]
    assert samples["flickr30k:36979:2"].meta["types"] == [["people", "other"]]


def test_a_split_is_read_in_the_order_of_its_file(root, tmp_path):
    train = [sample.id for sample in Flickr30kReader([root], split="train")]
    assert train[:2] == ["flickr30k:train:36979:1", "flickr30k:train:36979:2"]
    assert train[-1] == "flickr30k:train:1:5"
    assert len(train) == 8
    assert len(list(Flickr30kReader([root], split="val"))) == 5
    (tmp_path / "mine.txt").write_text("1\n\n")
    mine = Flickr30kReader([root], split="mine", ids=tmp_path / "mine.txt")
    assert [sample.id for sample in mine] == [f"flickr30k:mine:1:{n}" for n in (1, 2, 4, 5)]
    with pytest.raises(DataError, match=r"test\.txt does not exist"):
        Flickr30kReader([root], split="test")
    (tmp_path / "mine.txt").write_text("1\n1.jpg\n")
    with pytest.raises(DataError, match=r"mine\.txt:2: '1\.jpg'"):
        list(Flickr30kReader([root], ids=tmp_path / "mine.txt"))


def test_unrelated_captions_on_request(root):
    reader = Flickr30kReader([root], unrelated=True)
    samples = {sample.id: sample for sample in reader}
    assert samples["flickr30k:1:3"].turns[0].text.plain == "Nothing is tagged here ."
    assert phrases(samples["flickr30k:36979:5"]) == [("A boy", BOY)]
    assert len(samples) == 15


def test_pictures_in_their_folder(root, make_pictures):
    pictures = make_pictures({
        "flickr30k-images/1.jpg": (100, 60),
        "36979.jpg": (375, 500),  # sides swapped
    })  # fmt: skip
    reader = Flickr30kReader([root], images=pictures)
    assert {sample.images[0].path for sample in reader} == {"flickr30k-images/1.jpg"}
    assert reader.skipped == {
        "captions that are not about their picture": 1,
        "pictures of another size than the dataset states": 1,
        "pictures that are not in the folder": 1,
    }


def test_a_phrase_that_never_ends_is_plain_words():
    pieces = parse_sentence("[/EN#1/people A man and [/EN#2/other a dog] run [/EN#3/scene away")
    assert [(piece.words, piece.chain) for piece in pieces] == [
        ("A man and", 0),
        ("a dog", 2),
        ("run", 0),
        ("away", 0),
    ]
    with pytest.raises(DataError, match=r"a\.txt:4: '\[/EN#x/people' is no tag"):
        parse_sentence("[/EN#x/people A man]", "a.txt:4")


ENTITIES = """<!DOCTYPE a [<!ENTITY b "1"><!ENTITY c "&b;&b;&b;">]>
<annotation><size><width>&c;</width><height>60</height></size></annotation>"""
OUTSIDE = """<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>"""


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (ENTITIES, "document type"),
        (OUTSIDE, "document type"),
        ("<annotation><size>", "not XML"),
        ("<annotation/>", "size/width is None"),
        ("<a><size><width>0</width><height>60</height></size></a>", "0x60"),
        (
            "<a><size><width>9</width><height>9</height></size><object><name>1</name>"
            "<bndbox><xmin>1.5</xmin></bndbox></object></a>",
            r"bndbox/xmin is '1\.5'",
        ),
        (
            "<a><size><width>9</width><height>9</height></size><object><name>dog</name><bndbox>"
            "<xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></a>",
            "named 'dog'",
        ),
    ],
)
def test_bad_annotations_are_refused(tmp_path, xml, message):
    (tmp_path / "1.xml").write_text(xml)
    with pytest.raises(DataError, match=rf"1\.xml.*{message}"):
        read_annotation(tmp_path / "1.xml")


def test_folders_are_checked_at_once(root, tmp_path):
    with pytest.raises(DataError, match="no folder Sentences"):
        Flickr30kReader([tmp_path])
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "UNRELATED_CAPTIONS").unlink()
    with pytest.raises(DataError, match="unrelated=True"):
        Flickr30kReader([copy])
    assert len(list(Flickr30kReader([copy], unrelated=True))) == 15
    (copy / "UNRELATED_CAPTIONS").write_text("1 3\nimage 5\n")
    with pytest.raises(DataError, match="UNRELATED_CAPTIONS:2"):
        list(Flickr30kReader([copy]))
    (copy / "Sentences" / "36979.txt").unlink()
    with pytest.raises(DataError, match=r"36979\.txt does not exist"):
        list(Flickr30kReader([copy], split="train", unrelated=True))
    (copy / "Sentences" / "1.txt").write_bytes(b"A caf\xe9\n")
    with pytest.raises(DataError, match=r"1\.txt:1: not UTF-8 at byte 5"):
        list(Flickr30kReader([copy], unrelated=True))
