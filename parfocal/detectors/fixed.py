"""Taggers that name the same things whatever the picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from PIL import Image

from parfocal.errors import ConfigError

# The 80 classes of COCO detection, in the order of their category ids. MG-LLaVA's ablation with
# them (its Table 5c) lost a comma and so asked for "scissorsteddy bear"; here they are 80.
COCO_80: Final = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
)
FIXED_LISTS: Final = {"coco80": COCO_80}


class FixedTagger:
    """Names the same list for every picture.

    Args:
        tags: the names.

    Raises:
        ConfigError: if there are none, or the list is a bare string.

    >>> FixedTagger(["cat", "dog"]).tag([Image.new("RGB", (8, 8))])
    [('cat', 'dog')]
    """

    def __init__(self, tags: Sequence[str]) -> None:
        if isinstance(tags, str) or not tags:
            raise ConfigError(f"a fixed list of names is needed, such as ['cat'], got {tags!r}.")
        self.tags = tuple(tags)

    @property
    def identity(self) -> dict[str, Any]:
        """The list."""
        return {"kind": "fixed", "tags": list(self.tags)}

    def tag(self, images: Sequence[Image.Image]) -> list[tuple[str, ...]]:
        """The list, once a picture."""
        return [self.tags] * len(images)
