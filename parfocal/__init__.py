"""parfocal: language models that point at what they talk about.

The public names below are loaded on first use, so `import parfocal` is instant and loads neither
torch nor transformers. Rooms import from each other, never from here.

Example:
    >>> import parfocal
    >>> image = parfocal.Frame("image", 640, 480)
    >>> parfocal.Boxes.from_xywh([[10, 20, 30, 40]], image).xyxy.tolist()
    [[10.0, 20.0, 40.0, 60.0]]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parfocal.boxes import Boxes, Frame, Warp
    from parfocal.data.sample import Sample
    from parfocal.dialects.grounded import GroundedText, Nothing, ObjectRef, Phrase, RegionRef, Text
    from parfocal.images import load_image
    from parfocal.predict import Answer, Predictor, ask, load

__version__ = "0.1.0"

_HOMES = {
    "Answer": "parfocal.predict",
    "Boxes": "parfocal.boxes",
    "Frame": "parfocal.boxes",
    "GroundedText": "parfocal.dialects.grounded",
    "Nothing": "parfocal.dialects.grounded",
    "ObjectRef": "parfocal.dialects.grounded",
    "Phrase": "parfocal.dialects.grounded",
    "Predictor": "parfocal.predict",
    "RegionRef": "parfocal.dialects.grounded",
    "Sample": "parfocal.data.sample",
    "Text": "parfocal.dialects.grounded",
    "Warp": "parfocal.boxes",
    "ask": "parfocal.predict",
    "load": "parfocal.predict",
    "load_image": "parfocal.images",
}

__all__ = [
    "Answer",
    "Boxes",
    "Frame",
    "GroundedText",
    "Nothing",
    "ObjectRef",
    "Phrase",
    "Predictor",
    "RegionRef",
    "Sample",
    "Text",
    "Warp",
    "__version__",
    "ask",
    "load",
    "load_image",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its room the first time it is used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'parfocal' has no attribute {name!r}; it has {__all__}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names for completion: the public ones, loaded or not."""
    return sorted({*globals(), *__all__})
