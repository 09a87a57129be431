"""Every error that parfocal raises on purpose.

One small class per cause, so that callers can catch what they can handle. The message of each says
what was wrong, the value, what is allowed and what to do next. This is the one module that every
room may import.
"""

from __future__ import annotations


class ParfocalError(Exception):
    """Base of all errors that a user of parfocal can cause and repair."""


class ConfigError(ParfocalError, ValueError):
    """A configuration value, name or combination is not possible."""


class DataError(ParfocalError, ValueError):
    """A data file or one of its rows is not usable; the message names file and row."""


class ImageError(DataError):
    """A picture cannot be decoded within the limits of `parfocal.images`."""


class FrameError(ParfocalError, ValueError):
    """Boxes are not valid boxes of their frame, or meet a frame that is not theirs."""


class ShapeError(ParfocalError, ValueError):
    """Arrays or tensors that belong together disagree in shape."""


class DialectError(ParfocalError, ValueError):
    """Grounded text cannot be written in the dialect that was asked for."""


class CheckpointError(ParfocalError, ValueError):
    """Weights or a model folder do not fit; the message lists the misfits."""


class TrainingError(ParfocalError, RuntimeError):
    """Training cannot go on; the message says at which step and what was kept of it."""
