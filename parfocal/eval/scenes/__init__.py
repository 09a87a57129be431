"""The bundled held-out scenes: drawn pictures whose every object, name and box is known.

The package data beside this file is `scenes.zip` (one WebP picture a scene) and `scenes.jsonl` (one
scene a line). They are never trained on. Boxes are xyxy in pixels of the picture.
"""

from parfocal.eval.scenes.load import (
    SCENES_FOLDER,
    AbsentExpression,
    Count,
    Expression,
    Scene,
    SceneObject,
    SceneSet,
    load_scenes,
)

__all__ = [
    "SCENES_FOLDER",
    "AbsentExpression",
    "Count",
    "Expression",
    "Scene",
    "SceneObject",
    "SceneSet",
    "load_scenes",
]
