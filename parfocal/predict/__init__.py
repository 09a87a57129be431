"""Predict: load a model and ask it about pictures; every answer is a GroundedText in pixels of the picture given."""

from __future__ import annotations

from typing import Any

from parfocal.predict.answer import Answer
from parfocal.predict.load import load
from parfocal.predict.predictor import Chat, Picture, Predictor

__all__ = ["Answer", "Chat", "Predictor", "ask", "load"]


def ask(image: Picture, question: str, boxes: Any = None, *, model: str = "mini", device: str = "auto") -> Answer:
    """Load a model, ask one question, forget the model; for more than one question keep a `load()`.

    Example:
        >>> ask("street.png", "Where is the red car?").boxes  # doctest: +SKIP
    """
    return load(model, device=device).ask(image, question, boxes)
