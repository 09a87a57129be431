"""Florence-2 as a tagger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parfocal.detectors.florence2 import read_names

if TYPE_CHECKING:
    from PIL import Image

    from parfocal.detectors.florence2 import Florence2Tagger

BOX = "<loc_1><loc_2><loc_30><loc_40>"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"</s><s>car{BOX}wheel{BOX}{BOX}car{BOX}</s><pad>", ("car", "wheel")),
        (f" human face {BOX}", ("human face",)),
        ("car<loc_1><loc_2>", ()),
        (f"{BOX}</s>", ()),
        ("a car", ()),
        ("", ()),
    ],
    ids=["several boxes", "blanks", "cut off", "no name", "no box", "empty"],
)
def test_names_of_an_answer(text: str, names: tuple[str, ...]) -> None:
    assert read_names(text) == names


def test_answers_are_generated_a_batch_at_a_time(
    florence2: Florence2Tagger, photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def decode(ids: list, skip_special_tokens: bool) -> list[str]:
        batches.append(len(ids))
        return [f"<s>cat{BOX}thing {len(batches)}{BOX}</s>"] * len(ids)

    monkeypatch.setattr(florence2.processor, "batch_decode", decode)
    tags = florence2.tag(photos)
    assert batches == [3, 1]
    assert tags == [("cat", "thing 1")] * 3 + [("cat", "thing 2")]
    assert florence2.tag([]) == []


def test_a_batch_is_answered_like_single_pictures(
    florence2: Florence2Tagger, photos: list[Image.Image]
) -> None:
    together = florence2.tag(photos)
    assert together == [florence2.tag([photo])[0] for photo in photos]
    assert florence2.identity["kind"] == "florence2"
