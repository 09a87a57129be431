"""Object images: crops that the towers see like pictures, and their places in the text.

A dialect writes `<object1>` for picture 1 of the conversation; here the mark becomes placeholders
and the pictures become one padded batch, in the order in which the text shows them.

Shapes: B rows, K object images of the row that shows most, S input side, T tokens of a picture, D
text width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from parfocal.dialects.grounded import GroundedText, ObjectRef
from parfocal.dialects.objects import OBJECT_MARK
from parfocal.errors import ConfigError, DataError, DialectError
from parfocal.models.config_regions import RegionsConfig


def object_tokens(config: RegionsConfig, num_image_tokens: int) -> int:
    """Return how many tokens an object image becomes; 0 for models that read none.

    Args:
        config: of the regions.
        num_image_tokens: T, tokens of a whole picture.

    Raises:
        ConfigError: if the squares to average do not tile the grid of tokens.
    """
    if config.kind != "crop":
        return 0
    grid, merge = math.isqrt(num_image_tokens), config.merge_crops
    if grid % merge:
        raise ConfigError(
            f"regions.merge_crops {merge} does not divide the {grid} x {grid} token grid."
        )
    return (grid // merge) ** 2


def pool_tokens(tokens: Tensor, merge: int) -> Tensor:
    """Average each square of `merge` x `merge` neighbouring tokens.

    Args:
        tokens: float[N, T, D], a square grid row by row.
        merge: side of a square, in tokens; it divides the grid.

    Returns:
        float[N, T / merge^2, D], squares row by row.
    """
    grid = math.isqrt(tokens.shape[1])
    maps = tokens.transpose(1, 2).unflatten(2, (grid, grid))
    return avg_pool2d(maps, merge).flatten(2).transpose(1, 2)


def check_objects(text: GroundedText, readable: bool) -> None:
    """Refuse object images where they cannot stand, and words that look like one.

    Args:
        text: a question or an answer.
        readable: whether object images can stand in it.

    Raises:
        DialectError: naming the span.
    """
    for span in text.spans:
        if isinstance(span, ObjectRef) and not readable:
            raise DialectError(
                f"[object {span.image}] cannot stand here: object images are read in questions, by "
                "models whose regions.kind is 'crop'. Give the object as a box."
            )
        mark = OBJECT_MARK.search(getattr(span, "text", ""))
        if mark and readable:
            raise DialectError(
                f"the question holds {mark[0]!r}, the mark of an object image; write ObjectRef or "
                f"[object {mark[1]}]."
            )


def expand(text: str, tokenize: Callable[[str], list[int]], placeholders: list[int]) -> list[int]:
    """Tokenise what stands between object marks, each piece alone, and fill in placeholders."""
    first, *rest = OBJECT_MARK.split(text)[::2]
    ids = tokenize(first)
    for piece in rest:
        ids += placeholders + tokenize(piece)
    return ids


def shown_objects(text: str, objects: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the pictures that the marks in `text` name, in their order.

    Args:
        text: all questions of a row, in the dialect.
        objects: `<object1>` names the first.

    Raises:
        DataError: if a mark names a picture that was not given.
    """
    numbers = [int(number) for number in OBJECT_MARK.findall(text)]
    missing = [number for number in numbers if number > len(objects)]
    if missing:
        raise DataError(
            f"[object {missing[0]}] is not there: {len(objects)} object images were given; "
            "they count from 1."
        )
    return [objects[number - 1] for number in numbers]


def pad_rows(values: Sequence[Tensor], counts: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Spread the pictures of all rows over padded rows.

    Args:
        values: one float[P, 3, S, S] a tower, all rows' pictures in order.
        counts: pictures of each row, P in all.

    Returns:
        One float[B, K, 3, S, S] a tower, zeros in padding, and bool[B, K], False in padding.
    """
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    padded = [value.new_zeros(*mask.shape, *value.shape[1:]) for value in values]
    for rows, value in zip(padded, values, strict=True):
        rows[mask] = value
    return padded, mask
