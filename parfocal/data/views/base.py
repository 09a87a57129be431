"""What a task view is: a way to turn one annotated Sample into many that train one task.

A view yields drafts: turns with the regions and object images that they speak of. `apply` makes
Samples of them, with everything else carried over from the annotated one. All choices come from a
`Draw` that depends on seed, Sample, how often it was seen, and view alone, so neither the order of
Samples nor the number of processes changes anything. What a view cannot use is counted by reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import islice
from typing import ClassVar, TypeVar

from parfocal.boxes import Boxes
from parfocal.data.sample import ImageRef, Sample, Turn
from parfocal.data.views.draw import Draw
from parfocal.data.views.wording import Slots, Wordings, read_wordings
from parfocal.dialects.grounded import UNPLACED, GroundedText, ObjectRef, RegionRef, Span
from parfocal.errors import ConfigError

T = TypeVar("T")

# Keys of `Sample.meta` that count or list the regions (of captions: the phrases) of the annotated
# Sample, as the readers of Visual Genome and Flickr30k Entities write them.
REGION_KEYS = frozenset({"object_ids", "region_ids", "relations"})
PHRASE_KEYS = frozenset({"chains", "types"})


@dataclass(frozen=True)
class Draft:
    """What a view makes: turns, and what only they need.

    Attributes:
        turns: question, answer, question, ...; none where boxes are all there is.
        regions: the user's boxes, pixels of picture 0; RegionRef(k) is row k.
        crops: what object images show, pixels of picture 0; ObjectRef(k + 1) is row k.
    """

    turns: tuple[Turn, ...] = ()
    regions: Boxes = UNPLACED
    crops: Boxes = UNPLACED

    @classmethod
    def of(
        cls,
        question: GroundedText,
        answer: GroundedText,
        regions: Boxes = UNPLACED,
        crops: Boxes = UNPLACED,
    ) -> Draft:
        """One question with its answer."""
        return cls((Turn("user", question), Turn("assistant", answer)), regions, crops)


@dataclass(frozen=True)
class TaskView(ABC):
    """A way to turn one annotated Sample into many; its fields are its options.

    Attributes:
        name: the key in `VIEWS`; part of the id of every Sample that the view makes.
        keeps: those of `REGION_KEYS` and `PHRASE_KEYS` that stay true, because what they count
            stays as it is.
    """

    name: ClassVar[str]
    keeps: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def drafts(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Yield a draft for each Sample to make.

        Args:
            sample: annotated, with at least one picture.
            draw: decides everything.
            skipped: counts, by reason, what cannot be used. Where nothing is yielded, something
                must be counted.
        """


@dataclass(frozen=True)
class QuestionView(TaskView):
    """A view that asks and answers, in conversations of one round or several.

    Args:
        wording: the sentences: the name of a file in `templates/` or the path of one's own.
        rounds: questions of one conversation, at most. Where they are several, one kind of
            question is asked about each thing, so that no answer stands in an earlier turn.
        limit: conversations of one picture, at most; None: as many as there are.
        mark: what every question starts with, such as Groma's `[grounding]`; "" for none.

    Attributes:
        slots: the lists of sentences that the view needs, and their slots.
        wordings: the sentences.
    """

    slots: ClassVar[Slots]

    _: KW_ONLY
    wording: str
    rounds: int = 1
    limit: int | None = None
    mark: str = ""
    wordings: Wordings = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options and read the sentences."""
        require_count("rounds", self.rounds, 1)
        if self.limit is not None:
            require_count("limit", self.limit, 1)
        object.__setattr__(self, "wordings", read_wordings(self.wording, self.slots))

    @abstractmethod
    def questions(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Yield a draft of one question each; the arguments are those of `drafts`."""

    def drafts(self, sample: Sample, draw: Draw, skipped: Counter[str]) -> Iterator[Draft]:
        """Join questions to conversations."""
        questions = self.questions(sample, draw, skipped)
        conversations = iter(lambda: list(islice(questions, self.rounds)), [])
        for draft in map(join, islice(conversations, self.limit)):
            yield replace(draft, turns=led(draft.turns, self.mark))

    def order(self, items: Iterable[T], draw: Draw) -> Iterable[T]:
        """The order to ask in: as annotated if everything is asked alone, otherwise drawn."""
        return items if self.rounds == 1 and self.limit is None else draw.shuffled(items)

    def kinds(self, kinds: Sequence[T], draw: Draw) -> Sequence[T]:
        """The kinds of question to ask about one thing: all, or one where rounds follow."""
        return kinds if self.rounds == 1 or not kinds else (draw.pick(kinds),)

    def ask(self, kind: str, draw: Draw, **values: str | Span | GroundedText) -> GroundedText:
        """One of the sentences of a kind, filled in."""
        return draw.pick(self.wordings[kind]).fill(**values)


