"""ParfocalProcessor: Samples in, model inputs out; token ids in, GroundedText in image pixels out.

One object serves training, evaluation, the command line and any server: there is no second prompt,
resize or box parser.

Shapes: B rows, L tokens, U user boxes, G boxes of answers, K object images, S input side.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from parfocal.boxes import Boxes, Frame, Warp
from parfocal.data.sample import Sample
from parfocal.dialects import Dialect, Parsed, View, get_dialect
from parfocal.dialects.grounded import GroundedText
from parfocal.dialects.objects import OBJECT_MARK
from parfocal.errors import CheckpointError, ConfigError, DialectError
from parfocal.models.frames import frame_warp, picture_warp, prepare_frame, prepare_picture
from parfocal.models.objects import check_objects, pad_rows, shown_objects
from parfocal.models.pictures import num_pictures, shown_regions
from parfocal.models.prompts import Prompt
from parfocal.models.settings import ProcessorSettings
from parfocal.models.text_batch import TextBatch, padded, text_row
from parfocal.models.tokenizers import load_tokenizer

FILE_NAME = "parfocal_processor.json"


class ParfocalProcessor:
    """A tokenizer and the settings that go with it, behind everything the module promises.

    Immutable; `save_pretrained` and `from_pretrained` keep the two together.

    Args:
        tokenizer: holds the dialect's tokens and the template's marks.
        settings: of the model it serves.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: ProcessorSettings) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.dialect: Dialect = get_dialect(settings.dialect)
        self._prompt = Prompt(tokenizer, settings)
        self._markup = tuple(tokenizer.get_added_vocab())

    # pictures

    def picture(self, image: Image.Image) -> tuple[list[Tensor], Warp]:
        """Turn a decoded picture into one float[3, S, S] a tower, and a Warp to the unit square."""
        return prepare_picture(image, self.settings.vision)

    def warp(self, frame: Frame, video: bool = False) -> Warp:
        """Lead from the pixels of a picture to the unit square of the model's input.

        Args:
            frame: the picture's.
            video: it is one of a video's.

        Raises:
            ConfigError: if it is one of a video's and the model reads none.
        """
        if video:
            self._require_video()
            return frame_warp(frame, self.settings.vision)
        return picture_warp(frame, self.settings.vision)

    def pixel_values(
        self, images: Sequence[Image.Image], frames: Sequence[bool] | None = None
    ) -> tuple[list[Tensor], list[Warp]]:
        """Return one float[B, 3, S, S] a tower and one Warp an image.

        Each Warp leads from the image's pixels to the unit square of the model's input.

        Args:
            images: decoded, one or more.
            frames: which of them are frames of a video, which enter otherwise; None: none is.

        Raises:
            ConfigError: if there are frames and the model reads one picture at a time
                (`vision.video` is `none`).
        """
        frames = [False] * len(images) if frames is None else frames
        if any(frames):
            self._require_video()
        made = [
            prepare_frame(image, self.settings.vision) if frame else self.picture(image)
            for image, frame in zip(images, frames, strict=True)
        ]
        towers = zip(*(tensors for tensors, _ in made), strict=True)
        return [torch.stack(tower) for tower in towers], [warp for _, warp in made]

    def _require_video(self) -> None:
        if self.settings.vision.video == "none":
            raise ConfigError(
                "this model reads one picture at a time (vision.video is 'none'), not frames of a "
                "video. Leave videos out, or take a model that reads them, such as MG-LLaVA."
            )

    def view(self, frame: Frame, warp: Warp, regions: Boxes | None = None) -> View:
        """Return what the dialect may know.

        Args:
            frame: the picture's.
            warp: from the picture's pixels to the frame in which the text's numbers live.
            regions: what index tokens name, pixels of the picture.
        """
        return View(image=frame, coordinates=warp, regions=regions)

    # questions

    def ask(
        self,
        questions: Sequence[GroundedText],
        regions: Sequence[Boxes],
        warps: Sequence[Warp],
        history: Sequence[Sequence[tuple[str, str]]] | None = None,
        pictures: Sequence[int] | None = None,
        objects: Sequence[Sequence[Image.Image]] | None = None,
    ) -> TextBatch:
        """Tokenise questions for generation, left-padded.

        Args:
            questions: one a row.
            regions: the user's boxes of each picture, in its pixels.
            warps: of each picture, from `pixel_values`.
            history: earlier (question, answer) strings of each row, already in the dialect.
            pictures: number of pictures of each row, in order: 0 for text alone, several for
                frames; None: one each. A question speaks of the boxes of its first picture.
            objects: the object images of each row; ObjectRef(1) shows the first.
        """
        rows, written, start = [], [], 0
        for index, question in enumerate(questions):
            count = 1 if pictures is None else pictures[index]
            own, warp = _NO_BOXES, Warp.identity(_NO_BOXES.frame)
            if count:
                own, warp = regions[start], warps[start]
            start += count
            ids, earlier = self.prefix_ids(count), history[index] if history else ()
            for number, (asked, answered) in enumerate(earlier):
                said, after = self._prompt.answer(answered)
                ids += self._prompt.question(asked, number, count) + said + after
            asking = self.render_question(question, own, warp)
            rows.append(ids + self._prompt.question(asking, len(earlier), count))
            written.append("".join([*(asked for asked, _ in earlier), asking]))
        shown = self._object_values(written, objects or [()] * len(rows))
        width = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id
        input_ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        user_boxes, user_mask = self.unit_boxes(regions, warps)
        return TextBatch(input_ids, mask, user_boxes, user_mask, **shown)

    def render_question(self, question: GroundedText, regions: Boxes, warp: Warp) -> str:
        """Write a question in the dialect.

        Args:
            question: what is asked; its RegionRefs count `regions`.
            regions: the user's boxes, image pixels; may be empty.
            warp: of the picture, from `pixel_values`.

        Raises:
            DialectError: if the question's words hold markup of this model, or it speaks of a
                box that is not among `regions`, or of an object image that the model cannot read.
        """
        check_objects(question, readable=self.settings.num_object_tokens > 0)
        for words in (getattr(span, "text", "") for span in question.spans):
            for mark in self._markup:
                if mark in words and mark not in _ALLOWED_IN_QUESTIONS:
                    raise DialectError(
                        f"the question holds {mark!r}, which is markup of this model; leave it out."
                    )
        return self.dialect.render(question, self.view(regions.frame, warp, regions))

    def _object_values(
        self, written: Sequence[str], objects: Sequence[Sequence[Image.Image]]
    ) -> dict[str, Any]:
        """Return `object_pixels` and `object_mask` of rows whose questions are `written`."""
        if not self.settings.num_object_tokens:
            return {}
        shown = [shown_objects(text, own) for text, own in zip(written, objects, strict=True)]
        if not any(shown):
            return {}
        values, _ = self.pixel_values([image for row in shown for image in row])
        pixels, mask = pad_rows(values, [len(row) for row in shown])
        return {"object_pixels": pixels, "object_mask": mask}

    def prefix_ids(self, pictures: int = 1) -> list[int]:
        """Return the tokens a conversation starts with: opening, image tokens, region slots.

        Args:
            pictures: how many, one after the other with their slots; without any, only the
                tokenizer's start token is left, where the template has it.
        """
        return self._prompt.prefix(pictures)

    def unit_boxes(self, boxes: Sequence[Boxes], warps: Sequence[Warp]) -> tuple[Tensor, Tensor]:
        """Bring boxes into the model's unit frame, padded to the longest row.

        Args:
            boxes: one a row, image pixels.
            warps: of each row, from `pixel_values`.

        Returns:
            float[B, U, 4], cxcywh, zeros in padding, and bool[B, U], False in padding.
        """
        width = max((len(row) for row in boxes), default=0)
        values = torch.zeros(len(boxes), width, 4)
        mask = torch.zeros(len(boxes), width, dtype=torch.bool)
        for index, (row, warp) in enumerate(zip(boxes, warps, strict=True)):
            if len(row):
                unit = warp.apply(row)
                if self.settings.vision.whole_pixel_boxes:
                    unit = self._whole_pixels(unit)
                values[index, : len(row)] = torch.from_numpy(unit.cxcywh).float()
                mask[index, : len(row)] = True
        return values, mask

    def _whole_pixels(self, unit: Boxes) -> Boxes:
        """Round boxes in the unit frame to pixels of the level tower's input, half to even."""
        side = self.settings.vision.level_tower.image_size
        return Boxes(np.clip(np.rint(unit.xyxy * side), 0, side) / side, unit.frame)

    # training

    def pack(
        self,
        samples: Sequence[Sample],
        warps: Sequence[Warp],
        objects: Sequence[Sequence[Image.Image]] | None = None,
        max_length: int = 0,
        row_length: int = 0,
    ) -> TextBatch:
        """Tokenise every sample as one row: the shared prefix, then each question with its answer.

        Turns do not see each other, unless the template's packing is a sequence;
        `parfocal.models.packing` makes the mask. Boxes of answers become `<ground_box>`. A sample
        without a picture is a row of text; of a video all frames are shown, as in `ask`, and
        questions and answers speak of the boxes of the first.

        Args:
            samples: one a row.
            warps: of each picture that the rows show (`num_pictures` of each), row after row.
            objects: the object images of each; its pictures behind the first, opened here, if None.
            max_length: most tokens of a row behind the prefix: turns that do not fit are left out;
                of the first one, the answer is cut if the question fits. 0: no limit.
            row_length: let the language model read samples in rows that they share, each to itself,
                until a row holds so many tokens; 0: a row a sample.

        Raises:
            DataError: for a sample whose turns are not question, answer, question, answer; see
                `shown_regions` as well.
            UnwritableError: for words or boxes that the dialect cannot write.
        """
        rows, firsts, regions, start = [], [], [], 0
        for sample in samples:
            count = num_pictures(sample)
            own = warps[start : start + count]
            boxes = shown_regions(sample, own)
            first = own[0] if count else Warp.identity(sample.regions.frame)
            asked = boxes[0] if count else sample.regions
            view = View(asked.frame, first, user_regions=asked)
            room = max_length or sys.maxsize
            rows.append(
                text_row(sample, view, count, room, prompt=self._prompt, dialect=self.dialect)
            )
            firsts.append(first)
            regions += boxes
            start += count
        user_boxes, user_mask = self.unit_boxes(regions, warps)
        ground_boxes, ground_mask = self.unit_boxes([row.boxes for row in rows], firsts)
        written = [row.written for row in rows]
        if objects is None:
            objects = [
                sample.open_images()[1:] if OBJECT_MARK.search(text) else []
                for sample, text in zip(samples, written, strict=True)
            ]
        return TextBatch(
            user_boxes=user_boxes,
            user_mask=user_mask,
            ground_boxes=ground_boxes,
            ground_mask=ground_mask,
            **padded(rows, self.tokenizer.pad_token_id, row_length),
            **self._object_values(written, objects),
        )

    # answers

    def decode(
        self, ids: Sequence[int] | Tensor, view: View, expects_boxes: bool = False
    ) -> Parsed:
        """Read generated tokens: grounded text in image pixels, and the problems met on the way."""
        return self.dialect.parse(self.text(ids), view, expects_boxes)

    def text(self, ids: Sequence[int] | Tensor) -> str:
        """Return the string behind generated ids, markup included, end marker and padding cut."""
        raw = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        text = raw[0] if isinstance(raw, list) else raw
        tokenizer = self.tokenizer
        template = self.settings.template
        for mark in (template.end, *template.stops, tokenizer.eos_token, tokenizer.pad_token):
            if mark:
                text = text.split(mark, 1)[0]
        return text

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's end, and the template's where one token."""
        template, end = self.settings.template, self.tokenizer.eos_token_id
        marks = map(self._prompt.ids, (template.end, *template.stops))
        single = [ids[0] for ids in marks if len(ids) == 1]
        return list(dict.fromkeys(([] if end is None else [end]) + single))

    # on disk

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer and settings into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        (folder / FILE_NAME).write_text(
            json.dumps(self.settings.to_dict(), indent=2) + "\n", encoding="utf-8"
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> ParfocalProcessor:
        """Read what `save_pretrained` wrote; CheckpointError when the folder holds no processor."""
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            raise CheckpointError(
                f"{folder} holds no {FILE_NAME}; "
                "it was not saved by ParfocalProcessor.save_pretrained."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as err:
            raise CheckpointError(f"{path} is not JSON ({err}); copy the folder again.") from err
        settings = ProcessorSettings.from_dict(values)
        return cls(load_tokenizer(Path(folder)), settings)


_ALLOWED_IN_QUESTIONS = ("[grounding]",)
_NO_BOXES = Boxes.empty(Frame("image", 1, 1))  # of a row without a picture
