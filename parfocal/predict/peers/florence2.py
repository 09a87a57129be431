"""Florence-2: a fixed set of tasks; a question is a task token and, for some, an input.

Task tokens are not in the vocabulary: the processor writes a sentence in their place. Its encoder
counts positions from the left whatever the mask says, so that batches are padded on the right.
"""

from __future__ import annotations

from collections.abc import Mapping

import PIL.Image
from torch import Tensor

from parfocal.dialects.base import View
from parfocal.dialects.florence2 import bound_quads
from parfocal.dialects.grounded import GroundedText
from parfocal.errors import ConfigError
from parfocal.predict.peers.generation import GenerativePeer
from parfocal.predict.peers.verbs import Ask, Task

REGION_TASK = "<REGION_TO_"
TEXT_LINES = "<OCR_WITH_REGION>"
PROPOSE = "<REGION_PROPOSAL>"


class Florence2Peer(GenerativePeer):
    """Florence-2; see the module. `ask` takes its task tokens, such as `<OD>` or `<OCR>`."""

    family = "Florence-2"
    can = frozenset({"ask", "locate", "describe", "describe regions", "propose"})
    hint = "Its tasks, such as '<OD>' and '<OCR>', go through ask."
    dialect_name = "florence2"
    padding_side = "right"
    separator = ""

    def prompt(self, ask: Ask, view: View) -> str:
        """The task token and its input; the processor does the rest."""
        return self.dialect.render(ask.question, view)

    def encode(self, images: list[PIL.Image.Image], prompts: list[str]) -> Mapping[str, Tensor]:
        """Model inputs.

        Raises:
            ConfigError: if a question is longer than the encoder has positions.
        """
        inputs = super().encode(images, prompts)
        longest = int(inputs["attention_mask"].sum(dim=1).max())
        limit = self.model.config.text_config.max_position_embeddings
        if longest > limit:
            raise ConfigError(
                f"a question and its picture take {longest} tokens, of which the picture takes "
                f"{self.processor.num_image_tokens}; {self.name} reads at most {limit}. Shorten "
                "the question."
            )
        return inputs

    def whole_output(self, ask: Ask, view: View, text: str) -> str:
        """What the model wrote, corners of text lines as boxes."""
        return bound_quads(text) if ask.question.plain.startswith(TEXT_LINES) else text

    def question_for(self, task: Task, phrase: str = "") -> GroundedText:
        """The dialect's task, and the family's own task for proposals."""
        if task == "propose":
            return GroundedText.of(PROPOSE)
        return super().question_for(task, phrase)

    def understand(self, question: str | GroundedText, num_boxes: int) -> GroundedText:
        """A task token and its input; boxes go to the tasks about one region.

        Raises:
            ConfigError: if it starts with no task token, or the boxes do not suit the task.
        """
        if isinstance(question, str):
            self._check_task(question.strip(), num_boxes)
        return super().understand(question, num_boxes)

    def _check_task(self, question: str, num_boxes: int) -> None:
        alone = self.processor.task_prompts_without_inputs
        tasks = [*alone, *self.processor.task_prompts_with_input]
        task = next((token for token in tasks if question.startswith(token)), None)
        if task is None:
            raise ConfigError(
                f"Florence-2 has tasks, it answers no questions such as {question!r}. Ask one of "
                f"{', '.join(tasks)}, followed by its input, or use locate and describe."
            )
        if task in alone and question != task:
            raise ConfigError(f"Florence-2's task {task} takes no input, got {question!r}.")
        wanted = int(task.startswith(REGION_TASK))
        if num_boxes != wanted:
            raise ConfigError(
                f"Florence-2's task {task} takes {wanted} boxes, got {num_boxes}. The tasks "
                f"{REGION_TASK}... take one."
            )