def apply(
    sample: Sample, view: TaskView, seed: int, skipped: Counter[str] | None = None
) -> list[Sample]:
    """Turn an annotated Sample into Samples for one task.

    They keep source, split, licence and meta, without the keys that count regions or phrases which
    are no longer there; `meta["view"]` names the view. Their ids are `<id>#<view>-<n>`.

    Args:
        sample: as a reader yields it.
        view: from `get_view`.
        seed: other seeds give other choices; those of one Sample depend on nothing but it, the
            Sample's id, how often a mixture gave it before (`Sample.seen`) and the view's name.
        skipped: where to count, by reason, what could not be used. Nothing comes without a reason.

    Raises:
        DataError: if the annotation itself is not as it must be.

    Example:
        >>> from parfocal.data.views import get_view
        >>> image = ImageRef("dog.jpg", 640, 480)
        >>> dog = Boxes([[10, 20, 110, 220]], image.frame(), labels=["the dog"])
        >>> (made,) = apply(Sample("1", (image,), (), dog), get_view("rec")(), seed=0)
        >>> made.id, made.turns[0].text.plain
        ('1#rec-0', 'Please detect the dog in the picture.')
        >>> made.turns[1].text.boxes(image.frame()).to_json()
        [[10.0, 20.0, 110.0, 220.0]]
    """
    counted = Counter[str]() if skipped is None else skipped
    if not sample.images:
        leave_out(counted, "samples without a picture")
        return []
    again = (sample.seen,) if sample.seen else ()
    drafts = view.drafts(sample, Draw(seed, sample.id, view.name, *again), counted)
    return [_finished(sample, view, number, draft) for number, draft in enumerate(drafts)]


def _finished(sample: Sample, view: TaskView, number: int, draft: Draft) -> Sample:
    crops = [_object_image(crop) for crop in draft.crops]
    shown = len(sample.images) - 1  # pictures between the first and the object images
    stale = (REGION_KEYS | PHRASE_KEYS) - view.keeps
    kept = {key: value for key, value in sample.meta.items() if key not in stale}
    return replace(
        sample,
        id=f"{sample.id}#{view.name}-{number}",
        images=(*sample.images, *crops),
        turns=_shifted(draft.turns, 0, shown),
        regions=draft.regions,
        meta={**kept, "view": view.name},
    )


def _object_image(crop: Boxes) -> ImageRef:
    x1, y1, x2, y2 = crop.to_json()[0]
    width, height = max(1, round(x2 - x1)), max(1, round(y2 - y1))
    return ImageRef(None, width, height, parent=0, crop=(x1, y1, x2, y2))


def join(drafts: Sequence[Draft]) -> Draft:
    """One conversation of several; references go on counting."""
    turns: list[Turn] = []
    regions: list[Boxes] = []
    crops: list[Boxes] = []
    for draft in drafts:
        turns += _shifted(draft.turns, sum(map(len, regions)), sum(map(len, crops)))
        regions += [draft.regions] if len(draft.regions) else []
        crops += [draft.crops] if len(draft.crops) else []
    return Draft(
        tuple(turns),
        Boxes.concat(regions) if regions else UNPLACED,
        Boxes.concat(crops) if crops else UNPLACED,
    )


def led(turns: Iterable[Turn], mark: str) -> tuple[Turn, ...]:
    """The turns, the mark of a task before every question; see `QuestionView`."""
    return tuple(
        replace(turn, text=GroundedText.of(mark, *turn.text.spans)) if turn.role == "user" else turn
        for turn in turns
    )


def _shifted(turns: Iterable[Turn], regions: int, objects: int) -> tuple[Turn, ...]:
    """The turns, their references that much further on."""

    def shift(span: Span) -> Span:
        if isinstance(span, RegionRef):
            return RegionRef(span.index + regions)
        return ObjectRef(span.image + objects) if isinstance(span, ObjectRef) else span

    return tuple(
        Turn(turn.role, GroundedText(tuple(map(shift, turn.text.spans)))) for turn in turns
    )


def leave_out(skipped: Counter[str], reason: str, count: int = 1) -> None:
    """Count what cannot be used.

    Args:
        skipped: the counts.
        reason: short, without names or numbers, so that equal reasons are counted together.
        count: how many at once; 0 counts nothing.
    """
    if count:
        skipped[reason] += count


def require_count(name: str, value: object, low: int, high: int | None = None) -> None:
    """Refuse an option that is not a whole number of a range.

    Raises:
        ConfigError: naming option, value and range.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):  # type: ignore[operator]
        end = "" if high is None else f" to {high}"
        raise ConfigError(f"{name} is {value!r}, must be a whole number from {low}{end}.")


def require_kinds(asks: Sequence[T], known: Sequence[T]) -> tuple[T, ...]:
    """The kinds of question that were asked for; all that are known if none were named.

    Raises:
        ConfigError: if one is not known.
    """
    unknown = [asks] if isinstance(asks, str) else [ask for ask in asks if ask not in known]
    if unknown:
        raise ConfigError(
            f"asks has {unknown[0]!r}, must be a list of {', '.join(map(str, known))}."
        )
    return tuple(asks) or tuple(known)
