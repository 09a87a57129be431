"""Referring expressions for seeded scenes: every phrase that picks out exactly one object, and why.

Works on names and boxes alone. Comparisons need a margin, so that no answer hangs on a pixel:
centres differ by `MARGIN` of the longer picture side, areas by `AREA_RATIO`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from parfocal.boxes import Boxes

MARGIN = 0.05
AREA_RATIO = 1.3

# word -> axis (0 = x, 1 = y), direction
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
EXTREMES = {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "bottommost": (1, 1)}
SECONDS = {"second from the left": (0, -1), "second from the right": (0, 1)}
COMPARISONS = (*EXTREMES, "largest", "smallest")  # one word that picks one of several


@dataclass(frozen=True)
class Expression:
    """A phrase for one object.

    Attributes:
        text: without an article: "leftmost red apple", "car left of the dog".
        relation: `name`, or the comparison it uses.
        twin: the scene holds other objects of the same name.
        target: index of the object.
    """

    text: str
    relation: str
    twin: bool
    target: int


def referring_expressions(names: Sequence[str], boxes: Boxes) -> list[Expression]:
    """Return every expression that holds for one object only, in a fixed order.

    Args:
        names: one a box.
        boxes: the objects, in the picture's frame.
    """
    found: list[Expression] = []
    longest = max(boxes.frame.width, boxes.frame.height)
    centres = boxes.cxcywh[:, :2] / longest
    areas = np.maximum(boxes.area, 1e-9)
    landmarks = [index for index, other in enumerate(names) if list(names).count(other) == 1]
    for name in dict.fromkeys(names):
        members = [index for index, other in enumerate(names) if other == name]
        if len(members) == 1:
            found.append(Expression(name, "name", False, members[0]))
        else:
            found += _comparisons(name, members, centres, areas)
        found += _relations(name, members, names, landmarks, centres)
    return found


def _comparisons(
    name: str, members: list[int], centres: NDArray[np.float64], areas: NDArray[np.float64]
) -> list[Expression]:
    """Extremes, second places and sizes among objects of one name."""
    found = []
    for word, (axis, direction) in EXTREMES.items():
        order = sorted(members, key=lambda index: -direction * centres[index, axis])
        if abs(centres[order[0], axis] - centres[order[1], axis]) >= MARGIN:
            found.append(Expression(f"{word} {name}", word, True, order[0]))
    for word, (axis, direction) in SECONDS.items():
        order = sorted(members, key=lambda index: -direction * centres[index, axis])
        gaps = [abs(centres[a, axis] - centres[b, axis]) for a, b in pairwise(order)][:2]
        if len(order) >= 3 and min(gaps) >= MARGIN:
            found.append(Expression(f"{name} {word}", word, True, order[1]))
    ranked = sorted(members, key=lambda index: -areas[index])
    if areas[ranked[0]] >= AREA_RATIO * areas[ranked[1]]:
        found.append(Expression(f"largest {name}", "largest", True, ranked[0]))
    if areas[ranked[-2]] >= AREA_RATIO * areas[ranked[-1]]:
        found.append(Expression(f"smallest {name}", "smallest", True, ranked[-1]))
    return found


def _relations(
    name: str,
    members: list[int],
    names: Sequence[str],
    landmarks: Sequence[int],
    centres: NDArray[np.float64],
) -> list[Expression]:
    """One object of `name` on one side of something unique, all its twins clearly on the other."""
    found = []
    for landmark in landmarks:
        if names[landmark] == name:
            continue
        for word, (axis, direction) in SIDES.items():
            edge = float(centres[landmark, axis])
            beyond = {index: direction * (float(centres[index, axis]) - edge) for index in members}
            inside = [index for index, distance in beyond.items() if distance >= MARGIN]
            clear = all(distance >= MARGIN or distance <= -MARGIN for distance in beyond.values())
            if len(inside) == 1 and clear:
                text = f"{name} {word} the {names[landmark]}"
                found.append(Expression(text, word, len(members) > 1, inside[0]))
    return found
