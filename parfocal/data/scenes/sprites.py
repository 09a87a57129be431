"""The drawn objects of seeded scenes: fetched once, cut to their outlines, kept at a few sizes.

The art is Microsoft's Fluent Emoji in its 3D style, packed for npm as `@lobehub/fluent-emoji-3d`
(MIT). It is needed only to render new scenes (training mini again, or building another held-out
set): a model that is merely used never asks for it.

Shapes: a sprite is premultiplied RGBA uint8[H, W, 4], its longest side one of `MIP_SIDES`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from parfocal.data.scenes.catalogue import KINDS, Kind
from parfocal.errors import DataError

logger = logging.getLogger(__name__)

ART_PACKAGE = "@lobehub/fluent-emoji-3d"
ART_VERSION = "1.1.0"
ART_SHA1 = "ff0679b2bbbf6100dd9709d8952498f08f364ac6"
MIP_SIDES = (160, 112, 80, 56, 40)


@dataclass(frozen=True)
class SpriteBank:
    """Every kind of object as a small stack of pictures, largest first.

    Attributes:
        kinds: the kinds in catalogue order.
        mips: for each kind, one "RGBa" (premultiplied) picture per entry of `MIP_SIDES`.
    """

    kinds: tuple[Kind, ...]
    mips: tuple[tuple[Image.Image, ...], ...]

    def sprite(self, index: int, side: float) -> Image.Image:
        """Return the smallest stored picture of kind `index` with a longest side >= `side` pixels.

        The largest one is returned when none is that large.
        """
        stack = self.mips[index]
        fitting = [picture for picture in stack if max(picture.size) >= side]
        return fitting[-1] if fitting else stack[0]

    def of(self, count: int) -> SpriteBank:
        """Return a bank of that many kinds, spread evenly over this one's; all where it has fewer.

        Args:
            count: 1 or more.
        """
        have = len(self.kinds)
        chosen = [place * have // count for place in range(count)] if count < have else range(have)
        return SpriteBank(
            tuple(self.kinds[index] for index in chosen),
            tuple(self.mips[index] for index in chosen),
        )


def cache_dir() -> Path:
    """Return the folder for fetched art: `$PARFOCAL_CACHE`, or `parfocal` in the user's cache."""
    chosen = os.environ.get("PARFOCAL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "parfocal"


def art_path() -> Path:
    """Return where the art archive is cached, or will be."""
    return cache_dir() / f"fluent-emoji-3d-{ART_VERSION}.tgz"


def fetch_art() -> Path:
    """Return the path of the art archive; fetches it (16 MB, `npm pack`) when it is not cached.

    Raises:
        DataError: if npm is missing, fails, or hands out an archive with another checksum.
    """
    target = art_path()
    if target.exists():
        return target
    if shutil.which("npm") is None:
        raise DataError(
            f"the art of the seeded scenes is not cached at {target} and `npm` is not installed. "
            f"Install Node.js, or put the archive of {ART_PACKAGE}@{ART_VERSION} there by hand."
        )
    logger.info("fetching %s@%s (16 MB) with npm pack", ART_PACKAGE, ART_VERSION)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        package = f"{ART_PACKAGE}@{ART_VERSION}"
        command = ["npm", "pack", "--silent", package, "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = sorted(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or not archives:
            raise DataError(
                f"`{' '.join(command)}` failed: {done.stderr.strip() or 'no archive was written'}."
            )
        digest = hashlib.sha1(archives[0].read_bytes(), usedforsecurity=False).hexdigest()
        if digest != ART_SHA1:
            raise DataError(f"{package} has sha1 {digest}, expected {ART_SHA1}; it was not kept.")
        os.replace(archives[0], target)
    return target


def load_sprites(archive: Path | None = None, kinds: Sequence[Kind] = KINDS) -> SpriteBank:
    """Read every kind's picture, cut to its outline (alpha above 8) and shrunk to `MIP_SIDES`.

    Args:
        archive: a `.tgz` of the art package; fetched when None.
        kinds: which kinds, in which order.

    Raises:
        DataError: if a kind's picture is not in the archive.
    """
    archive = archive or fetch_art()
    wanted = {f"package/assets/{kind.asset}.webp": kind for kind in kinds}
    pictures: dict[str, tuple[Image.Image, ...]] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            kind = wanted.get(member.name)
            stream = tar.extractfile(member) if kind else None
            if kind and stream:
                pictures[kind.name] = _shrink(stream.read())
    missing = [kind.name for kind in kinds if kind.name not in pictures]
    if missing:
        raise DataError(
            f"{archive} lacks the pictures of {', '.join(missing)}; "
            f"it is not {ART_PACKAGE}@{ART_VERSION}."
        )
    return SpriteBank(tuple(kinds), tuple(pictures[kind.name] for kind in kinds))


def _shrink(data: bytes) -> tuple[Image.Image, ...]:
    full = Image.open(io.BytesIO(data)).convert("RGBA")
    outline = full.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    if outline is None:
        raise DataError("a sprite of the art archive is fully transparent.")
    full = full.crop(outline).convert("RGBa")
    longest = max(full.size)
    sizes = [
        tuple(max(1, round(side * length / longest)) for length in full.size) for side in MIP_SIDES
    ]
    return tuple(full.resize((width, height), Image.Resampling.LANCZOS) for width, height in sizes)
