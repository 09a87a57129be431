"""Questions about scenes that show objects as pictures of their own: where one is, what it is.

They stand in the place of as many other questions, so that a scene is asked as much as before.

Source: TinyGroundingGPT, section 3.1 (object images and coordinates, object texts and images).
Deviates: without options to choose from, which views on files have.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np

from parfocal.boxes import Boxes
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.data.scenes.catalogue import article
from parfocal.data.views.draw import Draw
from parfocal.data.views.objects import ObjectRules
from parfocal.dialects.grounded import GroundedText, ObjectRef, Phrase

RULES = ObjectRules()


def show_objects(sample: Sample, rng: np.random.Generator, count: int) -> Sample:
    """Return a scene whose first questions show object images instead.

    Args:
        sample: from `parfocal.data.scenes.turns.with_turns`.
        rng: decides which objects are shown, and what is asked.
        count: how many, at most; as many as there are objects that can be shown.
    """
    frame, rows = sample.regions.frame, cast("list[dict[str, Any]]", sample.meta["objects"])
    if not rows:
        return sample
    boxes, names = Boxes([row["xyxy"] for row in rows], frame), [row["name"] for row in rows]
    usable = RULES.usable(boxes)
    count = min(count, len(usable), len(sample.turns) // 2)
    turns, images = list(sample.turns), list(sample.images)
    for place, row in enumerate(rng.permutation(usable)[:count]):
        crop = RULES.crop(boxes[[row]], Draw(sample.id, int(row)))
        images.append(_object_image(crop))
        shown, name = ObjectRef(place + 1), names[row]
        if rng.random() < 0.5:
            question = GroundedText.of("What is the location of ", shown, "?")
            answer = GroundedText.of(Phrase("", boxes[[row]]))
        else:
            question = GroundedText.of("What is ", shown, "?")
            answer = GroundedText.of(f"{article(name)} {name}")
        turns[2 * place : 2 * place + 2] = [Turn("user", question), Turn("assistant", answer)]
    return dataclasses.replace(sample, turns=tuple(turns), images=tuple(images))


def _object_image(crop: Boxes) -> ImageRef:
    """Refer to a part of the Sample's first picture."""
    x1, y1, x2, y2 = crop.to_json()[0]
    width, height = max(1, round(x2 - x1)), max(1, round(y2 - y1))
    return ImageRef(None, width, height, parent=0, crop=(x1, y1, x2, y2))
