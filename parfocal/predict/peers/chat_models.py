"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and InternVL: chat models with free questions and answers.

A question stands behind its picture in a user's message of the checkpoint's own chat template; in a
conversation the picture stands in the first one only. The generations of Qwen-VL write much the
same text and mean different frames by it, so that each is a class.

Other families are trained from these and keep their `model_type`, so that nothing in a folder tells
them apart; whoever knows which one it is names its dialect.

Source: the dialects of the families for words and frames; maintainers' answers for the questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import PIL.Image
from torch import Tensor

from parfocal.boxes import Boxes, Warp
from parfocal.dialects import get_dialect, smart_resize
from parfocal.dialects.base import Dialect, View
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import CheckpointError, ConfigError, DialectError
from parfocal.hub import first_line
from parfocal.images import image_frame
from parfocal.predict.answer import Answer
from parfocal.predict.peers.forms import BOX_FORMS
from parfocal.predict.peers.generation import GenerativePeer
from parfocal.predict.peers.talk import PeerChat
from parfocal.predict.peers.verbs import Ask, Task, Verb

THINK: Final = "<think>"
ALL_VERBS: Final[frozenset[Verb]] = frozenset(
    {"ask", "locate", "describe", "describe regions", "chat"}
)


class ChatPeer(GenerativePeer):
    """A family with a chat template; see the module."""

    can = ALL_VERBS
    hint = "Boxes come from locate(image, phrase, all=True)."

    def __init__(self, model: Any, processor: Any, name: str, dialect: str | None = None) -> None:
        super().__init__(model, processor, name, dialect)
        if not processor.chat_template:
            raise CheckpointError(
                f"{name} has no chat template, which {self.family} is asked through. Copy "
                "chat_template.jinja (or chat_template.json) of the checkpoint into its folder."
            )
        try:
            self._lay_out(["What is it?"], [])
        except Exception as err:  # a template is a program of its own, and raises what it likes
            raise CheckpointError(
                f"{name} has a chat template that cannot lay out a question ({first_line(err)}). "
                "Copy chat_template.jinja (or chat_template.json) of the checkpoint again."
            ) from err

    @classmethod
    def choose_dialect(cls, name: str | None) -> Dialect:
        """The dialect of the family, or the one that this checkpoint was taught in its place.

        Raises:
            ConfigError: for one whose boxes these models cannot say or the peer cannot place.
            DialectError: for one that does not exist.
        """
        dialect = get_dialect(cls.dialect_name if name is None else name)
        if not dialect.writes_boxes and dialect.name != "plain":
            raise ConfigError(
                f"dialect {name!r} names regions that enter a model beside the words, and "
                f"{cls.family} has none. Choose one that writes boxes: {', '.join(BOX_FORMS)}."
            )
        if dialect.needs_coordinates and cls.coordinates is GenerativePeer.coordinates:
            raise ConfigError(
                f"dialect {name!r} counts in what the preprocessor makes of a picture, which is "
                f"not known of {cls.family}. Choose one that counts in parts of the picture."
            )
        return dialect

    def prompt(self, ask: Ask, view: View) -> str:
        """The conversation in the template, up to where the answer starts."""
        question = self.dialect.render(ask.question, view)
        users = [*(asked for asked, _ in ask.history), question]
        return self._lay_out(users, [said for _, said in ask.history])

    def _lay_out(self, users: Sequence[str], said: Sequence[str]) -> str:
        """Questions, of which all but the last have been answered, in the template."""
        messages: list[dict[str, Any]] = []
        for number, words in enumerate(users):
            content: list[dict[str, str]] = [] if number else [{"type": "image"}]
            messages.append(
                {"role": "user", "content": [*content, {"type": "text", "text": words}]}
            )
            if number < len(said):
                answer = [{"type": "text", "text": said[number]}]
                messages.append({"role": "assistant", "content": answer})
        text: str = self.processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def follow_up(
        self, chat: PeerChat, question: str, regions: Boxes, options: dict[str, Any]
    ) -> Answer:
        """Answer the next question with the ones before in sight."""
        history = []
        for answer, own in zip(chat.answers, chat.regions, strict=True):
            view = self.view(chat.image, own)
            asked = self.dialect.render(as_text(answer.question), view)
            try:
                said = self.dialect.render(answer.text, view)
            except DialectError:  # words that look like marks, boxes between words: say it plainly
                said = answer.text.plain
            history.append((asked, said))
        asked_now = self.understand(question, len(regions))
        ask = Ask("ask", chat.image, asked_now, regions, history=tuple(history))
        return self._answer([ask], options)[0]


