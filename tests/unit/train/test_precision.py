"""Training in bfloat16: no product with a weight is left that TF32 would make faster."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from parfocal.train.data import ConversationCollator, DetectionCollator, score_heads_of
from parfocal.train.detection import DetectionObjective
from parfocal.train.language import LanguageObjective
from tests.unit.train.drawn import drawn_sample

# products with weights, forward and back; those of two activations are others
PRODUCTS = ("aten.mm", "aten.addmm", "aten.convolution", "aten.convolution_backward")


class Products(TorchDispatchMode):
    """Notes the types of numbers that products are of."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).rsplit(".", 1)[0] in PRODUCTS:
            self.dtypes += [item.dtype for item in args if isinstance(item, torch.Tensor)]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["detection", "language"])
def test_weights_are_multiplied_in_bfloat16(make_model, processor, toy_talk, kind):
    model = make_model("deformable_detr")  # Groma's
    if kind == "language":
        objective, batch = LanguageObjective(model), ConversationCollator(processor)(toy_talk)
        batch = {name: batch[name] for name in ("pixel_values", "text")}
    else:
        objective = DetectionObjective(model, num_kinds=0)
        samples = [drawn_sample(index) for index in range(2)]
        batch = DetectionCollator(processor, score_heads_of(("object",)))(samples)
    with Products() as seen:
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective.train()(**batch).loss
        loss.backward()
    assert len(seen.dtypes) > 100
    assert set(seen.dtypes) == {torch.bfloat16}
