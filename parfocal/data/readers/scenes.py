"""Reader of seeded scenes: sample `i` of a split is painted on demand, the same on every machine.

Every object is a labelled region of the Sample; turns are made by `parfocal.data.scenes.turns`
where they are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from parfocal.boxes import Boxes, Frame
from parfocal.data.sample import ImageRef, Sample
from parfocal.data.scenes.compose import Scene, SceneStyle, make_scene
from parfocal.data.scenes.sprites import SpriteBank, load_sprites
from parfocal.errors import DataError

LICENCE = "MIT (Fluent Emoji art by Microsoft)"


class SceneReader:
    """A sequence of Samples over `count` scenes of one split, painted when they are asked for.

    Args:
        split: a key of `parfocal.data.scenes.compose.SPLITS`.
        count: number of scenes.
        sides: longer picture sides in pixels, used in turn.
        bank: the sprites; loaded (and fetched, if they are not cached) when None.
        kinds: number of kinds that there are in the scenes, of the bank's; 0: all.
        num_objects: fewest and most objects placed in one.

    Raises:
        DataError: if there are fewer kinds than objects in one scene.
    """

    def __init__(
        self,
        split: str,
        count: int,
        sides: Sequence[int] = (192,),
        bank: SpriteBank | None = None,
        kinds: int = 0,
        num_objects: tuple[int, int] = SceneStyle.num_objects,
    ) -> None:
        self.split, self.count, self.sides = split, count, tuple(sides)
        self.num_objects = num_objects
        whole = bank or load_sprites()
        self.bank = whole.of(kinds) if kinds else whole
        if num_objects[1] > len(self.bank.kinds):
            raise DataError(
                f"scenes are to have up to {num_objects[1]} objects, of only "
                f"{len(self.bank.kinds)} kinds; take more kinds, or fewer objects."
            )

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        """Paint scene `index`."""
        side = self.sides[index % len(self.sides)]
        style = SceneStyle(side=side, num_objects=self.num_objects)
        return make_scene(self.bank, self.split, index, style)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        return scene_sample(self.scene(index), self.bank)


def scene_sample(scene: Scene, bank: SpriteBank) -> Sample:
    """Return a scene as a Sample without turns: picture in memory, objects as labelled regions.

    Args:
        scene: a painted scene; its objects keep their order, front last.
        bank: the sprites it was painted with, which name the kinds.
    """
    height, width = scene.pixels.shape[:2]
    frame = Frame("image", width, height)
    labels = [bank.kinds[item.kind].name for item in scene.objects]
    regions = (
        Boxes([item.xyxy for item in scene.objects], frame, labels=labels)
        if labels
        else Boxes.empty(frame)
    )
    image = ImageRef(path=None, width=width, height=height, pixels=Image.fromarray(scene.pixels))
    return Sample(
        id=f"scenes:{scene.split}:{scene.index}",
        images=(image,),
        turns=(),
        regions=regions,
        source="scenes",
        split=scene.split,
        licence=LICENCE,
        meta={
            "visible": [round(item.visible, 3) for item in scene.objects],
            "hidden": [bank.kinds[kind].name for kind in scene.hidden],
        },
    )
