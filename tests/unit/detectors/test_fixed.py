"""Taggers that do not look."""

from __future__ import annotations

import pytest
from PIL import Image

from parfocal.detectors.fixed import COCO_80, FixedTagger
from parfocal.errors import ConfigError


def test_coco_has_eighty_classes() -> None:
    assert len(set(COCO_80)) == len(COCO_80) == 80
    assert {"scissors", "teddy bear"} < set(COCO_80)
    assert (COCO_80[0], COCO_80[-1]) == ("person", "toothbrush")


def test_every_picture_gets_the_list() -> None:
    tagger = FixedTagger(["b", "a"])
    assert tagger.tag([Image.new("RGB", (4, 4))] * 2) == [("b", "a")] * 2
    assert tagger.tag([]) == []
    assert tagger.identity["tags"] == ["b", "a"]


@pytest.mark.parametrize("tags", ["cat", [], ()])
def test_no_list_is_refused(tags: object) -> None:
    with pytest.raises(ConfigError, match="list of names"):
        FixedTagger(tags)
