"""Predict: load a model and ask it about pictures; answers have boxes in its pixels.

The public names below are loaded on first use, so that `parfocal.predict.answer`, which needs no
model, can be imported without torch. No module of this room may be named like one of them: it would
take the name's place in the package when it is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parfocal.predict.answer import Answer
    from parfocal.predict.chat import Chat
    from parfocal.predict.loading import load
    from parfocal.predict.predictor import Predictor
    from parfocal.predict.protocol import AnyPredictor, BoxesLike, Picture

_HOMES = {
    "AnyPredictor": "parfocal.predict.protocol",
    "Answer": "parfocal.predict.answer",
    "Chat": "parfocal.predict.chat",
    "Predictor": "parfocal.predict.predictor",
    "load": "parfocal.predict.loading",
}

__all__ = ["Answer", "AnyPredictor", "Chat", "Predictor", "ask", "load"]


def ask(
    image: Picture,
    question: str,
    boxes: BoxesLike = None,
    *,
    model: str = "mini",
    device: str = "auto",
) -> Answer:
    """Load a model, ask one question, forget the model; for more questions keep a `load()`.

    Args:
        image: file, bytes, PIL picture or uint8 array.
        question: words; `[region 0]` in them names the first of `boxes`.
        boxes: regions the question is about, xyxy in pixels of the picture.
        model: as in `load`.
        device: as in `load`.

    Example:
        >>> ask("street.png", "Where is the red car?").boxes  # doctest: +SKIP
    """
    from parfocal.predict import loading

    return loading.load(model, device=device).ask(image, question, boxes)


def __getattr__(name: str) -> Any:
    """Load a public name from its module the first time it is used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names for completion: the public ones, loaded or not."""
    return sorted({*globals(), *__all__})
