"""What referring words mean, written down a second time: by trying every word on every object."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from parfocal.boxes import Boxes

Meanings = dict[str, list[int]]  # phrase without article -> the objects it holds for

MARGIN, AREA_RATIO = 0.05, 1.3  # stated in the documentation of the scenes, not read from the code
SIDE_WORDS = {
    "left of": (0, -1), "to the left of": (0, -1), "right of": (0, 1), "to the right of": (0, 1),
    "above": (1, -1), "below": (1, 1), "under": (1, 1),
}  # fmt: skip
EXTREME_WORDS = {
    "leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "top": (1, -1),
    "highest": (1, -1), "bottommost": (1, 1), "bottom": (1, 1), "lowest": (1, 1),
}  # fmt: skip
SIZE_WORDS = {"largest": 1, "biggest": 1, "smallest": -1, "tiniest": -1}
SYNONYMS = (
    "to the left of", "to the right of", "under", "top", "highest", "bottom", "lowest", "biggest",
    "tiniest",
)  # fmt: skip


class Layout:
    """Objects as centres and areas, and what "clearly before" means among them."""

    def __init__(self, names: Sequence[str], boxes: Boxes) -> None:
        self.names = list(names)
        self.unit = MARGIN * max(boxes.frame.width, boxes.frame.height)
        corners = boxes.xyxy.tolist()
        self.spots = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in corners]
        self.areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in corners]

    def before(self, one: int, other: int, axis: int, sign: int) -> bool:
        return sign * (self.spots[one][axis] - self.spots[other][axis]) >= self.unit

    def larger(self, one: int, other: int) -> bool:
        return self.areas[one] >= AREA_RATIO * self.areas[other]

    def beside(self, name: str, same: list[int]) -> Meanings:
        """One of these objects on one side of something unique, the others on the other side."""
        found: Meanings = {}
        for landmark, other in enumerate(self.names):
            if other == name or self.names.count(other) > 1:
                continue
            for word, (axis, sign) in SIDE_WORDS.items():
                inside = [index for index in same if self.before(index, landmark, axis, sign)]
                outside = [index for index in same if self.before(landmark, index, axis, sign)]
                if len(inside) == 1 and len(inside) + len(outside) == len(same):
                    found[f"{name} {word} the {other}"] = inside
        return found

    def among(self, name: str, one: int, rest: list[int]) -> Meanings:
        """What sets one object apart from the others of its name."""
        found: Meanings = {}
        for word, (axis, sign) in EXTREME_WORDS.items():
            if all(self.before(one, index, axis, sign) for index in rest):
                found[f"{word} {name}"] = [one]
        for word, sign in SIZE_WORDS.items():
            pairs = [(one, index) if sign > 0 else (index, one) for index in rest]
            if all(self.larger(*pair) for pair in pairs):
                found[f"{word} {name}"] = [one]
        for side, sign in (("left", -1), ("right", 1)):
            ahead = [index for index in rest if self.before(index, one, 0, sign)]
            behind = [index for index in rest if self.before(one, index, 0, sign)]
            if len(ahead) == 1 and behind and len(behind) == len(rest) - 1:
                found[f"{name} second from the {side}"] = [one]
        return found


def brute_force(names: Sequence[str], boxes: Boxes, synonyms: bool = False) -> Meanings:
    """Return every phrase that holds for exactly one object, or for all objects of a bare name.

    An object that is within the margin of making a phrase true or false makes it ambiguous; an
    ambiguous phrase is left out.
    """
    layout = Layout(names, boxes)
    found: Meanings = {}
    for name in sorted(set(names)):
        same = [index for index, own in enumerate(names) if own == name]
        found[name] = same
        found |= layout.beside(name, same)
        for one in same if len(same) > 1 else ():
            found |= layout.among(name, one, [index for index in same if index != one])
    if synonyms:
        return found
    return {phrase: hits for phrase, hits in found.items() if not _reworded(phrase, names)}


def _reworded(phrase: str, names: Sequence[str]) -> bool:
    """Whether a phrase uses a second wording; names that hold such a word are looked past."""
    for name in sorted(set(names), key=len, reverse=True):
        phrase = phrase.replace(name, "*")
    return any(phrase.startswith(f"{word} ") or f" {word} " in phrase for word in SYNONYMS)


@pytest.fixture(scope="session")
def meanings() -> Callable[..., Meanings]:
    """The independent reading of referring words; see `brute_force`."""
    return brute_force
