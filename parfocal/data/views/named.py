"""Named boxes: what an annotated Sample says of its picture, read in one way for all views."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parfocal.boxes import Boxes, iou
from parfocal.data.readers import base
from parfocal.data.sample import Sample
from parfocal.data.views.base import leave_out
from parfocal.data.views.names import Words, clean, names_of, says_nothing, words_of
from parfocal.dialects.grounded import Phrase, Text
from parfocal.errors import DataError

# Two boxes that overlap more, under one name, are one thing that was drawn twice.
# Source: MDETR's preparation of Visual Genome (IoU above 0.5).
SAME_IOU = 0.5

# Keys of `Sample.meta`, each a list of names, as the readers of LVIS and of scenes write them.
NEGATIVES = "neg_categories"  # verified: none of these is in the picture
# there, but not every one of them has a box
INEXHAUSTIVE = (base.INEXHAUSTIVE, "hidden")


@dataclass(frozen=True)
class Named:
    """Words and the boxes that they name, pixels of picture 0."""

    text: str
    boxes: Boxes


def read_regions(sample: Sample, skipped: Counter[str]) -> list[tuple[int, str]]:
    """The regions whose label tells what they are, as row and label.

    Args:
        sample: as a reader yields it.
        skipped: counts the others by reason.
    """
    if len(sample.regions) == 0:
        leave_out(skipped, "samples without regions")
    labels = [clean(label) for label in sample.regions.labels or [""] * len(sample.regions)]
    found = [(row, label) for row, label in enumerate(labels) if not says_nothing(label)]
    nameless = len(labels) - len(found)
    leave_out(skipped, "regions whose label does not tell what they are", nameless)
    return found


def read_named(sample: Sample, skipped: Counter[str]) -> list[Named]:
    """The labelled regions, then the phrases with boxes, in their order.

    Args:
        sample: as a reader yields it.
        skipped: counts by reason what has boxes and no name.
    """
    phrases = [phrase for turn in sample.turns for phrase in turn.text.phrases]
    phrases = [phrase for phrase in phrases if len(phrase.boxes)]
    found = []
    if len(sample.regions) or not phrases:
        regions = bare(sample.regions)
        found = [Named(text, regions[[row]]) for row, text in read_regions(sample, skipped)]
    for phrase in phrases:
        if phrase.boxes.frame != sample.frames[0]:
            leave_out(skipped, "phrases about another picture than the first")
        elif says_nothing(phrase.text):
            leave_out(skipped, "phrases that do not tell what they are about")
        else:
            found.append(Named(clean(phrase.text), bare(phrase.boxes)))
    return found


def unique(
    named: Sequence[Named], inexhaustive: Iterable[str], skipped: Counter[str]
) -> list[Named]:
    """Those whose words can mean nothing else in the picture.

    Args:
        named: all that is named in the picture.
        inexhaustive: names of what is there without a box.
        skipped: counts the others.
    """
    bearers: defaultdict[Words, list[int]] = defaultdict(list)
    for index, item in enumerate(named):
        for name in names_of(item.text):
            bearers[name].append(index)
    unsure = {name for text in inexhaustive for name in names_of(text)}
    kept, seen = [], set()
    for item in named:
        words = words_of(item.text)
        rivals = [named[index] for index in bearers[words]]
        if words in unsure or not all(same_things(item.boxes, rival.boxes) for rival in rivals):
            leave_out(skipped, "phrases that are not unique in their picture")
        elif words in seen:
            leave_out(skipped, "phrases that were there before")
        else:
            seen.add(words)
            kept.append(item)
    return kept


def same_things(a: Boxes, b: Boxes) -> bool:
    """Whether each box of either overlaps one of the other by more than `SAME_IOU`."""
    close = iou(a, b) > SAME_IOU  # [N, M]
    return bool(close.any(axis=0).all() and close.any(axis=1).all())


def bare(boxes: Boxes) -> Boxes:
    """The boxes without scores and labels: an answer must not stand beside its question."""
    return boxes.replace(scores=None, labels=None)


def read_names(sample: Sample, key: str) -> list[str] | None:
    """The names in a list of `sample.meta` that tell what a thing is; None if it is not there.

    Raises:
        DataError: if it is anything but a list of names.
    """
    names = sample.meta.get(key)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"sample {sample.id!r}: meta[{key!r}] is {names!r}, must be a list of names."
        )
    return [clean(str(name)) for name in names if not says_nothing(str(name))]


def read_inexhaustive(sample: Sample) -> list[str]:
    """Names of what the picture shows although not every one of them has a box.

    Raises:
        DataError: if one of the lists in `sample.meta` is none.
    """
    return [name for key in INEXHAUSTIVE for name in read_names(sample, key) or ()]


def read_texts(sample: Sample) -> list[str]:
    """All words that are said of the picture: labels, phrases, what stands between them."""
    spans = [span for turn in sample.turns for span in turn.text.spans]
    words = [span.text for span in spans if isinstance(span, Text | Phrase)]
    whole = [turn.text.plain for turn in sample.turns]
    return [*(sample.regions.labels or ()), *words, *whole]
