"""Questions to one picture, or (ask) one video: ask, locate, describe, propose, chat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from parfocal.cli import show
from parfocal.cli.common import (
    BoxOption,
    CacheOption,
    DetectorOption,
    DeviceOption,
    DialectOption,
    ImageArgument,
    JsonOption,
    MaxNewTokensOption,
    ModelOption,
    ObjectOption,
    SaveOption,
    TaggerOption,
    VisualArgument,
    check_save,
    check_words,
    complain,
    finder_parts,
    generation_options,
    load_picture,
    load_predictor,
    load_visual,
    parse_boxes,
    parse_objects,
    questions,
)
from parfocal.errors import ParfocalError


def ask(
    image: VisualArgument,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In plain words.")],
    box: BoxOption = None,
    objects: ObjectOption = None,
    model: ModelOption = "mini",
    dialect: DialectOption = None,
    tagger: TaggerOption = None,
    detector: DetectorOption = None,
    boxes_cache: CacheOption = None,
    max_new_tokens: MaxNewTokensOption = None,
    as_json: JsonOption = False,
    save: SaveOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Ask anything; the phrases of the answer come with boxes.

    A model that reads several pictures, such as MG-LLaVA, takes a video as well.

    For models that read the boxes of a detector, --tagger and --detector find them.

    Example: parfocal ask out/demo/scene.png "How many telephones are there?"
    """
    check_words(question, "question")
    check_save(save, image, objects)
    parts = finder_parts(tagger, detector, boxes_cache, box)
    shown = load_visual(image, box)
    regions = None if isinstance(shown, Path) else parse_boxes(box, shown)
    crops = parse_objects(objects, shown)
    predictor = load_predictor(model, device, dialect, parts)
    options = generation_options(max_new_tokens)
    answer = predictor.ask(shown, question, boxes=regions, objects=crops, **options)
    if as_json:
        show.print_json(answer.to_json())
    else:
        show.show_answer(answer)
    show.save_answer(answer, save)


def locate(
    image: ImageArgument,
    phrases: Annotated[
        list[str], typer.Argument(metavar="PHRASE...", help="What to look for, one or several.")
    ],
    model: ModelOption = "mini",
    dialect: DialectOption = None,
    tagger: TaggerOption = None,
    detector: DetectorOption = None,
    boxes_cache: CacheOption = None,
    max_new_tokens: MaxNewTokensOption = None,
    as_json: JsonOption = False,
    save: SaveOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Find what a phrase means; a phrase that is not in the picture gets no box.

    Example: parfocal locate out/demo/scene.png "the telephone right of the crocodile" "the top hat"
    """
    for phrase in phrases:
        check_words(phrase, "phrase")
    check_save(save, image)
    parts = finder_parts(tagger, detector, boxes_cache)
    picture = load_picture(image)
    predictor = load_predictor(model, device, dialect, parts)
    options = generation_options(max_new_tokens)
    answers = predictor.locate_batch([picture] * len(phrases), phrases, **options)
    document = show.locations_json(picture, phrases, answers)
    if as_json:
        show.print_json(document)
    else:
        show.show_located(phrases, answers)
    texts = [answer.text for answer in answers]
    show.save_answer(show.joined(answers, texts, ", ".join(phrases)), save, document)


def describe(
    image: ImageArgument,
    box: BoxOption = None,
    model: ModelOption = "mini",
    dialect: DialectOption = None,
    tagger: TaggerOption = None,
    detector: DetectorOption = None,
    boxes_cache: CacheOption = None,
    max_new_tokens: MaxNewTokensOption = None,
    as_json: JsonOption = False,
    save: SaveOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Describe the picture, phrase by phrase with boxes; or say what is in each --box, in order.

    Example: parfocal describe out/demo/scene.png --save caption.html
    """
    check_save(save, image)
    parts = finder_parts(tagger, detector, boxes_cache, box)
    picture = load_picture(image)
    regions = parse_boxes(box, picture)
    predictor = load_predictor(model, device, dialect, parts)
    options = generation_options(max_new_tokens)
    if regions is None:
        answer = predictor.describe(picture, **options)
        document = answer.to_json()
    else:
        answers = predictor.describe(picture, boxes=regions, **options)
        answer = show.named(regions, answers)
        document = show.descriptions_json(picture, regions, answers)
    if as_json:
        show.print_json(document)
    elif regions is None:
        show.show_answer(answer)
    else:
        show.show_regions(regions, answers)
    show.save_answer(answer, save, document)


def propose(
    image: ImageArgument,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many at most.")] = 20,
    model: ModelOption = "mini",
    dialect: DialectOption = None,
    as_json: JsonOption = False,
    save: SaveOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Suggest boxes of things, the surest first, without naming them.

    Example: parfocal propose out/demo/scene.png --top 5 --json
    """
    check_save(save, image)
    picture = load_picture(image)
    predictor = load_predictor(model, device, dialect)
    boxes = predictor.propose(picture, top=top)
    document = show.proposals_json(picture, boxes, model)
    if as_json:
        show.print_json(document)
    else:
        show.show_proposals(boxes)
    show.save_answer(show.proposed(picture, boxes, model), save, document)


def chat(
    image: ImageArgument,
    model: ModelOption = "mini",
    dialect: DialectOption = None,
    tagger: TaggerOption = None,
    detector: DetectorOption = None,
    boxes_cache: CacheOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Talk about one picture: every line of standard input is a question.

    Models of single turns, such as mini, see every line by itself. A question that cannot be asked
    ends nothing, but makes the exit code 1.

    Example: echo "What is in the picture?" | parfocal chat out/demo/scene.png
    """
    parts = finder_parts(tagger, detector, boxes_cache)
    picture = load_picture(image)
    talk = load_predictor(model, device, dialect, parts).chat(picture)
    refused = False
    for question in questions(sys.stdin):
        try:
            answer = talk.ask(question)
        except ParfocalError as error:
            complain(error)
            refused = True
            continue
        if as_json:
            show.print_json_line(answer.to_json())
        else:
            show.show_answer(answer)
    if refused:
        raise typer.Exit(1)
