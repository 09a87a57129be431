"""What a predictor is: the verbs that `parfocal.load` returns, whatever model is behind them.

The command line, the benchmarks and the server ask through these verbs and nothing else. Every
verb has a batched form, and a batch of N gives what N singles give.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import PIL.Image

from parfocal.boxes import Boxes
from parfocal.dialects.grounded import GroundedText

if TYPE_CHECKING:
    from parfocal.predict.answer import Answer

Picture: TypeAlias = str | Path | bytes | PIL.Image.Image | np.ndarray
# A picture, or a video: a file, or its frames.
Visual: TypeAlias = Picture | Sequence[Picture]
BoxesLike: TypeAlias = Boxes | Sequence[Sequence[float]] | None
# object images: boxes to cut out of the picture, or pictures, in any mixture
ObjectsLike: TypeAlias = Boxes | Sequence[Sequence[float] | Picture] | None


@runtime_checkable
class Conversation(Protocol):
    """Several questions about one picture."""

    image: PIL.Image.Image
    answers: list[Answer]

    def ask(
        self,
        question: str,
        boxes: BoxesLike = None,
        *,
        objects: ObjectsLike = None,
        **options: Any,
    ) -> Answer:
        """Ask the next question; `boxes` are regions that it is about, `objects` object images."""
        ...


@runtime_checkable
class AnyPredictor(Protocol):
    """A loaded model that answers questions about pictures, with boxes in their pixels.

    A family that cannot do what a verb asks, or read what is given with it, raises a `ConfigError`
    that names what it can: nothing that is given is left out in silence.

    Attributes:
        name: for answers and reports.
        model: the network, a torch module.
    """

    name: str
    model: Any

    @property
    def takes_video(self) -> bool:
        """True if `ask` takes videos."""
        ...

    def ask(
        self,
        image: Picture,
        question: str | GroundedText,
        boxes: BoxesLike = None,
        *,
        objects: ObjectsLike = None,
        **options: Any,
    ) -> Answer:
        """Answer a question."""
        ...

    def locate(self, image: Picture, phrase: str, *, all: bool = False, **options: Any) -> Answer:
        """Find what `phrase` names; every instance of it with `all`."""
        ...

    def describe(
        self, image: Picture, boxes: BoxesLike = None, **options: Any
    ) -> Answer | list[Answer]:
        """Describe the picture or, given boxes, each region in its order."""
        ...

    def propose(self, image: Picture, top: int = 20) -> Boxes:
        """Return up to `top` boxes of things without naming them, best first."""
        ...

    def chat(self, image: Picture) -> Conversation:
        """Start a conversation about one picture."""
        ...

    def ask_batch(
        self,
        images: Sequence[Picture],
        questions: Sequence[str | GroundedText],
        boxes: Sequence[BoxesLike] | None = None,
        *,
        objects: Sequence[ObjectsLike] | None = None,
        **options: Any,
    ) -> list[Answer]:
        """Answer one question a picture."""
        ...

    def locate_batch(
        self,
        images: Sequence[Picture],
        phrases: Sequence[str],
        *,
        all: bool = False,
        **options: Any,
    ) -> list[Answer]:
        """Find one phrase a picture."""
        ...

    def describe_batch(self, images: Sequence[Picture], **options: Any) -> list[Answer]:
        """Describe whole pictures."""
        ...

    def describe_regions_batch(
        self, images: Sequence[Picture], boxes: Sequence[BoxesLike], **options: Any
    ) -> list[list[Answer]]:
        """Describe every box of every picture."""
        ...

    def propose_batch(self, images: Sequence[Picture], top: int = 20) -> list[Boxes]:
        """Return proposals of every picture."""
        ...
