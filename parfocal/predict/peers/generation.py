"""A peer that writes its answer: prompt, generate, decode, parse.

A family adds how a prompt is laid out (`prompt`), what its processor takes (`encode`) and, where
settings of the processor decide it, the frame of its numbers (`coordinates`). Everything else is
the same for all: the checkpoint's own processor prepares pictures and text, Transformers generates,
and the family's dialect reads the output with its special tokens still in it.

Nothing is sampled unless that is asked for, one beam is followed so that every box gets a
confidence, and repeated tokens are not punished whatever the checkpoint's generation settings say:
digits of boxes do repeat, and a batch must give what singles give.

Shapes: B rows, L tokens of the prompts, N new tokens.
"""

from __future__ import annotations

import copy
import re
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import PIL.Image
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from parfocal.boxes import Boxes, Warp
from parfocal.detectors.base import in_parts
from parfocal.dialects import get_dialect
from parfocal.dialects.base import Dialect, View
from parfocal.dialects.grounded import GroundedText, Text
from parfocal.errors import DialectError
from parfocal.images import image_frame
from parfocal.predict.answer import Answer
from parfocal.predict.asking import cut_short, no_boxes, one_answer, read_question
from parfocal.predict.peers.confidence import Said, TokenProbabilities, score_boxes
from parfocal.predict.peers.files import Checkpoint, load_parts
from parfocal.predict.peers.talk import PeerChat
from parfocal.predict.peers.verbs import Ask, PeerPredictor, Task, no_choice

MAX_NEW_TOKENS: Final = 512
END: Final = "</s>"  # any of the end tokens that every dialect knows
_MARK = re.compile(r"[<\[].+[>\]]")