def as_text(question: GroundedText | str) -> GroundedText:
    """A question of an Answer as GroundedText."""
    return question if isinstance(question, GroundedText) else GroundedText.of(question)


class Qwen2VLPeer(ChatPeer):
    """Qwen2-VL: corner pairs between box tokens, thousandths of the picture."""

    family = "Qwen2-VL"
    dialect_name = "qwen2_vl"


class Qwen25VLPeer(ChatPeer):
    """Qwen2.5-VL: JSON, pixels of the picture as the checkpoint's processor resizes it."""

    family = "Qwen2.5-VL"
    dialect_name = "qwen2_5_vl"

    def coordinates(self, image: PIL.Image.Image) -> Warp:
        """Pixels of the picture -> pixels of what the processor makes of it."""
        images = self.processor.image_processor
        size = images.size
        width, height = smart_resize(
            image.width,
            image.height,
            factor=images.patch_size * images.merge_size,
            min_pixels=size["shortest_edge"],  # areas, in spite of their names
            max_pixels=size["longest_edge"],
        )
        return Warp.resize(image_frame(image), width, height)

    def encode(self, images: list[PIL.Image.Image], prompts: list[str]) -> Mapping[str, Tensor]:
        """Model inputs; a size that is not the one that boxes are read in is an error.

        Raises:
            CheckpointError: if the processor resized otherwise than its settings say.
        """
        inputs = super().encode(images, prompts)
        if not self.dialect.needs_coordinates:
            return inputs
        side = self.processor.image_processor.patch_size
        for image, (_, rows, columns) in zip(
            images, inputs["image_grid_thw"].tolist(), strict=True
        ):
            frame = self.coordinates(image).target
            made = (columns * side, rows * side)
            if made != (frame.width, frame.height):
                raise CheckpointError(
                    f"{self.name}: its processor resized {image.width}x{image.height} to "
                    f"{made[0]}x{made[1]}, its settings say {frame.width:g}x{frame.height:g}, so "
                    "that boxes would be read in a wrong frame. Use the processor files of the "
                    "checkpoint."
                )
        return inputs


class Qwen3VLPeer(ChatPeer):
    """Qwen3-VL: JSON, thousandths of the picture. Some checkpoints think before they answer."""

    family = "Qwen3-VL"
    dialect_name = "qwen3_vl"

    def whole_output(self, ask: Ask, view: View, text: str) -> str:
        """Where the template opens the thinking, what the model wrote goes on with it."""
        opened = self.prompt(ask, view).rstrip().endswith(THINK)
        return THINK + text if opened and self.dialect.name == self.dialect_name else text


class InternVLPeer(ChatPeer):
    """InternVL 2.5 to 3.5 in Transformers' own format: tags and lists, thousandths."""

    family = "InternVL"
    can = ALL_VERBS | {"propose"}
    dialect_name = "internvl"
    things: ClassVar[str] = "objects"  # "detect and label all objects" is the published question

    def question_for(self, task: Task, phrase: str = "") -> GroundedText:
        """The dialect's question; proposals are what its question for all objects gives."""
        if task != "propose":
            return super().question_for(task, phrase)
        asked = super().question_for(task, self.things)
        own = self.dialect.name == self.dialect_name  # is published without marks around "objects"
        return GroundedText.of(asked.plain) if own else asked
