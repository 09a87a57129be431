"""What of a Sample training cannot use, and says so instead of learning something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from parfocal.data.sample import Sample
from parfocal.dialects.grounded import GroundedText, ObjectRef
from parfocal.errors import CheckpointError, DataError
from parfocal.models.pictures import num_pictures, shows_video


class UnreadableError(DataError):
    """A Sample that cannot be used, so that it may be left out (`Mixture.skip_bad`).

    Its pictures cannot be had, or its words cannot be written.

    Attributes:
        sample: the one.
    """

    def __init__(self, message: str, sample: Sample | None = None) -> None:
        super().__init__(message)  # a process that loads data can send no more
        self.sample = sample


@contextmanager
def opening(sample: Sample) -> Iterator[None]:
    """Say whose pictures cannot be opened.

    Raises:
        UnreadableError: for what goes wrong with the pictures, or what is kept of them.
    """
    try:
        yield
    except (DataError, CheckpointError) as err:
        raise UnreadableError(f"sample {sample.id!r}: {err}", sample) from err


def check_regions(samples: Sequence[Sample], counts: Sequence[int], slots: int) -> None:
    """Refuse a picture, of those of all rows, with more regions than the model has slots."""
    owners = [sample for sample in samples for _ in range(num_pictures(sample))]
    for sample, count in zip(owners, counts, strict=True):
        if count > slots:
            raise DataError(
                f"sample {sample.id!r} has {count} regions in one picture, the model has {slots} "
                f"slots. Keep the best of a detector's boxes, Proposals(..., "
                f"limits=BoxLimits(most={slots})), or set proposer.max_regions of the model."
            )


def check_turns(sample: Sample) -> None:
    """Refuse a Sample that nothing is learned from."""
    if not sample.turns:
        raise DataError(
            f"sample {sample.id!r} of {sample.source!r} has no questions and answers, which a "
            "language stage learns from. Name a task view in its source of the mixture that asks "
            'about what it has, such as views=("rec",); docs/data.md lists them.'
        )


def check_pictures(sample: Sample, shown: int) -> None:
    """Refuse pictures that would not reach the model, `shown` object images beside the first."""
    if shows_video(sample):
        if shown:
            raise DataError(
                f"sample {sample.id!r} shows object images beside a video, which training does not "
                "read. Ask about the video, or about one of its frames with object images."
            )
    elif len(sample.images) > 1 + shown:
        raise DataError(
            f"sample {sample.id!r} has {len(sample.images)} pictures; training reads one, and "
            "further ones as frames of a video (each with its video_frame), or as the object "
            "images that questions show."
        )


def shown(text: GroundedText) -> int:
    """The number of the last object image that a text shows; 0 for none."""
    return max((span.image for span in text.spans if isinstance(span, ObjectRef)), default=0)