class GenerativePeer(PeerPredictor):
    """A family of models that write text; see the module.

    Args:
        model: put into evaluation mode here.
        processor: the checkpoint's own.
        name: for answers and reports.
        dialect: what the checkpoint speaks, where it is not what its family speaks.

    Attributes:
        dialect_name: what the family speaks, a key of `DIALECTS`.
        padding_side: where a batch is padded so that a row does not feel its neighbours.
        batch_size: rows a forward pass.
        separator: what goes before a box that the words of a question do not name.
        decoding: how answers are searched when a call does not say; see `_settings`.
    """

    dialect_name: ClassVar[str]
    padding_side: ClassVar[str] = "left"
    batch_size: ClassVar[int] = 8
    separator: ClassVar[str] = " "
    decoding: ClassVar[str] = "greedy"

    def __init__(self, model: Any, processor: Any, name: str, dialect: str | None = None) -> None:
        self.model, self.processor, self.name = model.eval(), processor, name
        self.processor.tokenizer.padding_side = self.padding_side
        self.dialect: Dialect = self.choose_dialect(dialect)
        self.settings = self._settings(model)
        self._marks = tuple(
            token for token in self.processor.tokenizer.all_special_tokens if _MARK.fullmatch(token)
        )

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        """Load a checkpoint of the family."""
        cls.choose_dialect(checkpoint.dialect)  # a wrong name is told before weights are read
        model, processor = load_parts(checkpoint.folder, checkpoint.dtype)
        return cls(model.to(checkpoint.device), processor, checkpoint.name, checkpoint.dialect)

    @classmethod
    def choose_dialect(cls, name: str | None) -> Dialect:
        """The dialect of the family; the layout of its tasks goes with no other.

        Raises:
            ConfigError: if another one is asked for.
        """
        if name not in (None, cls.dialect_name):
            raise no_choice(
                f"{cls.family} is asked for its own tasks in its own words, dialect "
                f"{cls.dialect_name!r}"
            )
        return get_dialect(cls.dialect_name)

    # what a family says

    @abstractmethod
    def prompt(self, ask: Ask, view: View) -> str:
        """Everything that the processor is to read for one question."""

    def encode(self, images: list[PIL.Image.Image], prompts: list[str]) -> Mapping[str, Tensor]:
        """Model inputs of a batch, padded."""
        inputs: Mapping[str, Tensor] = self.processor(
            images=images, text=prompts, padding=True, return_tensors="pt"
        )
        return inputs

    def coordinates(self, image: PIL.Image.Image) -> Warp | None:
        """Pixels of the picture -> frame of the numbers; None where the dialect alone knows it."""
        return None

    def stops(self, task: Task) -> tuple[int, ...]:
        """Tokens at which an answer to this task is complete, besides the end of the text."""
        return ()

    def whole_output(self, ask: Ask, view: View, text: str) -> str:
        """What the dialect is to read, from what the model wrote."""
        return text

    # questions

    def question_for(self, task: Task, phrase: str = "") -> GroundedText:
        """The dialect's question for a task."""
        phrase = self._words(phrase)
        if task == "describe":
            return self.dialect.describe()
        if task == "describe regions":
            return self.dialect.describe_region(0)
        return self.dialect.locate(phrase) if task == "locate" else self.dialect.locate_all(phrase)

    def understand(self, question: str | GroundedText, num_boxes: int) -> GroundedText:
        """The user's question, refused if its words hold marks that only the layout may hold."""
        text = read_question(question, num_boxes, self.separator)
        for span in text.spans:
            if isinstance(span, Text):
                self._words(span.text)
        return text

    def follow_up(
        self, chat: PeerChat, question: str, regions: Boxes, options: dict[str, Any]
    ) -> Answer:
        """Answer the next question of a conversation; here, without looking at the ones before."""
        return self.ask(chat.image, question, regions, **options)

    def _words(self, text: str) -> str:
        for mark in self._marks:
            if mark in text:
                raise DialectError(
                    f"words hold {mark!r}, a token that {self.family} keeps for itself. Take it "
                    "out; boxes are given as boxes, in pixels of the picture."
                )
        return text

    # the one path that all verbs take

    def view(self, image: PIL.Image.Image, regions: Boxes) -> View:
        """The picture as the model sees it, for the dialect."""
        warp = self.coordinates(image) if self.dialect.needs_coordinates else None
        return View(image_frame(image), warp, regions)

    def _answer(self, asks: Sequence[Ask], options: dict[str, Any]) -> list[Answer]:
        if not self.dialect.writes_boxes and any(len(ask.regions) for ask in asks):
            raise no_boxes(self.name, self.dialect.name)
        chosen = dict(options)
        seed = chosen.pop("seed", None)
        if seed is not None:
            torch.manual_seed(seed)
        parts = in_parts(asks, self.batch_size)
        return [answer for part in parts for answer in self._answer_part(part, chosen)]

    def _answer_part(self, asks: Sequence[Ask], options: dict[str, Any]) -> list[Answer]:
        started = time.perf_counter()
        views = [self.view(ask.image, ask.regions) for ask in asks]
        prompts = [self.prompt(*pair) for pair in zip(asks, views, strict=True)]
        rows = self.generate([ask.image for ask in asks], prompts, asks[0].task, options)
        seconds = time.perf_counter() - started
        return [
            self._read(ask, view, said, seconds)
            for ask, view, said in zip(asks, views, rows, strict=True)
        ]

    def _read(self, ask: Ask, view: View, said: Said, seconds: float) -> Answer:
        output = self.whole_output(ask, view, said.text) + (END if said.ended else "")
        parsed = self.dialect.parse(output, view, ask.expects_boxes)
        cut = () if said.complete else (cut_short(len(said.tokens)),)
        return Answer(
            question=ask.question,
            text=score_boxes(parsed.text, said, self.dialect, view),
            image=ask.image,
            proposals=ask.regions,
            problems=parsed.problems + cut,
            timing={"generate": seconds},
            model=self.name,
            regions=ask.regions if len(ask.regions) else None,
        )

    def generate(
        self,
        images: list[PIL.Image.Image],
        prompts: list[str],
        task: Task = "ask",
        options: Mapping[str, Any] | None = None,
    ) -> list[Said]:
        """Write one text a row: the one step that needs the network.

        Args:
            images: of the rows.
            prompts: as `prompt` lays them out.
            task: decides where an answer is complete.
            options: of Transformers' `generate`.

        Raises:
            ConfigError: as `one_answer` does.
        """
        ends, stops = as_ids(self.settings.eos_token_id), self.stops(task)
        settings = copy.deepcopy(self.settings)
        # What is no setting, such as a streamer, is an argument of its own.
        chosen = one_answer(options or {}, self.model.config.get_text_config(decoder=True))
        arguments = settings.update(**{**chosen, "eos_token_id": [*ends, *stops]})
        recorder = TokenProbabilities() if settings.num_beams == 1 else None
        inputs = self._on_device(self.encode(images, prompts))
        with torch.inference_mode():
            sequences = self.model.generate(
                **inputs,
                **arguments,
                generation_config=settings,
                logits_processor=LogitsProcessorList([recorder] if recorder else []),
            )
        told = 1 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        probabilities = recorder.of(sequences) if recorder else None
        return [
            self._said(
                tokens, [] if probabilities is None else probabilities[row].tolist(), ends, stops
            )
            for row, tokens in enumerate(sequences[:, told:].tolist())
        ]

    def _said(
        self,
        tokens: list[int],
        probabilities: list[float],
        ends: Sequence[int],
        stops: Sequence[int],
    ) -> Said:
        """One row up to where it is complete: without its end token, with its stop token."""
        last = next((k for k, token in enumerate(tokens) if token in (*ends, *stops)), len(tokens))
        ended = last < len(tokens) and tokens[last] in ends
        kept = tokens[:last] if ended else tokens[: last + 1]
        return Said(
            self._decode(kept),
            ended,
            tuple(kept),
            tuple(probabilities[: len(kept)]),
            self._decode,
            complete=last < len(tokens),
        )

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self.processor.tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        device, dtype = self.model.device, self.model.dtype
        return {
            key: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for key, value in inputs.items()
        }

    def _settings(self, model: Any) -> GenerationConfig:
        """The checkpoint's generation settings, without chance, beams and repetition penalty."""
        settings = copy.deepcopy(model.generation_config)
        tokenizer = self.processor.tokenizer
        for key, value in {
            "do_sample": False,
            "temperature": 1.0,  # neutral; None would take the checkpoint's again
            "top_p": 1.0,
            "top_k": 50,
            "num_beams": 1,
            "early_stopping": False,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
            "max_length": None,
            "max_new_tokens": settings.max_new_tokens or MAX_NEW_TOKENS,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": settings.eos_token_id or tokenizer.eos_token_id,
        }.items():
            setattr(settings, key, value)
        return settings


def as_ids(value: int | Sequence[int] | None) -> tuple[int, ...]:
    """One token id, several, or none, as a tuple.

    >>> as_ids(7), as_ids([7, 8]), as_ids(None)
    ((7,), (7, 8), ())
    """
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
