"""Which pictures the row of a Sample shows, in training as when it is asked about, and their boxes.

A Sample of several pictures is a video if all of them are frames of one; otherwise its first
picture is shown, and further ones are the images of objects that its words show.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image

from parfocal.boxes import Boxes, Warp
from parfocal.data.proposals import frame_regions
from parfocal.data.sample import Sample
from parfocal.dialects.grounded import RegionRef
from parfocal.errors import DataError
from parfocal.models.frames import seen_boxes


def shows_video(sample: Sample) -> bool:
    """Return True for several frames of a video; one frame alone is a picture."""
    return len(sample.images) > 1 and all(ref.video_frame is not None for ref in sample.images)


def num_pictures(sample: Sample) -> int:
    """Return how many pictures a row shows: the frames of a video, otherwise one or none."""
    return len(sample.images) if shows_video(sample) else min(1, len(sample.images))


def open_pictures(sample: Sample) -> list[Image]:
    """Return the pictures that a row shows, RGB; a video is decoded once.

    Raises:
        ImageError: if a file cannot be read.
        DataError: if there is no file or it has another size than declared.
    """
    if shows_video(sample):
        return sample.open_images()
    return [sample.open_image()] if sample.images else []


def shown_regions(sample: Sample, warps: Sequence[Warp]) -> list[Boxes]:
    """Return the regions of each picture that a row shows, in its pixels.

    Of a frame they are those of which the model's input shows anything.

    Args:
        sample: its further frames' regions are in its meta, see `frame_regions`.
        warps: of each picture that the row shows, to the unit square.

    Raises:
        DataError: if a turn names regions of a frame and not all of them are in the model's input,
            so that their numbers would be those of others.
    """
    if not shows_video(sample):
        return [sample.regions][: len(warps)]
    regions = frame_regions(sample)
    shown = [seen_boxes(own, warp) for own, warp in zip(regions, warps, strict=True)]
    lost = len(sample.regions) - len(shown[0])
    spans = (span for turn in sample.turns for span in turn.text.spans)
    if lost and any(isinstance(span, RegionRef) for span in spans):
        raise DataError(
            f"sample {sample.id!r} speaks of regions of a video, and {lost} of them are cut off by "
            "the model's input. Leave these, and the questions about them, out."
        )
    return shown
